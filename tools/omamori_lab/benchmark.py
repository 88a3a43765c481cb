"""A benchmark's result: figures with unit, sentence and budget; its JSON, and the page rendered from all of them.

Pure values and text. Who measures stands in `bench`.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import SetupError

FORMAT = 1
MAX_BYTES = 1 << 20
MEASURED = "measured"  # in the details: names of figures by part
_PREFACE = """Rendered by `make bench` and `make bench-…` from `docs/benchmarks/*.json`; never edited by hand. Every
figure is from a real run of the committed code on the machine named beside it. That machine has no hardware
virtualisation: everything inside the virtual box is slower than on a real one, and only ratios of one run compare. How
the wire is measured: [ADR 19](adr/0019-how-the-wire-is-measured.md).
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure.

    Attributes:
        name: What was measured.
        value: The figure; the median when there were several rounds.
        unit: Its unit.
        explanation: One sentence: how it was measured and what it says.
        rounds: Every measurement; empty when there is only one way to count.
        budget: What the design allows, for example ``≤ 60``.
    """

    name: str
    value: float
    unit: str
    explanation: str
    rounds: tuple[float, ...] = ()
    budget: str = ""


def median(name: str, rounds: Sequence[float], unit: str, explanation: str, *, budget: str = "") -> Figure:
    """Return a figure of several rounds."""
    taken = tuple(round(value, 3) for value in rounds)
    return Figure(
        name=name,
        value=round(statistics.median(taken), 3),
        unit=unit,
        explanation=explanation,
        rounds=taken,
        budget=budget,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All figures of one run.

    Attributes:
        name: Of its file.
        title: For people.
        date: Of the run.
        machine: What it ran on.
        versions: Of what was measured.
        figures: In the order of the page.
        remarks: What the figures mean together, a paragraph each.
        details: Everything else that was measured.
    """

    name: str
    title: str
    date: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    figures: tuple[Figure, ...]
    remarks: tuple[str, ...] = ()
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return (
            json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1, ensure_ascii=False) + "\n"
        ).encode()


def parse_benchmark(data: bytes, name: str) -> Benchmark:
    """Read a result.

    Raises:
        SetupError: It is not one.
    """
    hint = "measure again: make bench"
    if len(data) > MAX_BYTES:
        raise SetupError(f"{name} is no benchmark's result: more than {MAX_BYTES} bytes", hint=hint)
    try:
        body = json.loads(data)
        form = body.pop("format")
        figures = tuple(Figure(**{**item, "rounds": tuple(item["rounds"])}) for item in body.pop("figures"))
        result = Benchmark(figures=figures, remarks=tuple(body.pop("remarks", ())), **body)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise SetupError(f"{name} is no benchmark's result: {err}", hint=hint) from err
    if form != FORMAT:
        raise SetupError(f"{name} is no benchmark's result: format {form}", hint=hint)
    return result


def merge(old: Benchmark, new: Benchmark, parts: Sequence[str]) -> Benchmark:
    """Return a result with the parts of `new` and, of those that it lacks, what `old` has."""
    taken: dict[str, list[Figure]] = {}
    for result in (old, new):
        figures = {figure.name: figure for figure in result.figures}
        for part, names in result.details.get(MEASURED, {}).items():
            taken[part] = [figures[name] for name in names if name in figures]
    return dataclasses.replace(
        new,
        versions={**old.versions, **new.versions},
        figures=tuple(figure for part in parts for figure in taken.get(part, ())),
        details={
            **old.details,
            **new.details,
            MEASURED: {part: [figure.name for figure in figures] for part, figures in taken.items()},
        },
    )


def render(results: Sequence[Benchmark]) -> str:
    """Return the page about all results."""
    parts = ["# Measured\n", _PREFACE]
    for result in results:
        machine = ", ".join(f"{key} {value}" for key, value in result.machine.items())
        versions = ", ".join(f"{key} {value[:16]}" for key, value in result.versions.items())
        parts.append(f"## {result.title}\n\n{result.date}. Machine: {machine}. Versions: {versions}.\n")
        parts.append("| figure | value | budget | what it says |\n|---|---|---|---|")
        parts += [_row(figure) for figure in result.figures]
        parts += [f"\n{remark}" for remark in result.remarks]
        parts.append("")
    return "\n".join(parts)


def _row(figure: Figure) -> str:
    spread = f" ({min(figure.rounds):g}–{max(figure.rounds):g}, n = {len(figure.rounds)})" if figure.rounds else ""
    value = f"{figure.value:g} {figure.unit}".strip()
    return f"| {figure.name} | {value}{spread} | {figure.budget or '–'} | {figure.explanation} |"
