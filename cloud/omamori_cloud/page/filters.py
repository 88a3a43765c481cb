"""Reads the filter form's parameters. Forgiving: a person may have typed them; what makes no sense is not used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from urllib.parse import urlencode

from omamori_cloud.errors import QueryError
from omamori_cloud.store.queries import AlertQuery, Cursor
from omamori_protocol.device import check_device_id
from omamori_protocol.errors import ProtocolError
from omamori_protocol.vocabulary import Function, Severity

PAGE_SIZE = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters:
    """What the form holds; empty texts mean "any"."""

    severity: str = ""
    function: str = ""
    terminal: str = ""
    device: str = ""
    before: str = ""
    wrong: bool = False  # the terminal was neither an IP nor a MAC address

    @property
    def active(self) -> bool:
        """Whether any condition is set."""
        return bool(self.severity or self.function or self.terminal or self.device)

    def url(self, path: str, *, before: str | None = None) -> str:
        """Return a link that keeps the conditions.

        Args:
            path: Path of the page.
            before: Where the list shall begin; None keeps the place.
        """
        values = {
            "severity": self.severity,
            "function": self.function,
            "terminal": self.terminal,
            "device": self.device,
            "before": self.before if before is None else before,
        }
        query = urlencode({key: value for key, value in values.items() if value})
        return f"{path}?{query}" if query else path

    def query(self) -> AlertQuery:
        """Return the question to the store."""
        return AlertQuery(
            device=self.device or None,
            severity=Severity(int(self.severity)) if self.severity else None,
            function=Function(Function.from_word(self.function)) if self.function else None,
            terminal=self.terminal if self.terminal and not self.wrong else None,
            before=Cursor.parse(self.before) if self.before else None,
            limit=PAGE_SIZE,
        )


def parse_filters(parameters: Mapping[str, str]) -> Filters:
    """Return the filters in a page's query parameters; never fails."""
    severity = parameters.get("severity", "")
    function = parameters.get("function", "")
    device = parameters.get("device", "")
    terminal = parameters.get("terminal", "").strip()[:64]
    before = parameters.get("before", "")
    try:
        check_device_id(device)
    except ProtocolError:
        device = ""
    try:
        Cursor.parse(before)
    except QueryError:
        before = ""
    wrong = False
    if terminal:
        try:
            AlertQuery(terminal=terminal)
        except QueryError:
            wrong = True
    return Filters(
        severity=severity if severity in {"2", "3"} else "",
        function=function if function in {member.word for member in Function} else "",
        terminal=terminal,
        device=device,
        before=before,
        wrong=wrong,
    )
