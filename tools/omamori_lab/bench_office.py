"""A hundred office PCs behind Omamori, and the same hundred behind a bare bridge at the same time.

Both offices do the same things at the same moments (see `load.office`), so that what this machine does meets both. A
drop counts when the bare bridge does not have it: failed work, lost probes, segments sent again. The engine's memory is
noted all the time: it has to stay where it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omamori_agent.gate import Gate
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.dataplane import PLAN
from omamori_firmware.dataplane.watch import NativeWatch

from .benchmark import Figure
from .errors import LabError
from .load.generators import Ends, is_open
from .load.office import SMTP_PORT
from .load.probe import Probe, Report
from .load.programs import obtain_load_programs
from .measured_lanes import SERVER_IPV4, cpu_s, ends, memory_mib, prepare, serving
from .native_wire import NativeLane, obtain_programs
from .rule_set import RuleSet, write_feed
from .run import Process, end, spawn
from .waiting import wait_for

PCS = 100
OMAMORI, BRIDGE = "omamori", "bridge"
_NETWORK = "10.20.0"
_PROBE_PORT, _PROBE_RATE = 7301, 200
_WARM_UP = 0.25  # of the time, before memory has to be flat
_GRACE_S = 40.0
_SEED = 1
_EVERY_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """What became of one office.

    Attributes:
        work: By kind: done, failures, p50_ms, p99_ms, longest_ms, reasons.
        probe: A steady flow beside it.
        retransmitted: TCP segments that either side sent again.
    """

    work: Mapping[str, Mapping[str, Any]]
    probe: Report
    retransmitted: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficeResult:
    """What a run gave.

    Attributes:
        sides: By lane.
        memory_mib: Resident memory of the engine: seconds since the beginning, MiB.
        engine_s: Its processor time.
        uninspected: Packets that passed Omamori without inspection.
        terminals: How many terminals the gate knows.
        seconds: How long the offices worked.
        rules: What the engine inspected with, in words.
    """

    sides: Mapping[str, Side]
    memory_mib: tuple[tuple[float, float], ...]
    engine_s: float
    uninspected: int
    terminals: int
    seconds: int
    rules: str


def measure(
    rules: RuleSet, *, seconds: int = 600, pcs: int = PCS, note: Callable[[str], None] = lambda _: None
) -> OfficeResult:
    """Let both offices work and return what became of them.

    Args:
        rules: What the engine inspects with.
        seconds: How long they work.
        pcs: How many PCs each has.
        note: Told what is going on.

    Raises:
        LabError: A lane cannot be made, or an office did not work.
    """
    if seconds < 1 or not 1 <= pcs <= 250:
        raise LabError("seconds must be positive, PCs from 1 to 250")
    programs, tree = obtain_programs()
    load = obtain_load_programs(Cache(default_directory()))
    with contextlib.ExitStack() as stack:
        lanes = {BRIDGE: NativeLane(), OMAMORI: NativeLane()}
        for lane in lanes.values():
            stack.callback(lane.stop)
            lane.start()
            prepare(lane)
            furnish(lane, pcs)
            stack.enter_context(serving(lane))
            stack.enter_context(_names_and_mail(lane))
        boxed = lanes[OMAMORI]
        wire = boxed.install_wire(programs)
        engine = boxed.prepare_engine(tree, write_feed(rules, boxed.directory / "feed"))
        watch = NativeWatch(PLAN, boxed.box.path, programs, wire.pins, boxed.directory)
        stack.callback(watch.stop)
        watch.start()
        engine.start(timeout_s=300)
        watch.look_after(engine.pid)
        gate = stack.enter_context(contextlib.closing(Gate(wire.pins)))
        note(f"{pcs} PCs work for {seconds} s behind each lane")
        began_s, before = cpu_s(engine.pid), sum(count.packets for count in gate.uninspected().values())
        memory: list[tuple[float, float]] = []

        def look(elapsed_s: float) -> None:
            memory.append((round(elapsed_s, 1), round(memory_mib(engine.pid), 1)))
            note(f"{elapsed_s:.0f} s, engine {memory[-1][1]:.0f} MiB")

        sides = _work({name: ends(lane, load) for name, lane in lanes.items()}, seconds, pcs, look)
        return OfficeResult(
            sides=sides,
            memory_mib=tuple(memory),
            engine_s=round(cpu_s(engine.pid) - began_s, 2),
            uninspected=sum(count.packets for count in gate.uninspected().values()) - before,
            terminals=len(gate.terminals()),
            seconds=seconds,
            rules=rules.origin,
        )


def furnish(lane: NativeLane, pcs: int) -> None:
    """Give a lane's office its PCs: interfaces with own MACs and addresses on the one cable."""

    def choose() -> None:
        # Each interface answers for its own address only, and takes what is sent to it.
        for name, value in (("arp_ignore", 1), ("arp_announce", 2), ("rp_filter", 0)):
            for place in ("all", "default"):
                Path(f"/proc/sys/net/ipv4/conf/{place}/{name}").write_text(f"{value}\n")

    lane.office.call(choose)
    lane.office.sysctl(ipv6__conf__default__disable_ipv6=1)
    commands = []
    for number in range(pcs):
        name = f"pc{number}"
        commands += [
            f"link add {name} link eth0 address 02:00:5e:10:00:{number:02x} type macvlan mode bridge",
            f"addr add {_NETWORK}.{number + 1}/32 dev {name}",
            f"link set {name} up",
            # The same way for every PC; the metric only makes them different routes.
            f"route add {SERVER_IPV4}/32 dev {name} src {_NETWORK}.{number + 1} metric {1000 + number}",
        ]
    lane.office.configure(commands)
    lane.internet.configure([f"route add {_NETWORK}.0/24 dev eth0 src {SERVER_IPV4}"])


@contextlib.contextmanager
def _names_and_mail(lane: NativeLane) -> Iterator[None]:
    process = _spawn(lane.internet.command([*_program(), "serve", SERVER_IPV4]), lane.directory / "servers.log")
    try:
        wait_for(
            lambda: lane.internet.call(lambda: is_open("tcp", SMTP_PORT)), "names and mail", timeout_s=20, every_s=0.05
        )
        yield
    finally:
        end(process)


def _work(offices: Mapping[str, Ends], seconds: int, pcs: int, look: Callable[[float], None]) -> dict[str, Side]:
    outputs = {name: where.directory / "office.json" for name, where in offices.items()}
    before = {name: _retransmitted(where) for name, where in offices.items()}
    probes = {
        name: Probe(where, "steady", kind="udp", port=_PROBE_PORT, rate=_PROBE_RATE, size=172)
        for name, where in offices.items()
    }
    with contextlib.ExitStack() as stack:
        for probe in probes.values():
            stack.callback(probe.abandon)
            probe.start()
        words = [*_program(), "work", SERVER_IPV4, str(pcs), str(seconds), str(_SEED)]
        workers = {name: _spawn(where.office.command(words), outputs[name]) for name, where in offices.items()}
        for worker in workers.values():
            stack.callback(end, worker)
        _wait(workers, seconds, look)
        return {
            name: Side(
                work=parse_work(outputs[name].read_text(errors="replace")),
                probe=probes[name].stop(),
                retransmitted=_retransmitted(where) - before[name],
            )
            for name, where in offices.items()
        }


def _wait(workers: Mapping[str, Process], seconds: int, look: Callable[[float], None]) -> None:
    began = time.monotonic()
    while any(worker.poll() is None for worker in workers.values()):
        elapsed = time.monotonic() - began
        if elapsed > seconds + _GRACE_S:
            raise LabError("an office does not come to its end")
        look(elapsed)
        time.sleep(min(_EVERY_S, max(0.2, seconds / 20)))  # between two looks at the memory
    look(time.monotonic() - began)


def parse_work(output: str) -> dict[str, dict[str, Any]]:
    """Read what an office printed.

    Raises:
        LabError: It did not work.
    """
    try:
        body = json.loads(output)
        if not all(kind["done"] > 0 for kind in body.values()):
            raise LabError(f"some kind of work was never done: {output.strip()[-300:]}")
        return dict(body)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise LabError(f"an office did not work: {output.strip()[-300:]}") from err


def _retransmitted(where: Ends) -> int:
    def read() -> int:
        names, values = (
            line.split()
            for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
            if line.startswith("Tcp:")
        )
        return int(values[names.index("RetransSegs")])

    return where.office.call(read) + where.internet.call(read)


def _program() -> list[str]:
    return [sys.executable, "-m", "omamori_lab.load.office"]


def _spawn(argv: list[str], output: Path) -> Process:
    with output.open("wb") as log:
        return spawn(argv, log=log)


def figures(result: OfficeResult) -> tuple[Figure, ...]:
    """Return the figures of a run."""
    made: list[Figure] = []
    own, bare = result.sides[OMAMORI], result.sides[BRIDGE]
    failed = {name: sum(kind["failures"] for kind in side.work.values()) for name, side in result.sides.items()}
    done = sum(kind["done"] for kind in own.work.values())
    made.append(
        Figure(
            name="failed work",
            value=failed[OMAMORI],
            unit=f"of {done + failed[OMAMORI]}",
            explanation=f"What a user would have noticed in {result.seconds} s: names not answered, connections that"
            f" broke or took more than 20 s. Behind the bare bridge at the same time: {failed[BRIDGE]}.",
            budget="none that the bare bridge has not",
        )
    )
    made.append(
        Figure(
            name="lost probes",
            value=own.probe.lost,
            unit=f"of {own.probe.sent}",
            explanation=f"A steady flow of {_PROBE_RATE} packets a second beside the office, always inspected, never"
            f" bypassed; delay p50 {own.probe.p50_ms:g} ms, p99 {own.probe.p99_ms:g} ms. Behind the bare bridge:"
            f" {bare.probe.lost} lost, p50 {bare.probe.p50_ms:g} ms, p99 {bare.probe.p99_ms:g} ms.",
            budget="none that the bare bridge has not",
        )
    )
    made.append(
        Figure(
            name="segments sent again",
            value=own.retransmitted,
            unit="",
            explanation="TCP segments that PCs or servers sent again, by the kernel's own count. Behind the bare"
            f" bridge: {bare.retransmitted}.",
        )
    )
    for kind, title in (
        ("dns", "a name"),
        ("http", "an HTTP object"),
        ("https", "an HTTPS object"),
        ("smtp", "a mail"),
    ):
        mine, theirs = own.work[kind], bare.work[kind]
        made.append(
            Figure(
                name=f"{title}, p99",
                value=mine["p99_ms"],
                unit="ms",
                explanation=f"From asking to the last byte, {mine['done']} times; p50 {mine['p50_ms']:g} ms. Behind"
                f" the bare bridge p99 {theirs['p99_ms']:g} ms, p50 {theirs['p50_ms']:g} ms.",
            )
        )
    made += _memory(result)
    return tuple(made)


def _memory(result: OfficeResult) -> Iterator[Figure]:
    settled = [size for at, size in result.memory_mib if at >= _WARM_UP * result.seconds] or [0.0]
    yield Figure(
        name="engine, growth of its memory",
        value=round(settled[-1] - settled[0], 1),
        unit="MiB",
        explanation=f"Resident memory after {_WARM_UP * result.seconds:.0f} s {settled[0]:g} MiB, at most"
        f" {max(settled):g}, at the end {settled[-1]:g} MiB, with {result.rules}.",
        budget="flat",
    )
    yield Figure(
        name="engine, processor time",
        value=round(100 * result.engine_s / result.seconds, 1),
        unit="% of one core",
        explanation=f"For {result.terminals} terminals with their own MACs; {result.uninspected} packets passed"
        " without inspection, and were counted.",
    )


def details(result: OfficeResult) -> dict[str, Any]:
    """Return everything that was measured, for the file."""
    return dataclasses.asdict(result)
