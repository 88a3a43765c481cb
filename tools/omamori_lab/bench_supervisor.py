"""How long each failure of the whole box interrupts the office when a supervisor holds the wire.

A thousand packets a second and a paced TCP connection cross from the office to the internet while something happens to
the box or to its supervisor, both in virtual machines, and until the wire leads through the box again. The relay's
moves are the supervisor's; nothing here moves a cable.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from omamori_firmware.cache import Cache, default_directory

from . import machine
from .addresses import PC1, WEB
from .bench_ota_update import update
from .benchmark import MEASURED, Benchmark, Figure
from .box import PROTECTING
from .errors import LabError, NotReadyError
from .lab import Lab
from .load.generators import Ends
from .load.probe import Probe, Report
from .load.programs import obtain_load_programs
from .progress import Progress, Silence
from .settings import LabSettings
from .supervised import Supervisor
from .waiting import wait_for

PACKETS, STREAM = "packets", "stream"
_PORTS = {PACKETS: 7301, STREAM: 7302}
_BEFORE_S, _AFTER_S = 2.0, 2.0
_BOOT_S, _RELAY_S = 420.0, 60.0
_PULL_S = 5.0
_STATE = "cat /run/omamori/supervisor/state.json"
_HERALD = "omamori-herald.service"
_SETTLE_S = 3.0
_BUDGET = "≤ 200"
_AT_REST = 0.4
_REST_S = 300.0
# A pause belongs to a move of the relay if it begins or ends so close to it (seconds).
_BEFORE_MOVE_S, _AFTER_MOVE_S = 0.05, 0.3
_IDLE = "awk '/^cpu / {print $5 + $6, $2 + $3 + $4 + $5 + $6 + $7 + $8}' /proc/stat"
_PANIC = r"sysrq: Trigger a crash|Kernel panic"


@dataclasses.dataclass(frozen=True)
class Case:
    """Something that happens.

    Attributes:
        name: Of the figure.
        how: What is done, as a sentence.
        strike: Does it, and waits until the wire leads as it should; returns what was seen.
        is_on: The box is on before.
    """

    name: str
    how: str
    strike: Callable[[Lab, Supervisor], dict[str, Any]]
    is_on: bool = True


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of the probes, when the relay moved (seconds after the begin), and what else was seen.

    Attributes:
        flows: Reports by flow.
        moves: Of the relay: when, and whether the wire leads through the box from then on.
        seconds: How long it lasted.
        past_s: For how many of them the wire led past the box.
        seen: What else.
        at_moves_ms: By flow, the longest pause at a move of the relay.
        other_ms: By flow, the longest pause at any other moment.
    """

    flows: dict[str, Report]
    moves: list[tuple[float, bool]]
    seconds: float
    past_s: float
    seen: dict[str, Any]
    at_moves_ms: dict[str, float] = dataclasses.field(default_factory=dict)
    other_ms: dict[str, float] = dataclasses.field(default_factory=dict)


def _await(supervisor: Supervisor, *, through: bool, timeout_s: float) -> None:
    wait_for(
        lambda: supervisor.is_through == through,
        "the wire through the box" if through else "the wire past the box",
        timeout_s=timeout_s,
        every_s=0.02,
    )


def _past(lab: Lab, supervisor: Supervisor, strike: Callable[[], float | None]) -> dict[str, Any]:
    """Do something that shall lead the wire past the box; return how long it took from there.

    Args:
        lab: The lab.
        supervisor: Its supervisor.
        strike: Does it; returns when it happened (monotonic seconds), or None for when it was called.
    """
    first = len(supervisor.follower.moves)
    began_s = time.monotonic()
    began_s = strike() or began_s
    lab.box.restarts_by_itself()
    move = wait_for(
        lambda: next((move for move in supervisor.follower.moves[first:] if not move.through), None),
        "the wire past the box",
        timeout_s=_RELAY_S,
        every_s=0.02,
    )
    return {"past_after_ms": round((move.at_s - began_s) * 1000)}


def _back(lab: Lab, supervisor: Supervisor) -> None:
    """Wait until the box, which starts, has the wire again and protects."""
    _await(supervisor, through=True, timeout_s=_BOOT_S)
    lab.box.await_line(PROTECTING, timeout_s=_BOOT_S)


def _power_on(lab: Lab, supervisor: Supervisor) -> dict[str, Any]:
    lab.box.power_on()
    _back(lab, supervisor)
    return {}


def _begin_with_own_lease(lab: Lab, supervisor: Supervisor) -> int:
    """Start the box's reports anew, and return the lease in milliseconds that it asks for shortly afterwards.

    What an emulation's start teaches it, by standing still for up to a second, is no property of a board.
    """
    moves = len(supervisor.follower.moves)
    lab.box.shell(f"systemctl restart {_HERALD}")
    wait_for(lambda: _state(lab)["is_up"], "the herald's new start", timeout_s=_RELAY_S)
    with contextlib.suppress(NotReadyError):  # a start anew need not move it
        wait_for(lambda: len(supervisor.follower.moves) > moves, "a move", timeout_s=_SETTLE_S, every_s=0.1)
    _await(supervisor, through=True, timeout_s=_RELAY_S)
    time.sleep(_SETTLE_S)
    return int(_state(lab)["lease_ms"])


def _panic(lab: Lab, supervisor: Supervisor) -> dict[str, Any]:
    lease_ms = _begin_with_own_lease(lab, supervisor)

    def strike() -> float:
        mark = lab.box.console.mark()
        lab.box.shell("(sleep 1; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &")
        return lab.box.console.wait(_PANIC, timeout_s=_RELAY_S, since=mark)[0].at_s

    seen = _past(lab, supervisor, strike)
    _back(lab, supervisor)
    return {**seen, "lease_ms": lease_ms}


def _hang(lab: Lab, supervisor: Supervisor) -> dict[str, Any]:
    lease_ms = _begin_with_own_lease(lab, supervisor)
    resets = len(supervisor.resets)
    began_s = time.monotonic()
    seen = _past(lab, supervisor, lambda: lab.box.freeze(frozen=True))
    wait_for(lambda: len(supervisor.resets) > resets, "a reset by the supervisor", timeout_s=120)
    seen["reset_after_s"] = round(supervisor.resets[-1] - began_s, 1)
    _back(lab, supervisor)
    return {**seen, "lease_ms": lease_ms}


def _ask(lab: Lab, command: str) -> None:
    """Type a command that ends the box."""
    lab.box.shell(command)


def _reboot(lab: Lab, supervisor: Supervisor) -> dict[str, Any]:
    seen = _past(lab, supervisor, lambda: _ask(lab, "systemctl --no-block reboot"))
    _back(lab, supervisor)
    return seen


def _pull(lab: Lab, supervisor: Supervisor) -> dict[str, Any]:
    seen = _past(lab, supervisor, lab.box.cut_power)
    time.sleep(_PULL_S)
    lab.box.power_on()
    _back(lab, supervisor)
    power = _state(lab)["power"]
    if power["kind"] not in {"short-pull", "long-pull"}:
        raise LabError(f"the box took the pull for {power}")
    return {**seen, "power": power}


def _update(lab: Lab, supervisor: Supervisor) -> dict[str, Any]:
    seen = dataclasses.asdict(update(lab, Silence()))
    _await(supervisor, through=True, timeout_s=_RELAY_S)
    return seen


def _restart_chip(lab: Lab, supervisor: Supervisor) -> dict[str, Any]:
    seen = _past(lab, supervisor, supervisor.restart)
    _await(supervisor, through=True, timeout_s=_RELAY_S)
    return seen


def _noise(_lab: Lab, supervisor: Supervisor) -> dict[str, Any]:
    supervisor.cable.noise = 0.01
    try:
        time.sleep(30)
    finally:
        supervisor.cable.noise = 0.0
    _await(supervisor, through=True, timeout_s=120)
    return {}


def _silent_chip(lab: Lab, supervisor: Supervisor) -> dict[str, Any]:
    supervisor.freeze(frozen=True)
    try:
        wait_for(lambda: not _state(lab)["is_up"], "the box to notice", timeout_s=60)
        kept = supervisor.is_through
    finally:
        supervisor.freeze(frozen=False)
    wait_for(lambda: _state(lab)["is_up"], "the supervisor's answer", timeout_s=60)
    _await(supervisor, through=True, timeout_s=120)
    return {"wire_kept": kept}


CASES = (
    Case("power-on", "The box is switched on; from darkness until it protects.", _power_on, is_on=False),
    Case("kernel panic", "The kernel is made to panic; it restarts by itself ten seconds later.", _panic),
    Case("hung kernel", "Every processor stands still until the supervisor resets the box.", _hang),
    Case("reboot", "An orderly restart, which the box announces.", _reboot),
    Case("power pull", "The plug is pulled and put back after five seconds.", _pull),
    Case("line noise", "One bit of a hundred flips on the serial line, both ways, for thirty seconds.", _noise),
    Case(
        "supervisor silent", "The microcontroller stands still until the box has noticed; its pins stay.", _silent_chip
    ),
    Case("firmware update", "A whole update from slot A to B, until the new version is kept.", _update),
    # The last one: the seconds that the supervisor has added up begin anew with it.
    Case("supervisor reset", "The microcontroller is reset and loses its outputs.", _restart_chip),
)


def measure(settings: LabSettings, progress: Progress, *, only: Sequence[str] = ()) -> Benchmark:
    """Play every case once and return the figures.

    Args:
        settings: Of the lab, with a supervisor.
        progress: Told what is going on.
        only: Names of cases; all if empty.

    Raises:
        LabError: The lab did not start, or something did not happen as it should.
    """
    chosen = [case for case in CASES if not only or case.name in only]
    if not chosen:
        raise LabError(f"cases are {', '.join(case.name for case in CASES)}")
    outcomes: dict[str, Outcome] = {}
    sums: dict[str, float] = {}
    lab = Lab(settings, progress)
    with lab.running():
        supervisor = lab.supervisor
        if supervisor is None:
            raise LabError("the lab has no supervisor")
        if chosen[0].is_on:
            lab.boot()
        for case in chosen:
            progress.step(case.name)
            if case.is_on:
                _await(supervisor, through=True, timeout_s=_BOOT_S)
                _rest(lab)
            outcomes[case.name] = play(case, lab, supervisor)
            if case.strike is not _restart_chip:
                sums = _sums(lab, supervisor)
            seen = outcomes[case.name]
            parts = [f"{name} {seen.at_moves_ms[name]:g} ms, else {seen.other_ms[name]:g} ms" for name in seen.flows]
            progress.moment(
                f"{case.name}: {', '.join(parts)}, past {seen.past_s:.1f} of {seen.seconds:.1f} s, {seen.seen}"
            )
        versions = lab.versions()
    return Benchmark(
        name="supervisor",
        title="Failures of the whole box, with a supervisor",
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        machine=machine.describe(),
        versions=versions,
        figures=tuple(_figure(case, outcomes[case.name]) for case in chosen),
        details={
            "seconds past the box": sums,
            **{name: dataclasses.asdict(outcome) for name, outcome in outcomes.items()},
            MEASURED: {name: [name] for name in outcomes},
        },
    )


def play(case: Case, lab: Lab, supervisor: Supervisor) -> Outcome:
    """Play one case under probes."""
    directory = lab.settings.run / "probes"
    directory.mkdir(exist_ok=True)
    ends = Ends(
        office=lab.surroundings.topology.terminals[PC1.name],
        internet=lab.surroundings.internet,
        server=WEB.ipv4,
        first_client=PC1.ipv4,
        clients=1,
        programs=obtain_load_programs(Cache(default_directory())),
        directory=directory,
    )
    probes = {
        PACKETS: Probe(ends, PACKETS, kind="udp", port=_PORTS[PACKETS], rate=1000, size=200),
        STREAM: Probe(ends, STREAM, kind="tcp", port=_PORTS[STREAM], rate=100, size=32),
    }
    with contextlib.ExitStack() as stack:
        for probe in probes.values():
            stack.callback(probe.abandon)
            probe.start()
        # Time without a failure on both sides, so that an end of the probes is not taken for an interruption.
        time.sleep(_BEFORE_S)
        first = len(supervisor.follower.moves)
        was_through = supervisor.is_through
        began_s = time.monotonic()
        seen = case.strike(lab, supervisor)
        ended_s = time.monotonic()
        time.sleep(_AFTER_S)
        flows = {name: probe.stop() for name, probe in probes.items()}
    moves = [(round(move.at_s - began_s, 3), move.through) for move in supervisor.follower.moves[first:]]
    seconds = ended_s - began_s
    past_s = round(_time_past(moves, seconds, was_through=was_through), 1)
    began_at_s = time.time() - (time.monotonic() - began_s)
    split = {
        name: _split(report.pauses, [began_at_s - report.first_s + at_s for at_s, _ in moves])
        for name, report in flows.items()
    }
    at_moves, other = ({name: parts[index] for name, parts in split.items()} for index in (0, 1))
    return Outcome(flows, moves, round(seconds, 1), past_s, seen, at_moves, other)


def _split(pauses: Sequence[tuple[float, float]], moves: Sequence[float]) -> tuple[float, float]:
    """Return the longest pause (ms) at one of these moments (s) and the longest of the others."""
    at_moves = other = 0.0
    for begin_s, length_ms in pauses:
        end_s = begin_s + length_ms / 1000
        if any(begin_s <= move_s + _AFTER_MOVE_S and end_s >= move_s - _BEFORE_MOVE_S for move_s in moves):
            at_moves = max(at_moves, length_ms)
        else:
            other = max(other, length_ms)
    return at_moves, other


def _rest(lab: Lab) -> None:
    """Wait until the box has done what comes after its start, or no longer."""

    def is_at_rest() -> bool:
        idle, total = (float(word) for word in lab.box.shell(_IDLE).output.split())
        time.sleep(2)
        idle_later, total_later = (float(word) for word in lab.box.shell(_IDLE).output.split())
        return idle_later - idle > _AT_REST * (total_later - total)

    with contextlib.suppress(NotReadyError):
        wait_for(is_at_rest, "the box to be at rest", timeout_s=_REST_S, every_s=1)


def _sums(lab: Lab, supervisor: Supervisor) -> dict[str, float]:
    """Return for how many seconds the wire led past the box so far: by the relay's moves, and as the box was told."""

    def told() -> dict[str, Any] | None:
        state = _state(lab)
        return state if state["is_up"] and state["through"] and state["past_s"] is not None else None

    past_s = float(wait_for(told, "what the box was told", timeout_s=60)["past_s"])
    now_s = time.monotonic() - supervisor.began_s
    moves = [(move.at_s - supervisor.began_s, move.through) for move in supervisor.follower.moves]
    return {"by the relay": round(_time_past(moves, now_s, was_through=False), 1), "told": past_s}


def _time_past(moves: Sequence[tuple[float, bool]], seconds: float, *, was_through: bool) -> float:
    """Return for how many seconds the wire led past the box."""
    past, at, through = 0.0, 0.0, was_through
    for moved_s, is_through in [*moves, (seconds, True)]:
        if not through:
            past += moved_s - at
        at, through = moved_s, is_through
    return past


def _figure(case: Case, outcome: Outcome) -> Figure:
    packets, stream = outcome.flows[PACKETS], outcome.flows[STREAM]
    text = (
        f"{case.how} {packets.lost} of {packets.sent} packets lost; TCP waited {outcome.at_moves_ms[STREAM]:g} ms and"
        f" lost {'nothing' if not stream.lost else stream.lost}. The wire led past the box for {outcome.past_s:g} of"
        f" {outcome.seconds:g} s. Without a move of the relay the emulated box kept packets waiting for up to"
        f" {outcome.other_ms[PACKETS]:g} ms."
    )
    if "past_after_ms" in outcome.seen:
        text += f" The relay moved {outcome.seen['past_after_ms']} ms after it was done."
    if "lease_ms" in outcome.seen:
        text += f" The box had asked for a lease of {outcome.seen['lease_ms']} ms."
    return Figure(name=case.name, value=outcome.at_moves_ms[PACKETS], unit="ms", explanation=text, budget=_BUDGET)


def _state(lab: Lab) -> dict[str, Any]:
    return dict(json.loads(lab.box.shell(_STATE).output))
