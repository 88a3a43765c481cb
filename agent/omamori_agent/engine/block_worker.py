"""Tells what the gate's block list stopped.

The gate counts per pair of addresses, port and direction; each second the counts are taken out and become events,
folded like alerts. What was taken but not yet stored when the agent is killed (under a second) is lost.

What a match means comes from the list that named the address. Going out, something inside tried to reach a bad
address: the list's own function and severity. Coming in, it was stopped at the door: an attempt from outside, ★.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from omamori_agent.errors import TransientError
from omamori_agent.gate import BlockedFlow
from omamori_agent.ports import Clock, Outbox
from omamori_protocol.device import parse_mac
from omamori_protocol.errors import MalformedError
from omamori_protocol.feed_manifest import PackList
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Action, Direction, EventKind, Function, Severity

from .alert_worker import store
from .fold import Folder
from .gate_port import GatePort, mac_of

logger = logging.getLogger(__name__)

_INTERVAL_S = 1.0
_MAX_COUNT = 2**32 - 1
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp"}


class BlockLists:
    """Which list each number in the gate stands for; set by the feed, read by the worker."""

    def __init__(self) -> None:
        self._lists: Mapping[int, PackList] = {}

    def set(self, lists: Mapping[int, PackList]) -> None:
        """Replace the table."""
        self._lists = dict(lists)

    def get(self, list_id: int) -> PackList | None:
        """Return the list, or None if the number is not known (any more)."""
        return self._lists.get(list_id)


def read_block(flow: BlockedFlow, named_by: PackList | None, terminal_mac: bytes | None) -> Event:
    """Turn what the gate blocked into an event.

    Args:
        flow: What was blocked.
        named_by: The list that named the address, if it is known.
        terminal_mac: MAC of the terminal, if the gate knows it.
    """
    is_out = flow.direction is Direction.OUT
    remote, port = (flow.dst, flow.dport) if is_out else (flow.src, flow.sport)
    function, severity = Function.IPS, Severity.ONE
    if is_out:
        function = named_by.function if named_by else Function.DANGEROUS_SITE
        severity = named_by.severity if named_by else Severity.TWO
    return Event(
        boot=0,
        seq=0,
        at_ms=max(int(flow.last_seen * 1000), 0),
        kind=EventKind.ALERT,
        function=function,
        severity=severity,
        direction=flow.direction,
        action=Action.BLOCKED,
        terminal_ip=str(flow.src if is_out else flow.dst),
        terminal_mac=terminal_mac,
        destination=str(remote),
        remote_ip=str(remote),
        remote_port=port or None,
        protocol=_PROTOCOLS.get(flow.proto, f"ip-{flow.proto}"),
        rule=f"address list {named_by.name}" if named_by else "address list",
        category=named_by.category if named_by else None,
        count=min(max(flow.packets, 1), _MAX_COUNT),
    )


class BlockWorker:
    """Worker that empties the gate's record of blocked packets."""

    name = "gate-blocks"

    def __init__(self, gate: GatePort, lists: BlockLists, outbox: Outbox, clock: Clock, *, folder: Folder) -> None:
        self._gate = gate
        self._lists = lists
        self._outbox = outbox
        self._clock = clock
        self._folder = folder

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; then tell the open counts."""
        while not stop.is_set():
            self.step(stop)
            stop.wait(_INTERVAL_S)
        events = self._folder.flush()
        if events:
            store(self._outbox, events, None, stop)

    def step(self, stop: threading.Event) -> None:
        """Take out what is there now."""
        try:
            flows = self._gate.drain_blocked()
        except TransientError as err:
            logger.debug("nothing known about blocked addresses: %s", err)
            flows = []
        now_s = self._clock.monotonic()
        events = self._folder.due(now_s=now_s)
        for flow in flows:
            event = read_block(flow, self._lists.get(flow.list_id), self._mac(flow))
            events += self._folder.add(event, now_s=now_s)
        if events:
            store(self._outbox, events, None, stop)

    def _mac(self, flow: BlockedFlow) -> bytes | None:
        if flow.mac is not None:
            try:
                return parse_mac(flow.mac)
            except MalformedError:
                return None
        return mac_of(self._gate, flow.dst)
