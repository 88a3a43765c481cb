"""Rules for the benches: what a box would get of files and archives, made up to the wanted number, bounded."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from omamori_lab import product_rules
from omamori_lab.errors import SetupError
from omamori_lab.rule_set import generate_rules, obtain_rules, read_rules, write_feed

_LOUD = "classtype:trojan-activity; metadata:signature_severity Major, confidence High;"
RULES = f"""\
# a comment (with brackets; sid:9;)
alert tcp $HOME_NET any -> any any (msg:"one"; content:"a"; sid:2000001; rev:1; {_LOUD})
#alert tcp $HOME_NET any -> any any (msg:"off"; content:"b"; sid:2000002; rev:1; {_LOUD})
# drop udp any any -> any any (msg:"off too"; sid:2000003; rev:1;)
alert http any any -> any any (msg:"statistics"; http.uri; content:"c"; sid:2000004; rev:1; \
metadata:signature_severity Informational;)
alert tcp $HOME_NET any -> any any (msg:"one again"; content:"new"; sid:2000001; rev:2; {_LOUD})
alert tcp $HOME_NET any -> any any (msg:"older"; content:"old"; sid:2000001; rev:1; {_LOUD})
alert http any any -> any any (msg:"too dear"; http.uri; content:"d"; sid:2000005; rev:1; \
metadata:performance_impact Significant;)
alert tcp any any -> any any (msg:"of a list, for another engine"; content:"Host"; sid:100000001; rev:1;)
""".replace("\\\n", "").encode()


def sids(text: bytes) -> list[int]:
    return [int(line.split(b"sid:")[1].split(b";")[0]) for line in text.splitlines()]


def test_what_a_box_would_get_comes_first_and_nothing_that_it_never_would(tmp_path: Path) -> None:
    (tmp_path / "a.rules").write_bytes(RULES)
    (tmp_path / "ciarmy.rules").write_bytes(RULES.replace(b"sid:2000004", b"sid:2000009"))
    found = read_rules([tmp_path], 3)
    assert sids(found.text) == [2000001, 2000004]
    first, second = found.text.splitlines()
    assert first.startswith(b"drop tcp")
    assert b'content:"new"' in first
    assert second.startswith(b"alert http")
    assert found.count == 2
    assert found.origin == (
        "1 rules of public sets as the feed's compiler takes them over, 1 more that its policy leaves out"
    )
    assert read_rules([tmp_path], 1).origin == "1 rules of public sets as the feed's compiler takes them over"


def test_rules_in_archives_are_found(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("rules/x.rules")
        member.size = len(RULES)
        archive.addfile(member, io.BytesIO(RULES))
    assert read_rules([tmp_path], 100).count == 2


def test_missing_rules_are_generated_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.rules").write_bytes(RULES)
    found = obtain_rules([tmp_path], 10)
    assert found.count == 10
    assert len(found.text.splitlines()) == 10
    assert found.origin.endswith(", 8 generated")


def test_generated_rules_are_the_same_every_time() -> None:
    assert generate_rules(50) == generate_rules(50)
    assert len(set(generate_rules(50).text.splitlines())) == 50
    assert obtain_rules([], 5).origin == "5 generated rules"


@pytest.mark.parametrize("name", ["absent", "."], ids=["no directory", "empty directory"])
def test_directory_without_rules_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError):
        read_rules([tmp_path / name], 10)


def test_archive_that_is_not_intact_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(b"\x1f\x8b and no more")
    with pytest.raises(SetupError, match="not intact"):
        read_rules([tmp_path], 10)


def test_one_file_too_many_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_rules, "MAX_FILES", 2)
    for name in ("a", "b"):
        (tmp_path / f"{name}.rules").write_bytes(RULES)
    assert read_rules([tmp_path], 10).count == 2
    (tmp_path / "c.rules").write_bytes(RULES)
    with pytest.raises(SetupError, match="more than 2 rule files"):
        read_rules([tmp_path], 10)


def test_feed_is_what_the_engine_reads(tmp_path: Path) -> None:
    engine = write_feed(generate_rules(3), tmp_path / "feed") / "engine"
    lines = (engine / "all.rules").read_bytes().splitlines(keepends=True)
    assert b"".join(lines[:3]) == generate_rules(3).text
    assert any(b"dataset:isset,phishing;" in line for line in lines)
    assert any(b"omamori_application line" in line for line in lines)
    declared = (engine / "datasets.yaml").read_text()
    assert "  phishing: {type: string, load: phishing.lst" in declared
    names = [line.split(":")[0].strip() for line in declared.splitlines()[3:]]
    assert all((engine / f"{name}.lst").read_bytes() for name in names)
    assert (engine / "malware-files.sha256").exists()
