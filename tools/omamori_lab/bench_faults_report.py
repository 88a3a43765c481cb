"""The fault bench's result as figures: for each failure and flow the interruption, with what was lost beside it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .bench_faults import BARE, BYPASSED, FAULTS, INSPECTED, NOT_HERE, STREAM, Fault, Outcome
from .benchmark import Figure, median

_BUDGET_BYPASSED = "never: 0 lost"


def figures(results: Mapping[str, Sequence[Outcome]]) -> tuple[Figure, ...]:
    """Return the figures of a run."""
    made: list[Figure] = []
    for fault in FAULTS:
        outcomes = results.get(fault.name)
        if outcomes:
            made += _of_fault(fault, outcomes)
    return tuple(made)


def details(results: Mapping[str, Sequence[Outcome]], rules: str, more_rules: str) -> dict[str, Any]:
    """Return everything that was measured, for the file."""
    return {
        "rules": rules,
        "more rules": more_rules,
        "not here": dict(NOT_HERE),
        "outcomes": {name: [dataclasses.asdict(outcome) for outcome in taken] for name, taken in results.items()},
    }


def _of_fault(fault: Fault, outcomes: Sequence[Outcome]) -> list[Figure]:
    made = []
    for flow, title, budget in (
        (INSPECTED, "inspected", fault.budget),
        (BYPASSED, "bypassed", "" if fault.name == "none" else _BUDGET_BYPASSED),
        (STREAM, "TCP", ""),
    ):
        reports = [outcome.flows[flow] for outcome in outcomes if flow in outcome.flows]
        if not reports:
            continue
        text = f"{_lost([report.lost for report in reports])} of {reports[0].sent} lost"
        if flow == INSPECTED:
            passed = statistics.median(outcome.uninspected for outcome in outcomes)
            text = f"{fault.how} {text}; {passed:g} packets of all flows passed without inspection, and were counted."
            bare = [outcome.flows[BARE] for outcome in outcomes if BARE in outcome.flows]
            if bare:
                text += (
                    f" The same on the bare bridge: {statistics.median(each.interruption_ms for each in bare):g} ms,"
                    f" {_lost([each.lost for each in bare])} lost."
                )
        elif flow == BYPASSED:
            text = f"A flow that the engine has finished with, at the same time: {text}."
        else:
            text = f"A connection with 250 small segments a second: p99 of their delay {_p99(outcomes):g} ms."
        made.append(
            median(f"{fault.title}: {title}", [report.interruption_ms for report in reports], "ms", text, budget=budget)
        )
    return made


def _lost(counts: Sequence[int]) -> str:
    if min(counts) == max(counts):
        return str(counts[0])
    return f"{statistics.median(counts):g} ({min(counts)}–{max(counts)})"


def _p99(outcomes: Sequence[Outcome]) -> float:
    return round(statistics.median(outcome.flows[STREAM].p99_ms for outcome in outcomes), 2)
