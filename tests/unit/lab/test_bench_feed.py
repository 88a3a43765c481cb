"""The feed bench's packs are packs, and its indicators are the same every time."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from omamori_agent.feed.lists import check_networks
from omamori_lab import bench_feed
from omamori_lab.bench_feed import measure, obtain_indicators
from omamori_lab.benchmark import Benchmark, Figure, merge
from omamori_lab.errors import SetupError
from omamori_lab.feed_packs import write_feed_pack
from omamori_lab.progress import Silence
from omamori_lab.public_rules import obtain_public_rules
from omamori_lab.rule_set import generate_rules
from omamori_lab.settings import LabSettings
from omamori_protocol.feed_manifest import ListKind
from omamori_protocol.feed_pack import unpack


def test_indicators_are_generated_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_feed, "DIGESTS", 50)
    monkeypatch.setattr(bench_feed, "ADDRESSES", 50)
    made = obtain_indicators(None, 100)
    assert made == obtain_indicators(None, 100)
    assert len(made.names) == 100
    assert list(made.names) == sorted(set(made.names))


def test_pack_is_one_that_a_box_takes(tmp_path: Path) -> None:
    lists = {
        "names": (ListKind.DOMAIN, [b"a.test"]),
        "digests": (ListKind.SHA256, [b"a" * 64]),
        "addresses": (ListKind.IP, [b"11.0.0.1"]),
    }
    size = write_feed_pack(
        tmp_path / "pack", 3, generate_rules(10), lists, extra="alert ip any any -> any any (sid:1;)\n"
    )
    data = (tmp_path / "pack").read_bytes()
    assert size == len(data)
    (tmp_path / "out").mkdir()
    manifest = unpack(io.BytesIO(data), tmp_path / "out")
    assert manifest.serial == 3
    check_networks(tmp_path / "out/lists/addresses.txt", name="addresses", count=1)
    rules = (tmp_path / "out/rules/bench.rules").read_text()
    assert rules.count("dataset:isset,names") == 8
    assert "filesha256:digests.sha256" in rules
    sids = [line.partition("sid:")[2].partition(";")[0] for line in rules.splitlines()]
    assert len(sids) == len(set(sids))


def result(**parts: dict[str, float]) -> Benchmark:
    figures = tuple(Figure(name=name, value=value, unit="s", explanation="-") for part in parts.values()
                    for name, value in part.items())  # fmt: skip
    measured = {part.replace("_", ""): list(names) for part, names in parts.items()}
    return Benchmark(name="feed", title="-", date="-", machine={}, versions=dict.fromkeys(parts, "-"), figures=figures,
                     details={"measured": measured})  # fmt: skip


def test_part_that_is_measured_again_replaces_what_it_was_and_leaves_the_others() -> None:
    old = result(back={"a": 1, "gone": 2}, compile={"b": 3}, _20000={"c": 4})
    merged = merge(old, result(back={"a": 5, "new": 6}), bench_feed.PARTS)
    assert [(figure.name, figure.value) for figure in merged.figures] == [("b", 3), ("c", 4), ("a", 5), ("new", 6)]
    assert merged.details["measured"] == {"compile": ["b"], "20000": ["c"], "back": ["a", "new"]}
    assert set(merged.versions) == {"back", "compile", "_20000"}


def test_unknown_part(tmp_path: Path) -> None:
    settings = LabSettings(state=tmp_path)
    with pytest.raises(SetupError, match="no part nonsense"):
        measure(settings, Silence(), lists=None, rules=(), only=["nonsense"])


def test_public_rules_active_ones_first_each_id_once_and_the_rest_generated(tmp_path: Path) -> None:
    (tmp_path / "a.rules").write_text(
        '#alert tcp any any -> any any (msg:"off"; sid:2000001; rev:1;)\n'
        'alert tcp any any -> any any (msg:"old"; sid:2000002; rev:1;)\n'
        'alert tcp any any -> any any (msg:"other"; sid:2000003; rev:1;)\n'
    )
    (tmp_path / "b.rules").write_text('alert tcp any any -> any any (msg:"new"; sid:2000002; rev:2;)\n')
    (tmp_path / "drop.rules").write_text('alert ip [192.0.2.1] any -> any any (msg:"list"; sid:2400000; rev:2;)\n')
    rules = obtain_public_rules([tmp_path], 5)
    messages = [line.partition('msg:"')[2].partition('"')[0] for line in rules.text.decode().splitlines()]
    assert sorted(messages[:2]) == ["new", "other"]
    assert messages[2] == "off"
    assert [message[:5] for message in messages[3:]] == ["bench", "bench"]
    assert rules.count == 5
    assert rules.origin == "2 active rules of public rule sets, 1 that their authors switched off, 2 generated"
    assert obtain_public_rules([tmp_path], 1).count == 1
    assert obtain_public_rules([], 3).origin == "3 generated rules"


def test_public_rules_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SetupError):
        obtain_public_rules([tmp_path], 1)
