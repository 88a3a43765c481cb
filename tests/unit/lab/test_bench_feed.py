"""The feed bench's packs are packs, and its indicators are the same every time."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from omamori_agent.feed.lists import check_networks
from omamori_lab import bench_feed
from omamori_lab.bench_feed import obtain_indicators
from omamori_lab.feed_packs import write_feed_pack
from omamori_lab.rule_set import generate_rules
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
