"""How long each failure interrupts traffic: probes run while something is broken on purpose.

Three flows of probes cross the box: one that is inspected (1000 UDP packets a second), one that the engine has
finished with (likewise), and a paced TCP connection. A failure is one function of a `Stage`; what was broken is mended
before the next. Some failures are none natively and are named in the result with where they are tested.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omamori_agent.gate import Gate
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.dataplane import PLAN
from omamori_firmware.dataplane.engine import NativeEngine
from omamori_firmware.dataplane.watch import NativeWatch

from .errors import LabError, SetupError
from .load import generators
from .load.probe import Probe, Report
from .load.programs import obtain_load_programs
from .measured_lanes import ends, prepare
from .memory_group import MemoryGroup
from .native_wire import NativeLane, obtain_programs
from .rule_set import RuleSet, write_feed
from .run import run
from .waiting import wait_for

INSPECTED, BYPASSED, STREAM, BARE = "inspected", "bypassed", "stream", "bare"
_PORTS = {INSPECTED: 7001, BYPASSED: 7002, STREAM: 7003}
_BEFORE_S, _AFTER_S = 1.5, 1.5
_RELOAD_TIMEOUT_S = 300.0
_START_TIMEOUT_S = 300.0
_MAX_ANSWER = 1 << 20
_ROOM_BYTES = 1 << 20
_FILLER = "filler"
_EVENTS_SIZE = "size=4m"
_EVENT_RULE = b'alert icmp any any -> any any (msg:"bench: an event for each ping"; itype:8; sid:1; rev:1;)\n'


class Stage:
    """Omamori's lane with its engine and watch, and a bare bridge beside it.

    Attributes:
        lane: Omamori's.
        ends: Of that lane.
        bare_ends: Of the bare bridge.
        engine: The engine.
        watch: The watch.
        rules: What the engine inspects with at first.
        more_rules: What one failure replaces them with.
        group: The control group that the engine runs in, in the failure that needs one.
        mended: Ends with the failure.
    """

    def __init__(self, rules: RuleSet, more_rules: RuleSet) -> None:
        self.lane, self._bare = NativeLane(), NativeLane()
        self.rules, self.more_rules = rules, more_rules
        self.group: MemoryGroup | None = None
        self.mended = contextlib.ExitStack()
        self._stack = contextlib.ExitStack()

    @contextlib.contextmanager
    def running(self) -> Iterator[Stage]:
        """Make everything, with an engine that inspects."""
        programs, tree = obtain_programs()
        load = obtain_load_programs(Cache(default_directory()))
        with self._stack as stack:
            for lane in (self._bare, self.lane):
                stack.callback(lane.stop)
                lane.start()
                prepare(lane)
            wire = self.lane.install_wire(programs)
            self.feed = self.lane.directory / "feed"
            self.write_rules(self.rules)
            self.engine: NativeEngine = self.lane.prepare_engine(tree, self.feed)
            self._mount_events(stack)
            self.watch = NativeWatch(PLAN, self.lane.box.path, programs, wire.pins, self.lane.directory)
            stack.callback(self.watch.stop)
            self.watch.start()
            self.ends, self.bare_ends = ends(self.lane, load), ends(self._bare, load)
            self.gate = Gate(wire.pins)
            stack.callback(self.gate.close)
            self.start_engine()
            yield self

    def write_rules(self, rules: RuleSet) -> None:
        """Put rules into the engine's feed; it reads them when it starts or reloads."""
        write_feed(dataclasses.replace(rules, text=rules.text + _EVENT_RULE, count=rules.count + 1), self.feed)

    def start_engine(self) -> None:
        """Start the engine and wait until it inspects."""
        self.engine.start(timeout_s=_START_TIMEOUT_S)
        self.watch.look_after(self.engine.pid)

    def stop_engine(self) -> None:
        """End it as the service manager does on purpose: the watch is told first."""
        self.watch.pause()
        wait_for(self.gate.hung_until, "a lease", timeout_s=5, every_s=0.005)
        self.engine.stop()

    def reload(self) -> None:
        """Let the engine read its rules again, while it inspects.

        Raises:
            LabError: It refused.
        """
        answer = command(self.engine.control_socket, "reload-rules")
        if answer.get("return") != "OK":
            raise LabError(f"the engine did not reload: {answer}")

    def _mount_events(self, stack: contextlib.ExitStack) -> None:
        """Give the engine's events a file system of their own, as on the box."""
        directory = self.engine.events.parent
        directory.mkdir(parents=True)
        run(["mount", "-t", "tmpfs", "-o", _EVENTS_SIZE, "omamori-bench", directory], timeout_s=10)
        stack.callback(run, ["umount", "--lazy", directory], timeout_s=10)

    def in_box(self, argv: Sequence[str | Path]) -> None:
        """Run a program in the box."""
        run(self.lane.box.command(argv), timeout_s=30)


def command(path: Path, name: str) -> dict[str, Any]:
    """Send a command to the engine's control socket and return the answer.

    Raises:
        LabError: It gave none.
    """
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(_RELOAD_TIMEOUT_S)
        try:
            control.connect(str(path))
            _exchange(control, {"version": "0.2"})
            return _exchange(control, {"command": name})
        except OSError as err:
            raise LabError(f"the engine did not answer to {name}: {err}") from err


def _exchange(control: socket.socket, message: dict[str, str]) -> dict[str, Any]:
    control.sendall(json.dumps(message).encode() + b"\n")
    answer = b""
    while len(answer) <= _MAX_ANSWER:
        block = control.recv(1 << 16)
        if not block:
            break
        answer += block
        with contextlib.suppress(ValueError):
            return dict(json.loads(answer))
    raise LabError("the engine gave no answer")


@dataclasses.dataclass(frozen=True)
class Fault:
    """One failure.

    Attributes:
        name: In the result's file.
        title: For people.
        how: What is done, a sentence.
        strike: Breaks something; returns when the failure and what follows by itself are over.
        mend: Puts everything in order, after the probes.
        prepare: Before the probes.
        budget: For the inspected flow.
        is_inspecting: Whether an engine inspects when the probes begin; otherwise no flow can be a bypassed one.
        on_bare: The same done to the bare bridge, for comparison.
    """

    name: str
    title: str
    how: str
    strike: Callable[[Stage], None]
    mend: Callable[[Stage], None] = lambda _: None
    prepare: Callable[[Stage], None] = lambda _: None
    budget: str = ""
    is_inspecting: bool = True
    on_bare: Callable[[Stage], None] | None = None


def _nothing(_stage: Stage) -> None:
    time.sleep(1.0)  # the time that is measured


def _kill(stage: Stage) -> None:
    stage.engine.kill()
    stage.start_engine()


def _hang(stage: Stage) -> None:
    kills = int(stage.watch.state().get("kills", 0))
    os.kill(stage.engine.pid, signal.SIGSTOP)
    wait_for(
        lambda: int(stage.watch.state().get("kills", 0)) > kills,
        "the watch to kill the engine",
        timeout_s=20,
        every_s=0.01,
        detail=stage.watch.log,
    )
    stage.engine.stop()
    stage.start_engine()


def _pause_once(stage: Stage) -> None:
    hangs = int(stage.watch.state().get("recoveries", 0))
    os.kill(stage.engine.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: stage.watch.state().get("is_hung"), "the watch to see it", timeout_s=5, every_s=0.005)
    finally:
        os.kill(stage.engine.pid, signal.SIGCONT)
    wait_for(
        lambda: int(stage.watch.state().get("recoveries", 0)) > hangs,
        "the engine to answer",
        timeout_s=20,
        every_s=0.01,
    )


def _restart(stage: Stage) -> None:
    stage.stop_engine()
    stage.start_engine()


def _bounded(stage: Stage) -> None:
    stage.engine.stop()
    stage.group = stage.mended.enter_context(_group())
    with stage.group.inside():
        stage.start_engine()


@contextlib.contextmanager
def _group() -> Iterator[MemoryGroup]:
    group = MemoryGroup(f"omamori-bench-{os.getpid()}")
    with group.existing():
        yield group


def _out_of_memory(stage: Stage) -> None:
    """Leave the engine no room, and have it read its rules again, for which it needs much."""
    assert stage.group is not None
    stage.group.limit(stage.group.used_bytes + _ROOM_BYTES)
    with contextlib.suppress(LabError):  # it dies instead of answering
        stage.reload()
    wait_for(lambda: _is_gone(stage.engine.pid), "the kernel to kill the engine", timeout_s=20, every_s=0.005)
    stage.engine.stop()
    stage.start_engine()


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _reload(stage: Stage) -> None:
    stage.reload()


def _more_rules(stage: Stage) -> None:
    stage.write_rules(stage.more_rules)


def _fewer_rules(stage: Stage) -> None:
    stage.write_rules(stage.rules)
    stage.engine.stop()
    stage.start_engine()


def _full_queue(stage: Stage) -> None:
    generators.flood(stage.ends, size=350, seconds=3)


def _flooded_bridge(stage: Stage) -> None:
    generators.flood(stage.bare_ends, size=350, seconds=3)


def _gate_away(stage: Stage) -> None:
    for port in ("lan1", "wan"):
        stage.in_box(["tc", "qdisc", "del", "dev", port, "clsact"])
    time.sleep(1.0)  # the time without a gate that is measured
    assert stage.lane.wire is not None
    stage.lane.wire.refresh()


def _refresh(stage: Stage) -> None:
    assert stage.lane.wire is not None
    stage.lane.wire.refresh()


def _disk_full(stage: Stage) -> None:
    # A file system of its own (see `Stage`): nothing else of this machine is filled.
    with (stage.engine.events.parent / _FILLER).open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(1 << 16)):
            pass
    # The engine has an event to write for each of these.
    generators.ping(stage.ends, seconds=1)


def _disk_free(stage: Stage) -> None:
    (stage.engine.events.parent / _FILLER).unlink(missing_ok=True)


FAULTS = (
    Fault("none", "nothing", "Nothing is broken: what the machine itself does to the probes.", _nothing),
    Fault(
        "started",
        "engine starts",
        "No engine runs when the probes begin; one is started and loads its rules.",
        lambda stage: stage.start_engine(),
        prepare=lambda stage: stage.engine.stop(),
        budget="0 lost",
        is_inspecting=False,
    ),
    Fault("killed", "engine killed", "SIGKILL, as after a crash, and started again at once.", _kill, budget="≤ 100 ms"),
    Fault(
        "hung",
        "engine hangs",
        "SIGSTOP: the watch lets traffic pass, kills it, and it is started again.",
        _hang,
        budget="≤ 250 ms",
    ),
    Fault(
        "stalled",
        "engine stalls and recovers",
        "SIGSTOP until the watch lets traffic pass, then SIGCONT.",
        _pause_once,
        budget="≤ 250 ms",
    ),
    Fault(
        "out_of_memory",
        "engine out of memory",
        "A live reload in a control group without room for it; the kernel kills the engine, and it is started again.",
        _out_of_memory,
        prepare=_bounded,
        budget="≤ 100 ms",
    ),
    Fault("restarted", "engine restarted", "Stopped on purpose, the watch told first, and started.", _restart),
    Fault("reloaded", "rules reloaded", "Live reload of all rules.", _reload, budget="0 lost"),
    Fault(
        "reloaded_more",
        "more rules reloaded",
        "Live reload of twice as many rules as before.",
        _reload,
        prepare=_more_rules,
        mend=_fewer_rules,
        budget="0 lost",
    ),
    Fault(
        "full_queue",
        "queue full",
        "A UDP flood of 350-byte packets for 3 s, more than can be inspected.",
        _full_queue,
        on_bare=_flooded_bridge,
    ),
    Fault(
        "gate_away",
        "gate unloaded and loaded",
        "The BPF programs are taken off all ports and put back a second later, as at power-on; making their hook stops"
        " a port for some milliseconds.",
        _gate_away,
    ),
    Fault(
        "gate_refreshed",
        "gate refreshed",
        "The loader runs again, as when a port comes or goes.",
        _refresh,
        budget="0 lost",
    ),
    Fault(
        "disk_full",
        "no room for the engine's events",
        "The file system of the engine's log is filled.",
        _disk_full,
        mend=_disk_free,
        budget="0 lost",
    ),
)
# What cannot fail here, and where it is tested instead.
NOT_HERE = {
    "agent dead": "the agent has no part in forwarding; natively none runs at all",
    "data partition corrupt": "a matter of the image's boot: tests of the image in QEMU",
    "hardware dead": "needs a wire relay",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One failure in one round: reports by flow, and how many packets passed without inspection."""

    flows: dict[str, Report]
    uninspected: int
    seconds: float


def measure(
    rules: RuleSet,
    more_rules: RuleSet,
    *,
    rounds: int = 3,
    only: Sequence[str] = (),
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Outcome]]:
    """Play every failure and return what it did to the probes, by its name.

    Args:
        rules: What the engine inspects with.
        more_rules: What it is given in the failure `reloaded_more`.
        rounds: How often each is played; the two that load many rules are played once.
        only: Names of the failures; all if empty.
        note: Told what is going on.

    Raises:
        LabError: A lane cannot be made, or something did not fail as it should.
    """
    chosen = [fault for fault in FAULTS if not only or fault.name in only]
    if rounds < 1 or not chosen:
        raise LabError("rounds must be positive, and failures known")
    results: dict[str, list[Outcome]] = {fault.name: [] for fault in chosen}
    with Stage(rules, more_rules).running() as stage:
        for number in range(1, rounds + 1):
            for fault in chosen:
                if fault.name == "reloaded_more" and number > 1:
                    continue
                try:
                    outcome = play(fault, stage)
                except SetupError as err:  # this machine cannot do it; the result says so by its absence
                    note(f"{fault.name} left out: {err}")
                    continue
                results[fault.name].append(outcome)
                seen = ", ".join(f"{name} {report.interruption_ms} ms" for name, report in outcome.flows.items())
                note(f"round {number}/{rounds} {fault.name} ({outcome.seconds:.1f} s): {seen}")
    return results


def play(fault: Fault, stage: Stage) -> Outcome:
    """Play one failure under probes."""
    with stage.mended:
        fault.prepare(stage)
        outcome = _probed(fault, stage)
        fault.mend(stage)
    if fault.on_bare is not None:
        outcome.flows[BARE] = _probed_bridge(fault.on_bare, stage)
    return outcome


def _probed_bridge(strike: Callable[[Stage], None], stage: Stage) -> Report:
    probe = Probe(stage.bare_ends, BARE, kind="udp", port=_PORTS[INSPECTED], rate=1000, size=200)
    try:
        probe.start()
        time.sleep(_BEFORE_S)
        strike(stage)
        time.sleep(_AFTER_S)
        return probe.stop()
    finally:
        probe.abandon()


def _probed(fault: Fault, stage: Stage) -> Outcome:
    probes = {
        INSPECTED: Probe(stage.ends, INSPECTED, kind="udp", port=_PORTS[INSPECTED], rate=1000, size=200),
        # Slow enough to stay below what the engine lets go as bulk while twice the rules are loaded.
        STREAM: Probe(stage.ends, STREAM, kind="tcp", port=_PORTS[STREAM], rate=250, size=32),
    }
    if fault.is_inspecting:
        probes[BYPASSED] = Probe(
            stage.ends, BYPASSED, kind="udp", port=_PORTS[BYPASSED], rate=1000, size=1200, is_answered=True
        )
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        for probe in probes.values():
            stack.callback(probe.abandon)
            probe.start()
        if fault.is_inspecting:
            wait_for(lambda: _is_bypassed(stage, BYPASSED), "a bypassed flow", timeout_s=20)
        # Time without a failure on both sides, so that an end of the probes is not taken for an interruption.
        time.sleep(_BEFORE_S)
        before = sum(count.packets for count in stage.gate.uninspected().values())
        fault.strike(stage)
        time.sleep(_AFTER_S)
        if any(_is_bypassed(stage, name) for name in (INSPECTED, STREAM)):
            raise LabError("a flow that shall be inspected was bypassed")
        passed = sum(count.packets for count in stage.gate.uninspected().values()) - before
        reports = {name: probe.stop() for name, probe in probes.items()}
    return Outcome(flows=reports, uninspected=passed, seconds=time.monotonic() - began)


def _is_bypassed(stage: Stage, name: str) -> bool:
    port = _PORTS[name]
    return any(port in (flow.a_port, flow.b_port) for flow in stage.gate.bypassed_flows())
