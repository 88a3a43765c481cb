"""The agent starts with files that are right, or refuses and names the wrong one."""

import json
from pathlib import Path
from typing import Any

import pytest

from omamori_agent.config import MAX_RELEASE_BYTES, load_config
from omamori_agent.errors import SetupError
from omamori_protocol.vocabulary import Slot
from sim.box import CLAIM, DEVICE, RELEASE, make_box, provision_body


def test_good_box(tmp_path: Path) -> None:
    make_box(tmp_path)
    config = load_config(tmp_path)
    assert config.device == DEVICE
    assert config.slot is Slot.A
    assert config.release.version == RELEASE["version"]
    assert config.paths.feed_current == tmp_path / "var/lib/omamori/feed/current"
    assert CLAIM not in repr(config)


@pytest.mark.parametrize("name", ["release", "provision", "slot"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    paths = make_box(tmp_path)
    path: Path = getattr(paths, name)
    path.unlink()
    with pytest.raises(SetupError, match=str(path)):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        RELEASE | {"extra": 1},
        RELEASE | {"flavour": "beta"},
        RELEASE | {"version": ""},
        RELEASE | {"version": "x" * 33},
        RELEASE | {"version": "1\n2"},
        RELEASE | {"version": 3},
        RELEASE | {"model": "x" * 33},
        RELEASE | {"board": None},
        RELEASE | {"kernel": "x" * 129},
        RELEASE | {"build_time": "now"},
        RELEASE | {"build_time": -1},
        RELEASE | {"build_time": 2**40},
        RELEASE | {"build_time": True},
    ],
)
def test_bad_release(tmp_path: Path, body: Any) -> None:
    paths = make_box(tmp_path)
    paths.release.write_text(json.dumps(body))
    with pytest.raises(SetupError, match=str(paths.release)):
        load_config(tmp_path)


def test_release_one_byte_too_long_or_no_json(tmp_path: Path) -> None:
    paths = make_box(tmp_path)
    paths.release.write_text(json.dumps(RELEASE).ljust(MAX_RELEASE_BYTES + 1))
    with pytest.raises(SetupError, match=str(paths.release)):
        load_config(tmp_path)
    for junk in (b"{", b"\xff", b"[" * 4000):
        paths.release.write_bytes(junk)
        with pytest.raises(SetupError, match=str(paths.release)):
            load_config(tmp_path)


@pytest.mark.parametrize("word", ["", "C\n", "AB\n", "a\n", "A" * 17])
def test_bad_slot(tmp_path: Path, word: str) -> None:
    paths = make_box(tmp_path)
    paths.slot.write_text(word)
    with pytest.raises(SetupError, match=str(paths.slot)):
        load_config(tmp_path)


def test_slot_b(tmp_path: Path) -> None:
    make_box(tmp_path).slot.write_text("B\n")
    assert load_config(tmp_path).slot is Slot.B


def test_bad_provisioning_is_refused_without_showing_the_claim(tmp_path: Path) -> None:
    paths = make_box(tmp_path)
    paths.provision.write_text(json.dumps(provision_body(colour="red")))
    with pytest.raises(SetupError, match=str(paths.provision)) as caught:
        load_config(tmp_path)
    assert CLAIM not in str(caught.value)


@pytest.mark.parametrize("mode", [0o660, 0o602, 0o666])
def test_provisioning_that_others_may_write(tmp_path: Path, mode: int) -> None:
    paths = make_box(tmp_path)
    paths.provision.chmod(mode)
    with pytest.raises(SetupError, match="writable") as caught:
        load_config(tmp_path)
    assert "chmod" in caught.value.hint


def test_provisioning_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_box(tmp_path)
    real = Path.stat

    def stat(self: Path, **options: Any) -> Any:
        found = real(self, **options)
        if self != paths.provision:
            return found
        values = list(found)
        values[4] = 4242
        return type(found)(values)

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(SetupError, match="4242"):
        load_config(tmp_path)
