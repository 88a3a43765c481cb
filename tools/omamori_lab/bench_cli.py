"""The command `omamori-lab bench`: which bench, how long, with which rules, and where the result goes."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from omamori_signatures.engine import Engine

from . import (
    bench,
    bench_faults,
    bench_faults_report,
    bench_feed,
    bench_fleet,
    bench_ingest,
    bench_office,
    bench_ota,
    bench_supervisor,
    bench_wire,
    bench_wire_report,
    machine,
)
from .benchmark import Benchmark, merge, parse_benchmark
from .display import Display
from .native_wire import obtain_programs
from .rule_set import RuleSet, obtain_rules
from .settings import TREE, LabSettings

RULES_VARIABLE = "OMAMORI_BENCH_RULES"
LISTS_VARIABLE = "OMAMORI_BENCH_LISTS"


@dataclasses.dataclass(frozen=True)
class _Bench:
    help: str
    measure: Callable[[argparse.Namespace, Display], Benchmark]


def _chain(options: argparse.Namespace, display: Display) -> Benchmark:
    settings = dataclasses.replace(LabSettings(), state=options.state.absolute(), page_port=0)
    return bench.measure(
        settings, display, boots=options.boots, is_cold=not options.warm_only, rounds=options.rounds or 5
    )


def _wire(options: argparse.Namespace, display: Display) -> Benchmark:
    rules = _rules(options, 20_000)
    display.step("wire")
    result = bench_wire.measure(
        rules, rounds=options.rounds or 7, seconds=options.seconds or 2, only=options.only, note=display.step
    )
    return Benchmark(
        name="wire",
        title="The wire",
        date=_today(),
        machine=machine.describe(),
        versions={"rules": rules.origin},
        figures=bench_wire_report.figures(result),
        remarks=bench_wire_report.LIMITS,
        details=bench_wire_report.details(result),
    )


def _feed(options: argparse.Namespace, display: Display) -> Benchmark:
    settings = dataclasses.replace(LabSettings(), state=options.state.absolute(), page_port=0)
    lists = options.lists or (Path(found) if (found := os.environ.get(LISTS_VARIABLE)) else None)
    result = bench_feed.measure(
        settings,
        display,
        lists=lists,
        rules=_rule_directories(options),
        only=options.only,
        indicators=options.indicators,
    )
    return _merged(result, options, bench_feed.PARTS)


def _merged(result: Benchmark, options: argparse.Namespace, parts: Sequence[str]) -> Benchmark:
    """Return a result with the parts of an earlier one that were not measured now."""
    before = options.out / "benchmarks" / f"{result.name}.json"
    if not options.only or not before.exists():
        return result
    return merge(parse_benchmark(before.read_bytes(), before.name), result, parts)


def _ota(options: argparse.Namespace, display: Display) -> Benchmark:
    settings = dataclasses.replace(LabSettings(), state=options.state.absolute(), page_port=0)
    return _merged(bench_ota.measure(settings, display, only=options.only), options, bench_ota.PARTS)


def _faults(options: argparse.Namespace, display: Display) -> Benchmark:
    rules, more_rules = _rules(options, 20_000), _rules(options, 40_000)
    display.step("faults")
    results = bench_faults.measure(rules, more_rules, rounds=options.rounds or 2, only=options.only, note=display.step)
    return Benchmark(
        name="faults",
        title="Failures",
        date=_today(),
        machine=machine.describe(),
        versions={"rules": rules.origin},
        figures=bench_faults_report.figures(results),
        details=bench_faults_report.details(results, rules.origin, more_rules.origin),
    )


def _office(options: argparse.Namespace, display: Display) -> Benchmark:
    rules = _rules(options, 20_000)
    display.step("office")
    result = bench_office.measure(rules, seconds=options.seconds or 600, note=display.step)
    return Benchmark(
        name="office",
        title="A hundred office PCs",
        date=_today(),
        machine=machine.describe(),
        versions={"rules": rules.origin},
        figures=bench_office.figures(result),
        details=bench_office.details(result),
    )


def _supervisor(options: argparse.Namespace, display: Display) -> Benchmark:
    settings = dataclasses.replace(LabSettings(), state=options.state.absolute(), page_port=0, supervisor=True)
    names = [case.name for case in bench_supervisor.CASES]
    return _merged(bench_supervisor.measure(settings, display, only=options.only), options, names)


def _ingest(options: argparse.Namespace, display: Display) -> Benchmark:
    return bench_ingest.measure(display, rounds=options.rounds or 3)


def _fleet(options: argparse.Namespace, display: Display) -> Benchmark:
    result = bench_fleet.measure(display, boxes=options.boxes, seconds=options.seconds or 60)
    return bench_fleet.benchmark(result)


BENCHES = {
    "chain": _Bench("image, build, boot, agent, traffic through the box in QEMU", _chain),
    "feed": _Bench("increments, compiling, activating, lookups, ways back, and published → blocked", _feed),
    "wire": _Bench("bare bridge, stock engine and Omamori at native speed", _wire),
    "faults": _Bench("how long each failure interrupts traffic", _faults),
    "ota": _Bench("size, memory and time of firmware updates, and an update in QEMU", _ota),
    "supervisor": _Bench("how long each failure of the whole box interrupts, in QEMU", _supervisor),
    "ingest": _Bench("events a second of one ingest worker, on SQLite and on PostgreSQL", _ingest),
    "fleet": _Bench("ten thousand simulated boxes: memory, processor, latency, the storm after a restart", _fleet),
    "office": _Bench("a hundred office PCs for ten minutes", _office),
}


def run_bench(options: argparse.Namespace) -> int:
    """Measure, store the result and render the page; return the exit status."""
    with Display(Console(highlight=False, soft_wrap=True)) as display:
        result = BENCHES[options.what].measure(options, display)
    bench.write(result, options.out)
    print(f"written: {options.out}/benchmarks.md, {options.out}/benchmarks/{result.name}.json")  # noqa: T201 - a command
    return 0


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `omamori-lab bench`."""
    about = "; ".join(f"{name}: {each.help}" for name, each in BENCHES.items())
    command.add_argument("what", nargs="?", choices=tuple(BENCHES), default="chain", help=f"default chain. {about}")
    command.add_argument("--out", type=Path, default=TREE / "docs", metavar="DIR", help="default: docs")
    command.add_argument("--rounds", type=_positive, metavar="N", help="of the data plane: chain 5, wire 7, faults 2")
    command.add_argument(
        "--seconds",
        type=_positive,
        metavar="S",
        help="wire: of one measurement (2); office: in all (600); fleet: of steady work (60)",
    )
    command.add_argument(
        "--only",
        type=_names,
        default=[],
        metavar="A,B",
        help=f"wire, faults, feed and ota: only these; feed: {', '.join(bench_feed.PARTS)}; "
        f"ota: {', '.join(bench_ota.PARTS)}",
    )
    command.add_argument(
        "--rules",
        type=Path,
        action="append",
        metavar="DIR",
        help=f"directory with real rules, may be given again (or {RULES_VARIABLE}, separated by colons); "
        "without any, rules are generated",
    )
    command.add_argument(
        "--lists", type=Path, metavar="DIR", help=f"feed: directory with archives of real lists (or {LISTS_VARIABLE})"
    )
    command.add_argument(
        "--indicators",
        type=_positive,
        default=100,
        metavar="N",
        help="feed: published one after the other, %(default)s",
    )
    command.add_argument(
        "--boxes", type=_positive, default=bench_fleet.BOXES, metavar="N", help="fleet: how many, %(default)s"
    )
    command.add_argument("--boots", type=_positive, default=3, metavar="N", help="chain: later boots, %(default)s")
    command.add_argument("--warm-only", action="store_true", help="chain: leave out the build without any cache")


def _rules(options: argparse.Namespace, wanted: int) -> RuleSet:
    directories = _rule_directories(options)
    engine = Engine.in_root(obtain_programs()[1]) if directories else None
    return obtain_rules(directories, wanted, engine)


def _rule_directories(options: argparse.Namespace) -> list[Path]:
    given = [Path(name) for name in os.environ.get(RULES_VARIABLE, "").split(":") if name]
    return options.rules or given


def _today() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]
