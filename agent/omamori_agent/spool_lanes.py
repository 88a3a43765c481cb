"""The lanes of the spool: one for each severity, and behind them what the broker has confirmed.

Works inside a transaction of its caller and keeps the counts that belong to it. The rules:

* Within a lane events keep their order. A lane does not wait for another one.
* A confirmed event is no longer waiting but stays for a while: a broker that loses its memory gets it again, on a lane
  of its own behind all others, for most of it the cloud has long had.
* When the bounds are reached, confirmed events go first, then the oldest of the lowest lane. Three stars go only when
  the disk has nothing left.
* A body that is not what was stored (its check sum says so) is dropped and counted, never sent.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import zlib
from collections.abc import Callable, Iterable
from enum import IntEnum

from omamori_protocol.vocabulary import Severity

from .config import SpoolLimits


class Lane(IntEnum):
    """What waits, by severity, and what is sent once more."""

    AGAIN = 0
    ONE = Severity.ONE
    TWO = Severity.TWO
    THREE = Severity.THREE


LANES = (Lane.THREE, Lane.TWO, Lane.ONE, Lane.AGAIN)  # in the order of sending
_BY_SEVERITY = (Lane.THREE, Lane.TWO, Lane.ONE)
_DROPPABLE = (Lane.ONE, Lane.TWO)
# Values of the column `confirmed`.
_WAITING, _CONFIRMED, _AGAIN = 0, 1, 2
_NO_CHECK_SUM = -1  # stored by a firmware that had none
_STEP = 64  # rows looked at in one go

Row = tuple[int, bytes]


def check_sum(severity: int, body: bytes) -> int:
    """Return what is stored beside an event to tell damage."""
    return zlib.crc32(body, severity)


def is_sound(severity: int, body: bytes, stored: int) -> bool:
    """Tell whether an event is as it was stored."""
    return stored in (_NO_CHECK_SUM, check_sum(severity, body))


@dataclasses.dataclass
class Counts:
    """What the spool knows without asking the database; changes only with a committed transaction."""

    events: int = 0  # waiting
    size_bytes: int = 0  # of their bodies
    again: int = 0  # of the confirmed ones, those that are sent once more
    confirmed: int = 0
    confirmed_bytes: int = 0
    lost: dict[Lane, int] = dataclasses.field(default_factory=dict)  # dropped and not told yet; also in the database
    lost_in_all: int = 0
    damaged: int = 0  # dropped for their check sum, not told yet

    def copy(self) -> Counts:
        """Return counts to come back to when a transaction fails."""
        return dataclasses.replace(self, lost=dict(self.lost))


class Lanes:
    """The table of events.

    Args:
        limits: Bounds.
        disk_is_left: Whether the disk has room for more than the bounds say; asked for three stars only.
    """

    def __init__(self, limits: SpoolLimits, disk_is_left: Callable[[], bool]) -> None:
        self._limits = limits
        self._disk_is_left = disk_is_left
        self.counts = Counts()

    def load(self, connection: sqlite3.Connection) -> None:
        """Count what the database holds; what belongs to no lane is damage and goes."""
        strays = connection.execute("DELETE FROM event WHERE severity NOT IN (1, 2, 3) OR confirmed NOT IN (0, 1, 2)")
        self.counts.damaged += strays.rowcount
        query = "SELECT confirmed, count(*), coalesce(sum(length(body)), 0) FROM event GROUP BY confirmed"
        rows = {int(confirmed): (events, size) for confirmed, events, size in connection.execute(query)}
        numbers = dict(connection.execute("SELECT name, value FROM number"))
        events, size_bytes = rows.get(_WAITING, (0, 0))
        confirmed, confirmed_bytes = rows.get(_CONFIRMED, (0, 0))
        again, again_bytes = rows.get(_AGAIN, (0, 0))
        self.counts = dataclasses.replace(
            self.counts,
            events=events,
            size_bytes=size_bytes,
            again=again,
            confirmed=confirmed + again,
            confirmed_bytes=confirmed_bytes + again_bytes,
            lost={lane: numbers[name] for lane in _BY_SEVERITY if numbers.get(name := _lost_name(lane))},
        )

    def add(self, connection: sqlite3.Connection, rows: list[Row]) -> None:
        """Put events at the end of their lanes and keep the bounds."""
        statement = "INSERT INTO event (severity, body, check_sum) VALUES (?, ?, ?)"
        connection.executemany(statement, [(lane, body, check_sum(lane, body)) for lane, body in rows])
        self.counts.events += len(rows)
        self.counts.size_bytes += sum(len(body) for _lane, body in rows)
        self.trim(connection)

    def read(self, connection: sqlite3.Connection, lane: Lane, after: int, maximum: int) -> list[tuple[int, bytes]]:
        """Return position and body of up to `maximum` events of `lane`; damaged ones are dropped on the way."""
        columns = "SELECT id, severity, body, check_sum FROM event"
        values: tuple[int, ...]
        if lane is Lane.AGAIN:
            query, values = f"{columns} WHERE confirmed = 2 AND id > ? ORDER BY id LIMIT ?", (after, maximum)
        else:
            query = f"{columns} WHERE confirmed = 0 AND severity = ? AND id > ? ORDER BY id LIMIT ?"
            values = (int(lane), after, maximum)
        found: list[tuple[int, bytes]] = []
        for position, severity, body, stored in connection.execute(query, values).fetchall():
            if isinstance(body, bytes) and is_sound(severity, body, stored):
                found.append((position, body))
            else:
                self._delete(connection, position)
                self.counts.damaged += 1
        return found

    def confirm(self, connection: sqlite3.Connection, positions: Iterable[int]) -> None:
        """Take events out of their lanes; the newest of them stay for `recall`."""
        query = "SELECT confirmed, length(body) FROM event WHERE id = ?"
        for position in positions:
            row = connection.execute(query, (position,)).fetchone()
            if row is None or row[0] == _CONFIRMED:
                continue
            connection.execute("UPDATE event SET confirmed = 1 WHERE id = ?", (position,))
            if row[0] == _AGAIN:
                self.counts.again -= 1
            else:
                self.counts.events -= 1
                self.counts.size_bytes -= row[1]
                self.counts.confirmed += 1
                self.counts.confirmed_bytes += row[1]
        self._drop_confirmed(connection, self._has_too_many_confirmed)

    def recall(self, connection: sqlite3.Connection, positions: Iterable[int] | None) -> int:
        """Put confirmed events (None: all that stayed) on the lane `AGAIN`; returns how many that were."""
        if positions is None:
            recalled = connection.execute("UPDATE event SET confirmed = 2 WHERE confirmed = 1").rowcount
        else:
            statement = "UPDATE event SET confirmed = 2 WHERE id = ? AND confirmed = 1"
            recalled = sum(connection.execute(statement, (position,)).rowcount for position in positions)
        self.counts.again += recalled
        return recalled

    def trim(self, connection: sqlite3.Connection) -> None:
        """Drop until the bounds are kept."""
        self._drop_confirmed(connection, self._is_over_bounds)
        for lane in _DROPPABLE:
            self._drop(connection, lane, self._is_over_bounds)
        if self._is_over_bounds() and not self._disk_is_left():
            self._drop(connection, Lane.THREE, self._is_over_bounds)

    def make_room(self, connection: sqlite3.Connection, below: Severity, wanted_bytes: int) -> int:
        """Drop confirmed events, and as much as is wanted of the lanes below `below`; returns how many bytes."""
        before = self.counts.size_bytes + self.counts.confirmed_bytes

        def has_too_little() -> bool:
            return before - self.counts.size_bytes - self.counts.confirmed_bytes < wanted_bytes

        self._drop_confirmed(connection, has_too_little)
        for lane in _DROPPABLE:
            if lane < below:
                self._drop(connection, lane, has_too_little)
        return before - self.counts.size_bytes - self.counts.confirmed_bytes

    def has_room(self, share: float) -> bool:
        """Return whether the lanes are below this part of their bounds."""
        return (
            self.counts.events < self._limits.max_events * share
            and self.counts.size_bytes < self._limits.max_bytes * share
        )

    def loss_told(self, connection: sqlite3.Connection) -> None:
        """Forget what was dropped: an event about it is part of the same transaction."""
        for lane in self.counts.lost:
            _write_number(connection, _lost_name(lane), 0)
        self.counts.lost = {}

    def _is_over_bounds(self) -> bool:
        events = self.counts.events + self.counts.confirmed
        size_bytes = self.counts.size_bytes + self.counts.confirmed_bytes
        return events > self._limits.max_events or size_bytes > self._limits.max_bytes

    def _has_too_many_confirmed(self) -> bool:
        return self.counts.confirmed > self._limits.kept_events or self.counts.confirmed_bytes > self._limits.kept_bytes

    def _drop_confirmed(self, connection: sqlite3.Connection, is_too_much: Callable[[], bool]) -> None:
        query = "SELECT id FROM event WHERE confirmed IN (1, 2) ORDER BY id LIMIT ?"
        while self.counts.confirmed and is_too_much():
            oldest = connection.execute(query, (_STEP,)).fetchall()
            if not oldest:
                return
            for (position,) in oldest:
                if not is_too_much():
                    return
                self._delete(connection, position)

    def _drop(self, connection: sqlite3.Connection, lane: Lane, is_too_much: Callable[[], bool]) -> None:
        query = "SELECT id FROM event WHERE confirmed = 0 AND severity = ? ORDER BY id LIMIT ?"
        dropped = 0
        while is_too_much():
            oldest = connection.execute(query, (int(lane), _STEP)).fetchall()
            if not oldest:
                break
            for (position,) in oldest:
                if not is_too_much():
                    break
                self._delete(connection, position)
                dropped += 1
        if dropped:
            self.counts.lost[lane] = self.counts.lost.get(lane, 0) + dropped
            self.counts.lost_in_all += dropped
            _write_number(connection, _lost_name(lane), self.counts.lost[lane])

    def _delete(self, connection: sqlite3.Connection, position: int) -> None:
        statement = "DELETE FROM event WHERE id = ? RETURNING confirmed, length(body)"
        for confirmed, size in connection.execute(statement, (position,)).fetchall():
            if confirmed:
                self.counts.again -= confirmed == _AGAIN
                self.counts.confirmed -= 1
                self.counts.confirmed_bytes -= size
            else:
                self.counts.events -= 1
                self.counts.size_bytes -= size


def _lost_name(lane: Lane) -> str:
    return "lost" if lane is Lane.ONE else f"lost-{lane.value}"  # the first one has the name of a time without lanes


def _write_number(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO number VALUES (?, ?)", (name, value))
