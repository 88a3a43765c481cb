"""Increments between packs: small, deterministic, proved, and refused where they would lead nowhere."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path

import pytest

from omamori_protocol.feed_increment import IncrementReader
from omamori_signatures import cli
from omamori_signatures.errors import PackError, SourceError
from omamori_signatures.increment_writer import write_increment
from sim.packs import RULE, PackSource

NAMES = tuple(f"n{number:04d}.test" for number in range(400))
OLD = PackSource(serial=1, domains={"dangerous": NAMES})


def pack(directory: Path, source: PackSource) -> Path:
    path = directory / f"pack-{source.channel}-{source.serial}.tar.gz"
    path.write_bytes(source.build())
    return path


def after(**changes: object) -> PackSource:
    return dataclasses.replace(OLD, serial=2, **changes)  # type: ignore[arg-type]


def test_few_changes_are_few_bytes(tmp_path: Path) -> None:
    new = after(domains={"dangerous": tuple(sorted({*NAMES[1:], "new.test"}))})
    out = tmp_path / "increment"
    report = write_increment(pack(tmp_path, OLD), pack(tmp_path, new), out)
    assert (report.start, report.goal) == (1, 2)
    assert report.added == report.removed == {"lists/dangerous.txt": 1}
    assert report.whole == ()
    assert report.size == out.stat().st_size < 700
    with out.open("rb") as file:
        reader = IncrementReader(file)
        assert reader.head.manifest == new.manifest().to_json()


def test_same_packs_give_the_same_bytes(tmp_path: Path) -> None:
    packs = pack(tmp_path, OLD), pack(tmp_path, after(rules=RULE * 2))
    for name in ("a", "b"):
        write_increment(*packs, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rules_new_lists_and_lists_that_changed_altogether_travel_whole(tmp_path: Path) -> None:
    new = after(
        rules=RULE * 2,
        domains={"dangerous": tuple(sorted(f"x{name}" for name in NAMES)), "games": ("games.test",)},
        addresses={},
    )
    report = write_increment(pack(tmp_path, OLD), pack(tmp_path, new), tmp_path / "increment")
    assert report.whole == ("lists/dangerous.txt", "lists/games.txt", "rules/omamori.rules")
    assert report.added == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [(OLD, OLD), (after(), OLD), (OLD, after(channel="other"))],
)
def test_packs_that_do_not_follow_each_other(tmp_path: Path, old: PackSource, new: PackSource) -> None:
    with pytest.raises(SourceError, match="does not follow"):
        write_increment(pack(tmp_path, old), pack(tmp_path, new), tmp_path / "increment")
    assert not (tmp_path / "increment").exists()


def test_list_that_is_not_sorted_makes_no_increment(tmp_path: Path) -> None:
    lines = list(NAMES)
    lines[10], lines[380] = lines[380], "moved.test"
    with pytest.raises(PackError, match="does not lead to the new pack"):
        write_increment(
            pack(tmp_path, OLD), pack(tmp_path, after(domains={"dangerous": tuple(lines)})), tmp_path / "increment"
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack-demo-1.tar.gz", "pack-demo-2.tar.gz"]


def test_file_that_is_no_pack(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x")
    with pytest.raises(PackError, match="is not a feed pack"):
        write_increment(pack(tmp_path, OLD), tmp_path / "other", tmp_path / "increment")
    with pytest.raises(SourceError, match="cannot read"):
        write_increment(pack(tmp_path, OLD), tmp_path / "missing", tmp_path / "increment")


def test_memory_does_not_depend_on_the_list(tmp_path: Path) -> None:
    names = tuple(f"n{number:07d}.test" for number in range(100_000))
    packs = (
        pack(tmp_path, PackSource(serial=1, domains={"dangerous": names})),
        pack(tmp_path, PackSource(serial=2, domains={"dangerous": names[:50_000] + names[50_100:]})),
    )
    tracemalloc.start()
    try:
        write_increment(*packs, tmp_path / "increment")
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = pack(tmp_path, OLD), pack(tmp_path, after(domains={"dangerous": NAMES[1:]}, rules=RULE * 2))
    assert cli.main(["increment", str(old), str(new), "--out", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == {"lists/dangerous.txt": 1}
    assert cli.main(["increment", str(old), str(new), "--out", str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    assert "lists/dangerous.txt: 0 added, 1 removed" in text
    assert "rules/omamori.rules: whole" in text
    assert cli.main(["increment", str(new), str(old), "--out", str(tmp_path / "c")]) == 1
    assert "does not follow" in capsys.readouterr().err
