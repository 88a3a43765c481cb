"""Measures firmware updates: differences between releases that really differ, and an update of a virtual box.

Parts: `releases` (native: sizes, unpacking, a line that is cut) and `update` (the lab, in QEMU).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import bench_ota_fetch, bench_ota_releases, bench_ota_update, machine, products
from .bench_ota_fetch import Taken
from .bench_ota_releases import BASES, NEW, Difference, Releases
from .benchmark import MEASURED, Benchmark, Figure
from .lab import Lab
from .progress import Progress
from .settings import LabSettings

NAME = "ota"
PARTS = ("releases", "update")
_MIB = 1 << 20
_CUT_BYTES = _MIB
_BUDGETS = {"userland": "≤ 3 %"}
_REMARKS = (
    """\
**What an update costs.** Percentages are of the full payload, which is compressed; of the bundle, as it lies on the
disk, it is a third of that. Why a kernel costs what it costs: [ADR 44](adr/0044-what-a-kernel-update-costs.md).""",
    """\
**Seconds.** Unpacking ran natively on the machine named above, the update of the box in QEMU without hardware
virtualisation, where a start takes several times as long as on a real one.""",
)


def measure(settings: LabSettings, progress: Progress, *, only: Sequence[str]) -> Benchmark:
    """Measure.

    Args:
        settings: Of the lab.
        progress: Told what is being done.
        only: Parts; all without any.

    Raises:
        LabError: Something did not do what it should.
    """
    products.ensure_keys(settings.keys)
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    measured: dict[str, list[str]] = {}
    parts: dict[str, Callable[[], tuple[list[Figure], dict[str, Any]]]] = {
        "releases": lambda: _releases(settings, progress),
        "update": lambda: _update(settings, progress),
    }
    for part in PARTS:
        if only and part not in only:
            continue
        found, more = parts[part]()
        figures += found
        details |= more
        measured[part] = [figure.name for figure in found]
    return Benchmark(
        name=NAME,
        title="Firmware updates",
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        machine=machine.describe(),
        versions={"image": products.image_version("release")},
        figures=tuple(figures),
        remarks=_REMARKS,
        details={**details, MEASURED: measured},
    )


def _releases(settings: LabSettings, progress: Progress) -> tuple[list[Figure], dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="omamori-bench-ota-", dir=settings.state.parent) as name:
        scratch = Path(name)
        made = bench_ota_releases.make_releases(settings.keys, scratch, progress)
        figures = list(_sizes(made))
        tls = products.server_tls(settings.keys, scratch / "tls", ["localhost"])
        ca = settings.keys / "trust" / "service-ca.pem"

        def take(*, is_delta: bool, cut_after: int | None = None) -> Taken:
            place = scratch / "box"
            place.mkdir()
            try:
                return bench_ota_fetch.take(
                    made.path(NEW),
                    made.path(BASES[-1].version),
                    place,
                    tls=tls,
                    ca=ca,
                    is_delta=is_delta,
                    cut_after=cut_after,
                )
            finally:
                _remove(place)

        progress.step("unpacking")
        delta, full = take(is_delta=True), take(is_delta=False)
        progress.step("a line that is cut")
        cut = take(is_delta=True, cut_after=_CUT_BYTES)
        figures += _applied(delta, full)
        figures.append(_waste(cut))
        details = {
            "bytes": {
                "bundle": made.bundle_bytes,
                "full": made.full_bytes,
                **{item.base.title: item.delta_bytes for item in made.differences},
            },
            "packages": {item.base.title: list(item.changed) for item in made.differences},
            "unpacked": {
                name: dataclasses.asdict(taken) for name, taken in (("delta", delta), ("full", full), ("cut", cut))
            },
        }
        return figures, details


def _remove(place: Path) -> None:
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()


def _sizes(made: Releases) -> Iterator[Figure]:
    yield Figure(
        name="full payload",
        value=round(made.full_bytes / 1e6, 1),
        unit="MB",
        explanation=f"What a box fetches that has nothing in common with the release; the bundle that it becomes has"
        f" {made.bundle_bytes / 1e6:.1f} MB.",
    )
    for item in made.differences:
        yield Figure(
            name=f"difference: {item.base.title}",
            value=round(100 * item.delta_bytes / made.full_bytes, 1),
            unit="% of the full payload",
            explanation=_about(item, made),
            budget=_BUDGETS.get(item.base.title, "≤ 15 %"),
        )


def _about(item: Difference, made: Releases) -> str:
    kernels = [line for line in item.changed if line.startswith("linux-image-amd64")]
    text = f"{item.delta_bytes} bytes, {100 * item.delta_bytes / made.bundle_bytes:.1f} % of the bundle:"
    text += f" {len(item.changed)} packages of Debian's archive differ"
    if kernels:
        text += f" ({kernels[0].replace(': locked ', ' ').replace(', got ', ' → ')})"
    return text + "."


def _applied(delta: Taken, full: Taken) -> Iterator[Figure]:
    for name, taken, about in (
        ("difference", delta, "kernel and userland"),
        ("whole firmware", full, "nothing is referred to"),
    ):
        yield Figure(
            name=f"unpacking the {name}",
            value=round(sum(spent.wall_s for spent in taken.spent), 1),
            unit="s",
            explanation=f"{about.capitalize()}, by the agent's own process, every segment's hash checked; "
            f"{sum(spent.cpu_s for spent in taken.spent):.1f} s of processor time, in {len(taken.spent)} processes.",
        )
        yield Figure(
            name=f"unpacking the {name}, memory",
            value=round(max(spent.peak_bytes for spent in (*taken.spent, *taken.checked)) / _MIB, 1),
            unit="MiB",
            explanation="Peak of that process's resident memory, Python and its libraries included.",
            budget="≤ 96 MiB",
        )


def _waste(cut: Taken) -> Figure:
    return Figure(
        name="fetched twice, per cut",
        value=round((cut.sent_bytes - cut.payload_bytes) / max(1, cut.cuts), 1),
        unit="B",
        explanation=f"The line was cut {cut.cuts} times, after every MiB; {cut.sent_bytes} bytes were sent of a payload"
        f" of {cut.payload_bytes}.",
        budget="≤ one segment",
    )


def _update(settings: LabSettings, progress: Progress) -> tuple[list[Figure], dict[str, Any]]:
    lab = Lab(settings, progress)
    with lab.running():
        lab.boot()
        seen = bench_ota_update.update(lab, progress)
    figures = [
        Figure(
            name="update of the box: to its restart",
            value=seen.asked_to_restart_s,
            unit="s",
            explanation=f"From the wish's publication until the new version is installed: {seen.fetched_bytes} bytes"
            " fetched, unpacked, checked, installed by RAUC; the office works meanwhile.",
        ),
        Figure(
            name="update of the box: without forwarding",
            value=seen.dark_s,
            unit="s",
            explanation="Echo requests from the office to the internet, five a second, that stayed without an answer:"
            " one restart. A box with a wire relay has none.",
        ),
        Figure(
            name="update of the box: without inspection",
            value=seen.uninspected_s,
            unit="s",
            explanation="From the restart until the new version protects.",
        ),
        Figure(
            name="update of the box: to its commit",
            value=seen.commit_s,
            unit="s",
            explanation="From the restart until the new version has been well for twenty seconds, and is kept.",
        ),
    ]
    return figures, {"update": dataclasses.asdict(seen)}
