"""Looks every few seconds at what is wrong, and says it where somebody may see it: console, lamp, state.

It repairs nothing, and nobody waits for it. The servers of the service are tried only while there is no connection to
the broker, in a thread of its own that may hang on a dead line without anybody noticing.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from omamori_agent.config import AgentConfig
from omamori_agent.files import write_atomic
from omamori_agent.lamp import call_for_lamp
from omamori_agent.ports import Clock
from omamori_agent.status import StatusBoard
from omamori_protocol.trouble import Trouble, trouble_of
from omamori_protocol.vocabulary import EngineState

from .facts import Contact, Facts, Port
from .rules import diagnose, is_hot

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class DiagnosisLimits:
    """Intervals; seconds."""

    every_s: float = 5.0
    settle_s: float = 15.0  # what is shorter than this is told to nobody
    begin_s: float = 45.0  # after the start: an address takes its time
    cut_off_s: float = 20.0  # without a connection before the servers are tried
    try_again_s: float = 60.0
    hop_again_s: float = 6 * 3600.0
    forget_after_s: float = 30.0  # of connection: what was wrong before has been told


class KernelPort(Protocol):
    """What the kernel knows; see `kernel.Kernel`."""

    def ports(self) -> tuple[Port, ...]:
        """Return the bridge's ports."""

    def address(self) -> str:
        """Return our IPv4 address, or nothing."""

    def has_ipv6(self) -> bool:
        """Tell whether there is a routable IPv6 address."""

    def gateway(self) -> str:
        """Return the router's address, or nothing."""

    def gateway_mac(self, gateway: str) -> str | None:
        """Return the router's MAC, nothing if it is silent, None if that is not known."""

    def port_of(self, mac: str) -> str:
        """Return behind which port a station is, or nothing."""

    def is_looping(self) -> bool:
        """Tell whether stations move to and fro."""


class DiagnosisWorker:
    """`ports.Worker` of the diagnosis.

    Args:
        config: Paths.
        status: What the others know; this worker writes the troubles.
        kernel: What the kernel knows.
        try_servers: Tries to reach the servers, given whether there is a certificate; may take its time.
        find_second_hop: Returns the router behind the router; may take its time.
        is_enrolled: Whether there is a certificate.
        is_wire_whole: Whether bridge and gate are there.
        note: Remembers a code over a power cut, 0 when it is over.
        trouble_before: Code of what was wrong when the run before ended.
        clock: Time.
        report: Writes one line on the console.
        limits: Intervals.
    """

    name = "diagnosis"

    def __init__(
        self,
        *,
        config: AgentConfig,
        status: StatusBoard,
        kernel: KernelPort,
        try_servers: Callable[[bool], Mapping[str, Contact]],
        find_second_hop: Callable[[], str],
        is_enrolled: Callable[[], bool],
        is_wire_whole: Callable[[], bool],
        note: Callable[[int], None],
        trouble_before: int,
        clock: Clock,
        report: Callable[[str], None],
        limits: DiagnosisLimits | None = None,
    ) -> None:
        self._paths = config.paths
        self._status = status
        self._kernel = kernel
        self._try_servers = try_servers
        self._find_second_hop = find_second_hop
        self._is_enrolled = is_enrolled
        self._is_wire_whole = is_wire_whole
        self._note = note
        self._clock = clock
        self._report = report
        self._limits = limits or DiagnosisLimits()
        now_s = clock.monotonic()
        self._began_s = now_s
        self._connected_s: float | None = None
        self._cut_off_s = now_s
        self._engine_s = now_s  # when an engine last inspected
        self._is_hot = False
        self._candidate: tuple[Trouble, ...] = ()
        self._candidate_s = now_s
        self._told: tuple[Trouble, ...] | None = None
        self._lock = threading.Lock()
        self._contacts: dict[str, Contact] = {}
        self._second_hop = ""
        self._busy: threading.Thread | None = None
        self._try_at_s = now_s
        self._hop_at_s = now_s
        status.update(trouble_before=trouble_before)

    def run(self, stop: threading.Event) -> None:
        """Look until `stop`."""
        while not stop.is_set():
            self.step()
            stop.wait(self._limits.every_s)

    def step(self) -> None:
        """Look once, and tell what has changed and lasts."""
        now_s = self._clock.monotonic()
        facts = self.gather(now_s)
        self._ask(facts, now_s)
        found = diagnose(facts)
        if found != self._candidate:
            self._candidate, self._candidate_s = found, now_s
        lasts = now_s - self._candidate_s >= self._limits.settle_s
        # All is well is worth telling at once.
        if (lasts or not found) and now_s - self._began_s >= self._limits.begin_s and found != self._told:
            self._tell(found)
        self._call_for_lamp()
        self._remember(facts, now_s)

    def gather(self, now_s: float) -> Facts:
        """Return the facts of this moment."""
        status = self._status.get()
        if status.connected:
            self._connected_s = self._connected_s or now_s
            self._cut_off_s = now_s
        else:
            self._connected_s = None
        if status.engine is EngineState.INSPECTING:
            self._engine_s = now_s
        self._is_hot = is_hot(status.celsius, was_hot=self._is_hot)
        gateway = self._kernel.gateway()
        mac = self._kernel.gateway_mac(gateway) if gateway else None
        with self._lock:
            if status.connected:
                self._contacts = {}
            contacts, second_hop = dict(self._contacts), self._second_hop
        return Facts(
            ports=self._kernel.ports(),
            address=self._kernel.address(),
            has_ipv6=self._kernel.has_ipv6(),
            gateway=gateway,
            gateway_answers=None if mac is None else bool(mac),
            gateway_port=self._kernel.port_of(mac) if mac else "",
            is_looping=self._kernel.is_looping(),
            is_wire_whole=self._is_wire_whole(),
            engine_down_s=now_s - self._engine_s,
            is_hot=self._is_hot,
            is_connected=status.connected,
            is_enrolled=self._is_enrolled(),
            contacts=contacts,
            second_hop=second_hop,
        )

    def _ask(self, facts: Facts, now_s: float) -> None:
        """Have somebody else ask what takes time, if it is due."""
        if self._busy is not None and self._busy.is_alive():
            return
        if not facts.is_connected and now_s - self._cut_off_s >= self._limits.cut_off_s and now_s >= self._try_at_s:
            self._try_at_s = now_s + self._limits.try_again_s
            self._start(lambda: self._try(is_enrolled=facts.is_enrolled))
        elif facts.is_connected and facts.gateway and now_s >= self._hop_at_s:
            self._hop_at_s = now_s + self._limits.hop_again_s
            self._start(self._look_behind_router)

    def _start(self, work: Callable[[], None]) -> None:
        # A name that nobody answers about holds it for longer than a stop may take.
        self._busy = threading.Thread(target=work, name="reach", daemon=True)
        self._busy.start()

    def _try(self, *, is_enrolled: bool) -> None:
        contacts = dict(self._try_servers(is_enrolled))
        logger.info("not connected; tried: %s", ", ".join(f"{role} {word}" for role, word in contacts.items()))
        with self._lock:
            self._contacts = contacts

    def _look_behind_router(self) -> None:
        hop = self._find_second_hop()
        with self._lock:
            self._second_hop = hop

    def _tell(self, found: tuple[Trouble, ...]) -> None:
        before, self._told = self._told, found
        code = found[0] if found else 0
        if found:
            self._report("trouble " + ", ".join(f"{trouble:d} {trouble.word}" for trouble in found))
        elif before:
            self._report("trouble over")
        self._status.update(trouble=int(code))
        # A lamp blinks only for what somebody should do something about.
        blinks = 0 if not found or found[0].is_remark else int(code)
        body = {"format": FORMAT, "troubles": [{"code": int(item), "word": item.word} for item in found]}
        try:
            write_atomic(self._paths.trouble, (json.dumps(body) + "\n").encode(), mode=0o644)
            write_atomic(self._paths.trouble_code, f"{blinks}\n".encode(), mode=0o644)
        except OSError as err:
            logger.warning("the diagnosis is not written: %s", err)

    def _call_for_lamp(self) -> None:
        """See to it that the lamp is lit, and not for longer than somebody wants it, whoever that is."""
        try:
            call_for_lamp(self._paths)
        except OSError as err:
            logger.warning("the lamp is not called: %s", err)

    def _remember(self, facts: Facts, now_s: float) -> None:
        status = self._status.get()
        if not facts.is_connected:
            trouble = trouble_of(status.trouble)
            if trouble is not None and not trouble.is_remark:
                self._status.update(trouble_before=int(trouble))
                self._note(int(trouble))
        elif self._connected_s is not None and now_s - self._connected_s >= self._limits.forget_after_s:
            self._status.update(trouble_before=0)
            self._note(0)
