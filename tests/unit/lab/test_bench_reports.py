"""The benches' results as figures: medians and ratios of rounds, sentences that say what was compared."""

from __future__ import annotations

import json

import pytest

from omamori_lab import bench_faults, bench_faults_report, bench_office, bench_wire, bench_wire_report
from omamori_lab.bench_faults import Outcome
from omamori_lab.bench_office import OfficeResult, Side, parse_work
from omamori_lab.bench_wire import BRIDGE, MEASUREMENTS, OMAMORI, STOCK, Sample, WireResult, ratios
from omamori_lab.cli import build_parser
from omamori_lab.errors import LabError
from omamori_lab.load.probe import Report
from omamori_lab.measured_lanes import stock_configuration
from omamori_lab.rule_set import generate_rules


def samples(bridge: list[float], stock: list[float], omamori: list[float]) -> dict[str, list[Sample]]:
    def made(values: list[float], engine_s: float) -> list[Sample]:
        return [
            Sample(value=value, work=2e9, engine_s=engine_s, queued=1000, uninspected=10, more={"p99_us": 7.0})
            for value in values
        ]

    return {BRIDGE: made(bridge, 0.0), STOCK: made(stock, 4.0), OMAMORI: made(omamori, 0.1)}


def wire() -> WireResult:
    taken = samples([4.0, 5.0, 10.0], [1.0, 1.0, 1.0], [3.6, 5.0, 8.0])
    return WireResult(
        samples={each.name: taken for each in MEASUREMENTS},
        memory_mib={f"{OMAMORI}, loaded": 240.0, f"{STOCK}, loaded": 331.0, f"{OMAMORI}, at most": 300.0},
        rules="3 generated rules",
        seconds=2,
    )


def test_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    figure = next(each for each in bench_wire_report.figures(wire()) if each.name == "TCP bulk, 1 stream down")
    assert ratios(wire().samples["tcp1_down"], OMAMORI) == [0.9, 1.0, 0.8]
    assert (figure.value, figure.rounds, figure.budget) == (0.9, (0.9, 1.0, 0.8), "≥ 0.9")
    assert "bare bridge 5, stock engine (AF_PACKET) 1, Omamori 5" in figure.explanation
    assert "the stock engine is at 0.20 × the bare bridge" in figure.explanation


def test_every_measurement_and_cost_is_one_figure_with_a_sentence() -> None:
    figures = bench_wire_report.figures(wire())
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names)
    assert {each.title for each in MEASUREMENTS} <= set(names)
    assert all(figure.explanation.endswith(".") for figure in figures)
    budgets = {figure.name: figure.budget for figure in figures}
    assert budgets["engine, per bypassed gigabyte"] == "≤ 0.1 s"
    assert budgets["engine, per inspected packet"] == "≤ 6 µs"
    assert next(figure for figure in figures if figure.name == "engine, per bypassed gigabyte").value == 0.05
    json.dumps(bench_wire_report.details(wire()))


def test_part_of_the_measurements_and_lanes_is_enough() -> None:
    taken = samples([4.0], [1.0], [4.0])
    del taken[STOCK]
    part = WireResult(samples={"ping": taken}, memory_mib={}, rules="none", seconds=1)
    (figure,) = bench_wire_report.figures(part)
    assert "(less is better)" in figure.explanation


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"seconds": 0}, {"only": ["nothing"]}, {"lanes": [OMAMORI]}])
def test_wire_bench_without_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(LabError):
        bench_wire.measure(generate_rules(1), **bad)  # type: ignore[arg-type]


def report(interruption_ms: float, lost: int) -> Report:
    return Report(
        sent=4000, lost=lost, interruption_ms=interruption_ms, at_s=1.5, p50_ms=0.1, p99_ms=0.5, longest_ms=1.0
    )


def test_failure_has_a_figure_for_each_flow() -> None:
    outcomes = [
        Outcome(
            flows={"inspected": report(ms, 60), "bypassed": report(1.0, 0), "stream": report(9.0, 0)},
            uninspected=500,
            seconds=5.0,
        )
        for ms in (60.0, 66.0, 50.0)
    ]
    figures = bench_faults_report.figures({"killed": outcomes})
    assert [figure.name for figure in figures] == [
        "engine killed: inspected",
        "engine killed: bypassed",
        "engine killed: TCP",
    ]
    assert (figures[0].value, figures[0].budget) == (60.0, "≤ 100 ms")
    assert "60 of 4000 lost; 500 packets of all flows passed without inspection" in figures[0].explanation
    assert figures[1].budget == "never: 0 lost"
    json.dumps(bench_faults_report.details({"killed": outcomes}, "a", "b"))


def test_every_failure_has_its_own_name() -> None:
    names = [fault.name for fault in bench_faults.FAULTS]
    assert len(set(names)) == len(names)
    assert all(fault.how.endswith(".") for fault in bench_faults.FAULTS)


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"only": ["nothing"]}])
def test_fault_bench_without_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(LabError):
        bench_faults.measure(generate_rules(1), generate_rules(1), **bad)  # type: ignore[arg-type]


WORK = {
    kind: {"done": 10, "failures": 1, "p50_ms": 1.0, "p99_ms": 2.0, "longest_ms": 3.0, "reasons": {}}
    for kind in ("dns", "http", "https", "smtp")
}


def test_office_is_compared_with_the_bare_bridge() -> None:
    side = Side(work=WORK, probe=report(1.0, 2), retransmitted=5)
    result = OfficeResult(
        sides={"bridge": side, "omamori": side},
        memory_mib=((0.0, 200.0), (150.0, 300.0), (600.0, 301.5)),
        engine_s=60.0,
        uninspected=0,
        terminals=102,
        seconds=600,
        rules="1 generated rules",
    )
    figures = {figure.name: figure for figure in bench_office.figures(result)}
    assert (figures["failed work"].value, figures["failed work"].unit) == (4, "of 44")
    assert figures["engine, growth of its memory"].value == 1.5
    assert figures["engine, processor time"].value == 10.0
    json.dumps(bench_office.details(result))


@pytest.mark.parametrize("output", ["", "[]", '{"dns": {"done": 0}}', '{"dns": 1}'])
def test_office_that_did_nothing_is_an_error(output: str) -> None:
    with pytest.raises(LabError):
        parse_work(output)
    assert parse_work(json.dumps(WORK)) == WORK


@pytest.mark.parametrize("bad", [{"seconds": 0}, {"pcs": 0}, {"pcs": 251}])
def test_office_bench_without_sense_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(LabError):
        bench_office.measure(generate_rules(1), **bad)


def test_stock_configuration_copies_between_the_two_ports(tmp_path: object) -> None:
    shipped = "a: 1\naf-packet:\n  - interface: eth0\nunix-command:\n  filename: /var/run/suricata-command.socket\n"
    made = stock_configuration(shipped, tmp_path)  # type: ignore[arg-type]
    assert made.count("\naf-packet:") == 1
    assert made.count("copy-mode: ips") == 2
    assert f"filename: {tmp_path}/control" in made
    with pytest.raises(LabError):
        stock_configuration("nothing: 1\n", tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["chain", "wire", "faults", "office", "feed"])
def test_benches_are_known_to_the_command(what: str) -> None:
    options = build_parser().parse_args(
        ["bench", what, "--rounds", "2", "--only", "a,b", "--rules", "x", "--rules", "y"]
    )
    assert (options.what, options.rounds, options.only, len(options.rules)) == (what, 2, ["a", "b"], 2)
    assert build_parser().parse_args(["bench"]).what == "chain"
