"""A process with some thousand boxes: `python -m omamori_lab.fleet_process PLAN DESCRIPTOR`.

The plan is a JSON file. Over the descriptor, a socket of whoever started it, come orders, one JSON object a line, and
go reports. When that socket ends, so does the process.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
import random
import resource
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omamori_agent.identity import Identity

from .fleet_box import FleetBox
from .fleet_hub import Hub
from .fleet_link import FleetRoad, Tally, Turns

logger = logging.getLogger(__name__)

_MAX_LINE_BYTES = 65536
_REPORT_S = 0.5
_BOXES_AT_ONCE = 50  # opened between two looks at the sockets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a process is made from; times in seconds.

    Attributes:
        devices: Ids of its boxes; ``<id>.key`` and ``<id>.crt`` lie in `identities`.
        identities: See above.
        homes: Where each box makes its directory.
        service_ca: Who signed the broker's certificate.
        host: The name in it.
        address: Of the broker.
        port: Of the broker.
        first: Number of the first box among all, which decides its address.
        expires_s: When the certificates expire, in Unix time.
        heartbeat_s: Between two heartbeats.
    """

    devices: Sequence[str]
    identities: str
    homes: str
    service_ca: str
    host: str
    address: str
    port: int
    first: int
    expires_s: int
    heartbeat_s: float


def source_address(number: int) -> str:
    """Return the address of box `number`: a hundred boxes share one, far from those that others use."""
    office = number // 100
    return f"127.{100 + office // 65_000}.{office // 250 % 256}.{office % 250 + 1}"


class FleetProcess:
    """The boxes of one plan, and the socket to whoever started us."""

    def __init__(self, plan: Plan, control: socket.socket) -> None:
        self._control = control
        control.setblocking(False)  # noqa: FBT003 - a socket's method
        self._received = bytearray()
        self._hub = Hub()
        self._tally = Tally()
        self._handshakes = Turns(self._hub)
        self._ends = False
        homes = Path(plan.homes)
        self._boxes = []
        for number, device in enumerate(plan.devices):
            home = homes / device
            home.mkdir(mode=0o700)
            self._boxes.append(self._box(plan, device, plan.first + number, home))

    def run(self) -> None:
        """Serve until told to end."""
        gc.collect()
        gc.freeze()  # the boxes live as long as we do; looking through them all again and again costs seconds
        gc.set_threshold(50_000, 20, 100)
        self._hub.on_readable(self._control.fileno(), self._listen)
        self._report()
        self._hub.run(lambda: self._ends)

    def _box(self, plan: Plan, device: str, number: int, home: Path) -> FleetBox:
        identities = Path(plan.identities)
        identity = Identity(
            device=device,
            key_path=identities / f"{device}.key",
            certificate_path=identities / f"{device}.crt",
            begins_s=0,
            expires_s=plan.expires_s,
        )
        road = FleetRoad(plan.host, plan.port, hub=self._hub, address=plan.address, source=source_address(number))
        return FleetBox(
            device,
            home,
            identity,
            service_ca=Path(plan.service_ca),
            road=road,
            heartbeat_s=plan.heartbeat_s,
            tally=self._tally,
            handshakes=self._handshakes,
        )

    def _listen(self) -> None:
        data = self._control.recv(_MAX_LINE_BYTES)
        self._received += data
        if not data or len(self._received) > _MAX_LINE_BYTES:
            self._ends = True
            return
        *lines, rest = bytes(self._received).split(b"\n")
        self._received = bytearray(rest)
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, order: Mapping[str, Any]) -> None:
        match order["do"]:
            case "connect":
                self._connect(float(order["per_s"]), time.monotonic(), 0)
            case "alerts":
                self._alerts(int(order["count"]), float(order["seconds"]), float(order["spread_s"]))
            case "end":
                self._ends = True

    def _connect(self, per_s: float, began_s: float, started: int) -> None:
        """Switch boxes on, so many a second, a few at a time."""
        due = min(len(self._boxes), started + _BOXES_AT_ONCE, 1 + int((time.monotonic() - began_s) * per_s))
        for box in self._boxes[started:due]:
            box.start()
        if due < len(self._boxes):
            self._hub.call_later(0.02, lambda: self._connect(per_s, began_s, due))

    def _alerts(self, count: int, seconds: float, spread_s: float) -> None:
        """Let one box of each hundred meet `count` threats within `seconds`, the hundreds somewhere in `spread_s`."""
        for start in range(0, len(self._boxes), 100):
            box = random.choice(self._boxes[start : start + 100])  # noqa: S311 - no secret
            delay_s = random.uniform(0, spread_s)  # noqa: S311 - no secret
            self._hub.call_later(delay_s, lambda box=box: box.raise_alerts(count, seconds))  # type: ignore[misc]

    def _report(self) -> None:
        tally = self._tally
        spent = resource.getrusage(resource.RUSAGE_SELF)
        handshakes, tally.handshake_s = tally.handshake_s, []
        body = {
            "boxes": len(self._boxes),
            "connected": tally.connected,
            "connects": tally.connects,
            "tries": tally.tries,
            "connecting": tally.connecting,
            "most_connecting": tally.most_connecting,
            "handshake_s": [round(value, 3) for value in handshakes],
            "heartbeats": tally.heartbeats,
            "heartbeat_bytes": {str(size): count for size, count in tally.heartbeat_bytes.items()},
            "alerts": tally.alerts,
            "failures": dict(tally.failures),
            "cpu_s": round(spent.ru_utime + spent.ru_stime, 3),
        }
        try:
            self._control.setblocking(True)  # noqa: FBT003 - a socket's method
            self._control.sendall(json.dumps(body).encode() + b"\n")
            self._control.setblocking(False)  # noqa: FBT003 - a socket's method
        except OSError:
            self._ends = True
        self._hub.call_later(_REPORT_S, self._report)


def main(arguments: Sequence[str]) -> None:
    """Run the plan."""
    logging.basicConfig(level=logging.ERROR)
    plan = Plan(**json.loads(Path(arguments[0]).read_text()))
    with socket.socket(fileno=int(arguments[1])) as control:
        try:
            FleetProcess(plan, control).run()
        except BaseException:
            logger.exception("the boxes ended")
            logging.shutdown()
            os._exit(1)
    # Nobody says goodbye, and nothing on disk is needed any more: unwinding each box would take longer than its life.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
