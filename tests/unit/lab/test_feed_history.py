"""Real lists as a user keeps them: versions and differences in archives, and what the steps between them cost."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from omamori_lab import feed_history
from omamori_lab.errors import SetupError
from omamori_lab.feed_history import read_histories, read_names


def archive(path: Path, members: dict[str, str]) -> None:
    with tarfile.open(path, "w") as made:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            made.addfile(info, io.BytesIO(text.encode()))


def test_dated_versions(tmp_path: Path) -> None:
    versions = {
        "./2026-07-22__ips.txt": "192.0.2.1\n192.0.2.2\n# a comment\n",
        "./2026-07-23__ips.txt": "192.0.2.2\n192.0.2.3\n192.0.2.4\n",
        "./2026-07-24__ips.txt": "192.0.2.2\n",
    }
    archive(tmp_path / "ips-daily.tar", versions)
    (history,) = read_histories(tmp_path)
    assert history.name == "ips-daily"
    assert [(step.lines, step.added, step.removed) for step in history.steps] == [(3, 2, 1), (1, 0, 2)]
    assert 0 < history.mean_bytes < 300


def test_differences_lead_back_from_the_newest_version(tmp_path: Path) -> None:
    archive(tmp_path / "names-static.tar", {"a/b.txt": "# x\nA.test # y\nb.test\nhttp://c.test/\n192.0.2.1\n"})
    archive(
        tmp_path / "diffs.tar",
        {
            "2026-08-18/dom.diff": "+b.test\n-z.test\n",
            "2026-08-17/dom.diff": "+z.test\n",
            "2026-08-17/url.diff": "+x\n",
        },
    )
    assert read_names(tmp_path) == [b"a.test", b"b.test"]
    (history,) = read_histories(tmp_path)
    assert [(step.lines, step.added, step.removed) for step in history.steps] == [(2, 1, 1), (2, 1, 0)]


def test_directory_without_lists(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no list of names"):
        read_names(tmp_path)
    with pytest.raises(SetupError, match="is no directory"):
        read_histories(tmp_path / "missing")
    assert read_histories(tmp_path) == []


def test_member_of_the_greatest_size_and_one_byte_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path / "static.tar", {"a.txt": "a.test\n"})
    monkeypatch.setattr(feed_history, "MAX_MEMBER_BYTES", 7)
    assert read_names(tmp_path) == [b"a.test"]
    monkeypatch.setattr(feed_history, "MAX_MEMBER_BYTES", 6)
    with pytest.raises(SetupError, match="is larger than"):
        read_names(tmp_path)
