"""Every lane of the benches carries traffic for one tiny round. What is measured is never asserted."""

from __future__ import annotations

import pytest

from omamori_firmware.errors import ImageError
from omamori_lab import bench_faults, bench_office, bench_wire
from omamori_lab.bench_wire import LANES, OMAMORI, STOCK
from omamori_lab.native_wire import obtain_programs
from omamori_lab.rule_set import generate_rules

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def engine_tree() -> None:
    try:
        obtain_programs()
    except ImageError as err:
        pytest.skip(f"no engine: {err}")


def test_three_lanes_carry_bulk_web_small_packets_and_pings() -> None:
    names = ("tcp1_up", "https_100k", "http_connections", "udp350", "tcp_rr", "ping")
    result = bench_wire.measure(generate_rules(20), rounds=1, seconds=1, only=names)
    assert set(result.samples) == set(names)
    for taken in result.samples.values():
        assert set(taken) == set(LANES)
        assert all(sample.value > 0 and sample.work > 0 for lane in taken.values() for sample in lane)
    assert result.samples["http_connections"][OMAMORI][0].queued > 0
    assert result.samples["http_connections"][STOCK][0].engine_s > 0
    assert all(value > 0 for value in result.memory_mib.values())


def test_failures_are_played_with_probes_on_three_flows() -> None:
    chosen = ["started", "killed", "hung", "disk_full"]
    results = bench_faults.measure(generate_rules(20), generate_rules(40), rounds=1, only=chosen)
    assert list(results) == chosen
    for name, (outcome,) in results.items():
        assert outcome.flows["inspected"].sent > outcome.flows["inspected"].lost, name
        assert ("bypassed" in outcome.flows) == (name != "started")
    assert results["killed"][0].uninspected > 0


def test_two_offices_work_side_by_side() -> None:
    result = bench_office.measure(generate_rules(20), seconds=4, pcs=20)
    assert result.terminals >= 20
    assert len(result.memory_mib) >= 2
    for side in result.sides.values():
        assert all(kind["done"] > 0 for kind in side.work.values())
        assert side.probe.sent > 0
