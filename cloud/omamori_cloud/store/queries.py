"""The questions that the store can be asked, and pages of answers. Bounded: what is out of its form is refused here."""

from __future__ import annotations

import dataclasses
import ipaddress

from omamori_cloud.errors import QueryError
from omamori_cloud.facts import EventFacts, LedgerFacts
from omamori_protocol.device import check_device_id, parse_mac
from omamori_protocol.errors import ProtocolError
from omamori_protocol.vocabulary import Function, Severity

MAX_ALERTS = 500
MAX_LEDGER = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cursor:
    """Where a page begins: after this row, in the order newest first."""

    occurred_ms: int
    id: int

    def __str__(self) -> str:
        return f"{self.occurred_ms}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` gave.

        Raises:
            QueryError: It is not that.
        """
        parts = text.split("-")
        if len(text) > 40 or len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise QueryError("before", f"{text[:40]!r} is not a place in the list")
        occurred_ms, row = map(int, parts)
        if max(occurred_ms, row) >= 2**63:
            raise QueryError("before", f"{text[:40]!r} is not a place in the list")
        return cls(occurred_ms=occurred_ms, id=row)


def _check_limit(limit: int, maximum: int) -> None:
    if not 1 <= limit <= maximum:
        raise QueryError("limit", f"{limit} is outside 1..{maximum}")


def is_device_id(text: str) -> bool:
    """Return whether a box can have this name."""
    try:
        check_device_id(text)
    except ProtocolError:
        return False
    return True


def _check_device(device: str) -> None:
    try:
        check_device_id(device)
    except ProtocolError as err:
        raise QueryError("device", str(err), hint=err.hint) from err


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlertQuery:
    """Which alerts; None means any.

    `severity` is the lowest one wanted, `terminal` an IP or MAC address, `since_ms` the earliest time of occurrence.
    """

    device: str | None = None
    severity: Severity | None = None
    function: Function | None = None
    terminal: str | None = None
    since_ms: int | None = None
    before: Cursor | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            QueryError: A value is out of its form.
        """
        _check_limit(self.limit, MAX_ALERTS)
        if self.device is not None:
            _check_device(self.device)
        if self.terminal is not None:
            parse_terminal(self.terminal)


def parse_terminal(text: str) -> str | bytes:
    """Return a canonical IP address, or six bytes of a MAC address.

    Raises:
        QueryError: It is neither.
    """
    try:
        return parse_mac(text)
    except ProtocolError:
        pass
    try:
        return str(ipaddress.ip_address(text[:64]))
    except ValueError as err:
        raise QueryError("terminal", f"{text[:40]!r} is neither an IP nor a MAC address") from err


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlertPage:
    """One page of alerts, newest first; `next` is where the following page begins, None at the end."""

    alerts: tuple[EventFacts, ...]
    next: Cursor | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerQuery:
    """Which entries of one box's ledger; `since_ms` is the earliest beginning."""

    device: str
    since_ms: int | None = None
    before: Cursor | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            QueryError: A value is out of its form.
        """
        _check_limit(self.limit, MAX_LEDGER)
        _check_device(self.device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerPage:
    """One page of a ledger, newest first; `next` as in `AlertPage`."""

    entries: tuple[LedgerFacts, ...]
    next: Cursor | None
