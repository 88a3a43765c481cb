"""Bulk TCP through the data plane against a bare kernel bridge, measured in turn in the same run.

Both lanes are the same three namespaces on this machine; the second has gate, queue and engine as on the box. Client,
server and box share the processors, so absolute rates say little: the ratio of the medians is the result, and the
engine's processor time per gigabyte shows what is left of inspection in bulk.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omamori_firmware.recipe import source_tree

from .errors import LabError
from .native_wire import INTERNET_IPV4, NativeLane, obtain_programs
from .run import end, run, spawn
from .waiting import wait_for

_PORT = 5201
_LISTENING = "0A"  # state of a listening socket in /proc/net/tcp


@dataclasses.dataclass(frozen=True)
class Direction:
    """One thing to measure.

    Attributes:
        name: Its name in the result.
        options: What iperf3 is told besides.
    """

    name: str
    options: tuple[str, ...]


DIRECTIONS = (
    Direction("download", ("--reverse",)),
    Direction("upload", ()),
    Direction("download_4_streams", ("--reverse", "--parallel", "4")),
)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run of iperf3: rate in Gbit/s, and the engine's processor time in seconds per gigabyte."""

    gbit_s: float
    engine_s_per_gb: float


def measure(*, rounds: int = 5, seconds: int = 3, note: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure and return the result as JSON values.

    Args:
        rounds: How often each lane is measured, in turn.
        seconds: Length of one run of iperf3.
        note: Told what is going on.

    Returns:
        `figures` (medians and their ratios), `spread` (smallest and largest of each), `rounds` (every run).

    Raises:
        LabError: A lane cannot be made, or iperf3 failed.
    """
    if rounds < 1 or seconds < 1:
        raise LabError("rounds and seconds must be positive")
    programs, engine_tree = obtain_programs()
    bare, wired = NativeLane(), NativeLane()
    try:
        bare.start()
        wired.start()
        wired.install_wire(programs)
        wired.prepare_engine(engine_tree, source_tree().engine / "feed-empty").start()
        samples = _play(bare, wired, rounds, seconds, note)
    finally:
        wired.stop()
        bare.stop()
    return summarise(samples)


def summarise(samples: dict[str, dict[str, list[Sample]]]) -> dict[str, Any]:
    """Return the result of samples by direction and lane (`bridge`, `omamori`)."""
    figures: dict[str, float] = {}
    spread: dict[str, list[float]] = {}
    for direction, lanes in samples.items():
        medians = {lane: statistics.median(sample.gbit_s for sample in taken) for lane, taken in lanes.items()}
        for lane, taken in lanes.items():
            figures[f"{direction}_{lane}_gbit_s"] = round(medians[lane], 3)
            rates = [sample.gbit_s for sample in taken]
            spread[f"{direction}_{lane}_gbit_s"] = [round(min(rates), 3), round(max(rates), 3)]
        figures[f"{direction}_ratio"] = round(medians["omamori"] / medians["bridge"], 3)
        costs = [sample.engine_s_per_gb for sample in lanes["omamori"]]
        figures[f"{direction}_engine_s_per_gb"] = round(statistics.median(costs), 4)
    runs = {
        direction: {lane: [dataclasses.asdict(sample) for sample in taken] for lane, taken in lanes.items()}
        for direction, lanes in samples.items()
    }
    return {"figures": figures, "spread": spread, "rounds": runs}


def _play(
    bare: NativeLane, wired: NativeLane, rounds: int, seconds: int, note: Callable[[str], None]
) -> dict[str, dict[str, list[Sample]]]:
    samples: dict[str, dict[str, list[Sample]]] = {
        direction.name: {"bridge": [], "omamori": []} for direction in DIRECTIONS
    }
    for number in range(1, rounds + 1):
        for direction in DIRECTIONS:
            for name, lane in (("bridge", bare), ("omamori", wired)):
                sample = _sample(lane, direction, seconds)
                samples[direction.name][name].append(sample)
                note(f"round {number}/{rounds} {direction.name} {name}: {sample.gbit_s:.2f} Gbit/s")
    return samples


def _sample(lane: NativeLane, direction: Direction, seconds: int) -> Sample:
    log = lane.directory / "iperf3.log"
    with log.open("ab") as stream:
        server = spawn(lane.internet.command(["iperf3", "--server", "--one-off"]), log=stream)
    try:
        wait_for(lambda: lane.internet.call(_is_listening), "iperf3 server listening", timeout_s=10, every_s=0.02)
        before = lane.engine.cpu_s() if lane.engine else 0.0
        line = ["iperf3", "--client", INTERNET_IPV4, "--json", "--time", str(seconds), *direction.options]
        output = run(lane.office.command(line), timeout_s=seconds + 30).output
        used_s = lane.engine.cpu_s() - before if lane.engine else 0.0
    finally:
        end(server)
    rate, size = parse_iperf3(output)
    return Sample(round(rate / 1e9, 4), round(used_s / (size / 1e9), 4))


def parse_iperf3(output: str) -> tuple[float, int]:
    """Return bits per second and bytes that the receiver got.

    Raises:
        LabError: It is not iperf3's report of a successful run.
    """
    try:
        received = json.loads(output)["end"]["sum_received"]
        rate, size = float(received["bits_per_second"]), int(received["bytes"])
    except (ValueError, KeyError, TypeError) as err:
        raise LabError(f"iperf3 gave no result: {output.strip()[-200:]}") from err
    if size <= 0:
        raise LabError("iperf3 transferred nothing")
    return rate, size


def _is_listening() -> bool:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == _PORT:
                return True
    return False


def main() -> None:
    """Measure and print, for `python -m omamori_lab.bench_bulk`."""
    began = time.monotonic()
    result = measure(note=lambda text: print(text, flush=True))  # noqa: T201 - a command line prints
    print(json.dumps(result["figures"], indent=1), f"{time.monotonic() - began:.0f} s")  # noqa: T201 - likewise


if __name__ == "__main__":
    main()
