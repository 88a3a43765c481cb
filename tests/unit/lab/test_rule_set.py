"""Rules for the benches: taken from files and archives, made up to the wanted number, bounded."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from omamori_lab import rule_set
from omamori_lab.errors import SetupError
from omamori_lab.rule_set import generate_rules, obtain_rules, read_rules, write_feed

RULES = b"""\
# a comment (with brackets; sid:9;)
alert tcp any any -> any any (msg:"one"; content:"a"; sid:1; rev:1;)
#alert tcp any any -> any any (msg:"off"; content:"b"; sid:2; rev:1;)
# drop udp any any -> any any (msg:"off too"; sid:3; rev:1;)
alert http any any -> any any (msg:"four"; http.uri; content:"c"; sid:4; rev:1;)
alert tcp any any -> any any (msg:"one again"; sid:1; rev:2;)
"""


def test_active_rules_come_first_and_each_id_once(tmp_path: Path) -> None:
    (tmp_path / "a.rules").write_bytes(RULES)
    found = read_rules([tmp_path], 3)
    assert [line.split(b"sid:")[1][:2] for line in found.text.splitlines()] == [b"1;", b"4;", b"2;"]
    assert found.count == 3
    assert found.origin == "2 active rules of public rule sets, 1 that their authors switched off"
    assert read_rules([tmp_path], 1).count == 1


def test_rules_in_archives_are_found(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("rules/x.rules")
        member.size = len(RULES)
        archive.addfile(member, io.BytesIO(RULES))
    assert read_rules([tmp_path], 100).count == 4


def test_missing_rules_are_generated_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.rules").write_bytes(RULES)
    found = obtain_rules([tmp_path], 10)
    assert found.count == 10
    assert len(found.text.splitlines()) == 10
    assert found.origin.endswith(", 6 generated")


def test_generated_rules_are_the_same_every_time() -> None:
    assert generate_rules(50) == generate_rules(50)
    assert len(set(generate_rules(50).text.splitlines())) == 50
    assert obtain_rules([], 5).origin == "5 generated rules"


@pytest.mark.parametrize("name", ["absent", "."], ids=["no directory", "empty directory"])
def test_directory_without_rules_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError):
        read_rules([tmp_path / name], 10)


def test_file_with_one_byte_too_many_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.rules").write_bytes(RULES)
    monkeypatch.setattr(rule_set, "MAX_FILE_BYTES", len(RULES))
    assert read_rules([tmp_path], 10).count == 4
    monkeypatch.setattr(rule_set, "MAX_FILE_BYTES", len(RULES) - 1)
    with pytest.raises(SetupError, match=r"a\.rules is larger"):
        read_rules([tmp_path], 10)


def test_one_file_too_many_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.rules").write_bytes(RULES)
    monkeypatch.setattr(rule_set, "MAX_FILES", 2)
    with pytest.raises(SetupError, match="more than 2 rule files"):
        read_rules([tmp_path], 10)


def test_feed_is_what_the_engine_reads(tmp_path: Path) -> None:
    feed = write_feed(generate_rules(3), tmp_path / "feed")
    assert (feed / "engine" / "all.rules").read_bytes() == generate_rules(3).text
    assert "datasets: {}" in (feed / "engine" / "datasets.yaml").read_text()
