"""The cloud's page as a program reads it: boxes and alerts over its JSON interface, and what a scene expects there."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from .addresses import Terminal
from .errors import LabError
from .waiting import wait_for

_MAX_BYTES = 16 << 20
_PAGE = 500
_MAX_ALERTS = 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """An alert that must be in the portal.

    Attributes:
        function: Word of the function, for example ``virus``.
        direction: ``in`` or ``out``.
        terminal: Whose IP and MAC it carries.
        destination: Regular expression for the destination; empty for any.
        severity: Stars, or None for any.
        action: ``blocked`` or ``logged``.
        category: Word of the category, or None for any.
        rule: Regular expression for the text of the rule; empty for any.
        remote: Address of the other side; empty for any.
    """

    function: str
    direction: str
    terminal: Terminal
    destination: str = ""
    severity: int | None = None
    action: str = "blocked"
    category: str | None = None
    rule: str = ""
    remote: str = ""

    def fits(self, alert: dict[str, Any]) -> bool:
        """Whether an alert of the portal is this one."""
        return (
            alert["function"] in self.function.split("|")
            and alert["direction"] == self.direction
            and is_of(alert, self.terminal)
            and str(alert["terminal"]["mac"]).lower() == self.terminal.mac
            and re.search(self.destination, str(alert["destination"])) is not None
            and (self.severity is None or alert["severity"] == self.severity)
            and alert["action"] == self.action
            and (self.category is None or alert["category"] == self.category)
            and re.search(self.rule, str(alert["rule"]["text"])) is not None
            and (not self.remote or alert["remote"]["ip"] == self.remote)
        )

    def __str__(self) -> str:
        stars = "★" * self.severity if self.severity else "any severity"
        about = f" {self.category}" if self.category else ""
        return (
            f"{self.function}{about} {self.direction} {stars} {self.action} "
            f"{self.terminal.ipv4} {self.terminal.mac} → {self.destination or 'anything'}"
            + (f" {self.rule}" if self.rule else "")
        )


def is_of(alert: dict[str, Any], terminal: Terminal) -> bool:
    """Whether an alert is about a terminal, by its IP address."""
    return alert["terminal"]["ip"] in {terminal.ipv4, terminal.ipv6}


def brief(alert: dict[str, Any]) -> str:
    """Return an alert in a few words."""
    terminal = alert["terminal"]
    words = [alert["function"], alert["category"], alert["direction"], "★" * int(alert["severity"]), alert["action"]]
    words += [terminal["ip"], terminal["mac"], "→", alert["destination"], alert["rule"]["text"]]
    return " ".join(str(word) for word in words if word)


class Portal:
    """Client of the page's JSON interface.

    Args:
        port: Of the page on the loopback.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    def get(self, path: str) -> Any:
        """Return the JSON at a path.

        Raises:
            LabError: The page does not answer, or not with JSON.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(_MAX_BYTES)
            if answer.status != 200:
                raise LabError(f"{path}: status {answer.status}")
            return json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as err:
            raise LabError(f"{path}: {err}") from err
        finally:
            connection.close()

    def healthy(self) -> bool:
        """Whether the page answers."""
        try:
            self.boxes()
        except LabError:
            return False
        return True

    def boxes(self) -> list[dict[str, Any]]:
        """Return all boxes."""
        return list(self.get("/api/v1/boxes")["boxes"])

    def box(self, serial: str) -> dict[str, Any]:
        """Return one box.

        Raises:
            LabError: The portal does not know it.
        """
        for box in self.boxes():
            if box["device"] == serial:
                return box
        raise LabError(f"the portal does not know {serial}")

    def await_box(self, serial: str, fits: Callable[[dict[str, Any]], bool], *, timeout_s: float) -> dict[str, Any]:
        """Wait until a box is shown as `fits` wants it; return it.

        Raises:
            NotReadyError: It was not in time.
        """

        def look() -> dict[str, Any] | None:
            return next((box for box in self.boxes() if box["device"] == serial and fits(box)), None)

        return wait_for(
            look, f"{serial} in the portal", timeout_s=timeout_s, every_s=0.3, detail=lambda: str(self.boxes())[:800]
        )

    def outages(self, serial: str) -> list[dict[str, Any]]:
        """Return the absences of a box that the cloud knows of, the newest first.

        Raises:
            PortalError: The page does not answer as it should.
        """
        return list(self.get(f"/api/v1/outages?device={serial}")["outages"])

    def await_outage(self, serial: str, *, known: int, timeout_s: float) -> dict[str, Any]:
        """Wait for an absence that is over and newer than the one numbered `known`; return it.

        Raises:
            NotReadyError: There was none in time.
        """

        def look() -> dict[str, Any] | None:
            newer = [item for item in self.outages(serial) if item["id"] > known and item["end"] is not None]
            return newer[0] if newer else None

        return wait_for(look, "an absence that is over", timeout_s=timeout_s)

    def alerts(self) -> list[dict[str, Any]]:
        """Return all alerts, newest first."""
        found: list[dict[str, Any]] = []
        path = f"/api/v1/alerts?limit={_PAGE}"
        page = self.get(path)
        found += page["alerts"]
        while page["next"] is not None and len(found) < _MAX_ALERTS:
            page = self.get(f"{path}&before={page['next']}")
            found += page["alerts"]
        return found

    def await_alerts(
        self, expected: Sequence[Expected], *, known: set[object], timeout_s: float
    ) -> tuple[list[Expected], list[dict[str, Any]]]:
        """Wait until every expected alert is there; return those that are missing, and all new alerts.

        Args:
            expected: What must come.
            known: Identities of alerts from before (see `identity`).
            timeout_s: Seconds to wait at most.
        """
        fresh: list[dict[str, Any]] = []

        def missing() -> list[Expected]:
            fresh[:] = [alert for alert in self.alerts() if identity(alert) not in known]
            return [item for item in expected if not any(item.fits(alert) for alert in fresh)]

        try:
            wait_for(lambda: not missing(), "alerts", timeout_s=timeout_s, every_s=0.3)
        except LabError:
            return missing(), fresh
        return [], fresh


def identity(alert: dict[str, Any]) -> tuple[object, object, object]:
    """Return what makes an event unique: device, boot, sequence."""
    return alert["device"], alert["boot"], alert["seq"]
