"""Keeps the table of absences: what `liveness` judges, read from and written to the store in one transaction.

* What ingest noted about sessions that began is taken once and marked.
* A box without a word for long, or that the broker says is gone, is absent; unless nothing comes in at all: then
  nothing is known, and the time is noted as an outage of our own.
* Of several that look at a time, one does.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, and_, bindparam, delete, func, insert, or_, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from omamori_cloud.errors import StoreUnavailableError
from omamori_cloud.liveness import (
    Absence,
    Crowd,
    LivenessConfig,
    OutageReason,
    Return,
    Verdict,
    is_absence,
    is_notice_due,
    judge_absence,
    judge_return,
)
from omamori_protocol.vocabulary import Leaving, PowerKind, Presence, RunEnd

from . import schema
from .batch import insert_or
from .database import POSTGRESQL

WATCH = "liveness"  # our own name among the signs
_LOCK = 0x6C697665  # "live"
_MAX_CHANGES = 1_000  # of each kind in one look: ingest may have to wait for it
_MAX_TEXT = 200
_SIGN_KEPT_MS = 7 * 86_400_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What a look found: how many absences began, ended, and were to be told the customer; whether we are blind."""

    began: int = 0
    ended: int = 0
    noticed: int = 0
    is_blind: bool = False


class AbsenceStore:
    """Signs for workers, and judges absences."""

    def __init__(self, engine: Engine, config: LivenessConfig, *, offline_after_s: int, kept_per_device: int) -> None:
        """Take the collaborators; nothing is read yet.

        Args:
            engine: The database.
            config: Thresholds.
            offline_after_s: Silence after which a box counts as offline: as many heartbeats as may be missed.
            kept_per_device: How many absences of a box are kept.
        """
        self._engine = engine
        self._config = config
        self._offline_after_ms = offline_after_s * 1000
        self._kept = kept_per_device

    def sign(self, name: str, now_ms: int, trouble: str) -> None:
        """Note that the worker `name` lives, and what keeps messages from coming in to it, if anything.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        table = schema.WorkerSign
        with _Changing(self._engine) as connection:
            row = connection.execute(select(table.since_ms).where(table.name == name)).first()
            since_ms = None if trouble else (row.since_ms if row is not None else None) or now_ms
            values = {"at_ms": now_ms, "since_ms": since_ms, "trouble": trouble[:_MAX_TEXT]}
            statement = insert_or(connection, table).values(name=name, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))

    def look(self, now_ms: int) -> Look:
        """Judge what is new since the last look.

        Raises:
            StoreUnavailableError: The database does not answer; nothing was changed.
        """
        with _Changing(self._engine) as connection:
            if connection.dialect.name == POSTGRESQL:
                ours = connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK})
                if not ours.scalar_one():
                    return Look()
            is_blind = _look_at_ourselves(connection, now_ms, self._config)
            return _Round(connection, self._config, self._offline_after_ms, self._kept, now_ms).go(is_blind=is_blind)


class _Changing:
    """A transaction that writes; what goes wrong in it becomes a `StoreUnavailableError`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Connection:
        try:
            self._connection = self._engine.connect().execution_options(writes=True)
            self._transaction = self._connection.begin()
        except (DBAPIError, PoolTimeoutError) as err:
            raise _unavailable(err) from err
        return self._connection

    def __exit__(self, kind: object, err: BaseException | None, _trace: object) -> None:
        try:
            if err is None:
                self._transaction.commit()
            else:
                self._transaction.rollback()
        except DBAPIError as trouble:
            raise _unavailable(trouble) from trouble
        finally:
            self._connection.close()
        if isinstance(err, DBAPIError):
            raise _unavailable(err) from err


def _unavailable(err: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"database: {str(getattr(err, 'orig', err))[:200]}")


def _look_at_ourselves(connection: Connection, now_ms: int, config: LivenessConfig) -> bool:
    """Note whether messages come in at all; returns whether nothing does."""
    table, outage = schema.WorkerSign, schema.ServiceOutage
    silent_ms = config.worker_silent_s * 1000
    signs = connection.execute(select(table.name, table.at_ms, table.since_ms, table.trouble)).all()
    ours = next((row for row in signs if row.name == WATCH), None)
    fresh = [row for row in signs if row.name != WATCH and now_ms - row.at_ms <= silent_ms]
    since = [row.since_ms for row in fresh if row.since_ms is not None]
    # Until when messages came in, as far as we have seen; this is what our own sign keeps.
    good_ms = now_ms if ours is None or ours.since_ms is None else ours.since_ms
    known = connection.execute(select(outage.id).where(outage.end_ms.is_(None))).scalar()
    trouble = next((row.trouble for row in fresh if row.trouble), "")
    if since and known is not None:
        connection.execute(update(outage).where(outage.id == known).values(end_ms=max(good_ms, min(since))))
    elif since and min(since) - good_ms > silent_ms:
        # Nobody of us was there to see it.
        connection.execute(insert(outage).values(start_ms=good_ms, end_ms=min(since), detail=trouble))
    elif not since and known is None and (trouble or now_ms - good_ms > silent_ms):
        connection.execute(insert(outage).values(start_ms=good_ms, end_ms=None, detail=trouble))
    elif not since and known is not None and trouble:
        connection.execute(update(outage).where(outage.id == known).values(detail=trouble))
    values = {"at_ms": now_ms, "since_ms": now_ms if since else good_ms, "trouble": ""}
    statement = insert_or(connection, table).values(name=WATCH, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
    connection.execute(delete(table).where(table.at_ms < now_ms - _SIGN_KEPT_MS))
    return not since


class _Round:
    """One look, in one transaction."""

    def __init__(
        self, connection: Connection, config: LivenessConfig, offline_after_ms: int, kept: int, now_ms: int
    ) -> None:
        self._connection = connection
        self._config = config
        self._offline_after_ms = offline_after_ms
        self._kept = kept
        self._now_ms = now_ms
        table: Any = schema.Outage.__table__
        rows = connection.execute(select(table).where(schema.Outage.end_ms.is_(None))).mappings()
        self._open: dict[str, dict[str, Any]] = {row["device_id"]: dict(row) for row in rows}
        self._new: list[dict[str, Any]] = []
        self._ends: list[dict[str, Any]] = []
        self._changes: list[dict[str, Any]] = []
        self._ended = self._noticed = 0

    def go(self, *, is_blind: bool) -> Look:
        returns = self._take_returns()
        absent = [] if is_blind else self._find_absent()
        self._crowds = _Crowds(self._connection, self._config, self._offline_after_ms, self._now_ms)
        back = [(row, absence) for row in returns if (absence := self._absence_before(row)) is not None]
        self._crowds.add_gone(
            absence.start_ms
            for row, absence in back
            if row["device_id"] not in self._open and is_absence(absence, _back(row), self._config)
        )
        self._crowds.add_gone(self._waiting_starts())
        self._crowds.add_open(absence.start_ms for _, absence in absent)
        for row, absence in back:
            self._end(row["device_id"], absence, _back(row))
        self._end_without_birth()
        began = self._begin(absent[:_MAX_CHANGES])
        self._judge_again(is_blind=is_blind)
        self._store()
        return Look(began=began, ended=self._ended, noticed=self._noticed, is_blind=is_blind)

    def _take_returns(self) -> list[dict[str, Any]]:
        table: Any = schema.Return.__table__
        rows = [
            dict(row)
            for row in self._connection.execute(
                select(table).where(table.c.judged == 0).order_by(table.c.id).limit(_MAX_CHANGES)
            ).mappings()
        ]
        for start in range(0, len(rows), 500):
            ids = [row["id"] for row in rows[start : start + 500]]
            self._connection.execute(update(table).where(table.c.id.in_(ids)).values(judged=1))
        return rows

    def _waiting_starts(self) -> list[int]:
        """Return when those went who are back, too, and whose turn comes with the next look."""
        table: Any = schema.Return.__table__
        was_away = or_(table.c.is_same_run == 0, table.c.away_s >= self._config.blink_s)
        chosen = select(table.c.heard_ms).where(table.c.judged == 0, table.c.heard_ms.is_not(None), was_away)
        return [int(at_ms) for at_ms in self._connection.scalars(chosen)]

    def _absence_before(self, row: dict[str, Any]) -> Absence | None:
        known = self._open.get(row["device_id"])
        start_ms = known["start_ms"] if known is not None else row["heard_ms"]
        if start_ms is None:
            return None
        before = known if known is not None and row["left_ms"] is None else row
        return _absence(start_ms, before)

    def _find_absent(self) -> list[tuple[str, Absence]]:
        """Return the boxes that are away and were not known to be."""
        device, state = schema.Device, schema.State
        blink_ms = self._config.blink_s * 1000
        # While nothing came in, nobody was silent.
        outage = schema.ServiceOutage
        ended = select(outage.end_ms).where(outage.end_ms.is_not(None)).order_by(outage.id.desc()).limit(1)
        blind_until_ms = self._connection.execute(ended).scalar() or 0
        silent = device.last_contact_ms < self._now_ms - self._offline_after_ms
        if blind_until_ms >= self._now_ms - self._offline_after_ms:
            silent = and_(silent, device.id.is_(None))
        left = and_(
            state.presence == int(Presence.OFFLINE),
            state.presence_ms >= device.last_contact_ms,
            state.presence_ms < self._now_ms - blink_ms,
        )
        rows = self._connection.execute(
            select(device.id, device.last_contact_ms, state.presence, state.presence_ms, state.leaving, state.quiet_s)
            .outerjoin(state, state.device_id == device.id)
            .where(device.last_contact_ms.is_not(None), or_(silent, left))
        )
        found = []
        for row in rows:
            if row.id in self._open:
                continue
            is_left = row.presence == Presence.OFFLINE and row.presence_ms >= row.last_contact_ms
            values = {
                "left_ms": row.presence_ms if is_left else None,
                "leaving": row.leaving if is_left else None,
                "quiet_s": row.quiet_s if is_left else None,
            }
            found.append((row.id, _absence(row.last_contact_ms, values)))
        return found

    def _begin(self, absent: Sequence[tuple[str, Absence]]) -> int:
        for device, absence in absent:
            crowd = self._crowds.of(absence.start_ms, lasts=True)
            verdict = judge_absence(absence, crowd, self._now_ms, self._config)
            self._new.append(self._row(device, absence, verdict, end_ms=None))
        return len(absent)

    def _end(self, device: str, absence: Absence, back: Return) -> None:
        known = self._open.pop(device, None)
        if known is None and not is_absence(absence, back, self._config):
            return
        verdict = judge_return(absence, back, self._crowds.of(absence.start_ms, lasts=False), self._config)
        self._ended += 1
        if known is None:
            self._new.append(self._row(device, absence, verdict, end_ms=max(back.at_ms, absence.start_ms)))
            return
        self._ends.append({"of": known["id"], "ended": max(back.at_ms, absence.start_ms), **_judgement(verdict)})

    def _end_without_birth(self) -> None:
        """End absences of boxes that speak again on the connection they had."""
        if not self._open:
            return
        device, state = schema.Device, schema.State
        rows = self._connection.execute(
            select(device.id, device.last_contact_ms)
            .join(schema.Outage, and_(schema.Outage.device_id == device.id, schema.Outage.end_ms.is_(None)))
            .outerjoin(state, state.device_id == device.id)
            .where(
                device.last_contact_ms > schema.Outage.start_ms,
                device.last_contact_ms > self._now_ms - self._offline_after_ms,
                or_(state.presence.is_(None), state.presence == int(Presence.ONLINE)),
            )
        ).all()
        # Asked afterwards: whoever was heard by a birth has its row here by now, and its turn comes.
        born = set(self._connection.scalars(select(schema.Return.device_id).where(schema.Return.judged == 0)))
        for row in rows:
            known = self._open.get(row.id)
            if known is not None and row.id not in born:
                self._end(
                    row.id, _absence(known["start_ms"], known), Return(at_ms=row.last_contact_ms, is_same_run=True)
                )

    def _judge_again(self, *, is_blind: bool) -> None:
        for row in self._open.values():
            absence = _absence(row["start_ms"], row)
            crowd = self._crowds.of(absence.start_ms, lasts=True)
            verdict = judge_absence(absence, crowd, self._now_ms, self._config)
            is_due = not is_blind and row["noticed_ms"] is None and self._is_notice_due(verdict.reason, absence)
            if (is_due or verdict.reason != row["reason"]) and len(self._changes) < _MAX_CHANGES:
                noticed_ms = self._now_ms if is_due else row["noticed_ms"]
                self._changes.append({"of": row["id"], "noticed": noticed_ms, **_judgement(verdict)})
                self._noticed += is_due

    def _is_notice_due(self, reason: OutageReason, absence: Absence) -> bool:
        return is_notice_due(reason, absence, self._now_ms, self._config)

    def _row(self, device: str, absence: Absence, verdict: Verdict, *, end_ms: int | None) -> dict[str, Any]:
        return {
            "device_id": device,
            "start_ms": absence.start_ms,
            "known_ms": self._now_ms,
            "end_ms": end_ms,
            "left_ms": absence.left_ms,
            "leaving": None if absence.leaving is None else int(absence.leaving),
            "quiet_s": absence.quiet_s,
            "noticed_ms": None,
            **_judgement(verdict),
        }

    def _store(self) -> None:
        table: Any = schema.Outage.__table__
        verdict: dict[str, Any] = {"reason": bindparam("reason"), "evidence": bindparam("evidence")}
        change = update(table).where(table.c.id == bindparam("of"))
        if self._ends:
            self._connection.execute(change.values(end_ms=bindparam("ended"), **verdict), self._ends)
        if self._changes:
            self._connection.execute(change.values(noticed_ms=bindparam("noticed"), **verdict), self._changes)
        if not self._new:
            return
        self._connection.execute(insert(table), self._new)
        devices = sorted({row["device_id"] for row in self._new})
        for start in range(0, len(devices), 500):
            self._trim(devices[start : start + 500])

    def _trim(self, devices: list[str]) -> None:
        table = schema.Outage
        many = (
            select(table.device_id)
            .where(table.device_id.in_(devices))
            .group_by(table.device_id)
            .having(func.count() > self._kept)
        )
        for device in list(self._connection.scalars(many)):
            oldest_beyond = (
                select(table.id).where(table.device_id == device).order_by(table.id.desc()).limit(1).offset(self._kept)
            ).scalar_subquery()
            self._connection.execute(delete(table).where(table.device_id == device, table.id <= oldest_beyond))


class _Crowds:
    """Who else went at some moment; read once for a look."""

    def __init__(self, connection: Connection, config: LivenessConfig, offline_after_ms: int, now_ms: int) -> None:
        self._config = config
        self._offline_after_ms = offline_after_ms
        self._now_ms = now_ms
        outage = schema.Outage
        recent_ms = now_ms - 86_400_000
        rows = connection.execute(
            select(outage.start_ms, outage.end_ms).where(or_(outage.end_ms.is_(None), outage.start_ms > recent_ms))
        ).all()
        self._gone = sorted(row.start_ms for row in rows)
        self._open = sorted(row.start_ms for row in rows if row.end_ms is None)
        self._heard: list[int] = sorted(
            at_ms for at_ms in connection.scalars(select(schema.Device.last_contact_ms)) if at_ms is not None
        )
        service = schema.ServiceOutage
        self._service = [
            (row.start_ms, row.end_ms or now_ms)
            for row in connection.execute(
                select(service.start_ms, service.end_ms).where(
                    service.detail != "", or_(service.end_ms.is_(None), service.end_ms > recent_ms)
                )
            )
        ]

    def add_gone(self, starts: Any) -> None:
        self._gone = sorted([*self._gone, *starts])

    def add_open(self, starts: Any) -> None:
        more = list(starts)
        self._open = sorted([*self._open, *more])
        self._gone = sorted([*self._gone, *more])

    def of(self, start_ms: int, *, lasts: bool) -> Crowd:
        """Return the crowd of an absence; of one that lasts, only others that last count."""
        near_ms = self._config.together_s * 1000
        starts = self._open if lasts else self._gone
        gone = bisect.bisect_right(starts, start_ms + near_ms) - bisect.bisect_left(starts, start_ms - near_ms)
        there = len(self._heard) - bisect.bisect_left(self._heard, start_ms - self._offline_after_ms)
        # Whoever has not come back long after we have is away for a reason of its own.
        patience_ms = self._config.notice_after_s * 1000 if lasts else self._now_ms
        is_blind = any(
            begin - near_ms <= start_ms <= end and self._now_ms < end + patience_ms for begin, end in self._service
        )
        return Crowd(gone=max(1, gone), there=max(1, there), is_blind=is_blind)


def _absence(start_ms: int, values: Any) -> Absence:
    leaving = values["leaving"]
    return Absence(
        start_ms=start_ms,
        left_ms=values["left_ms"],
        leaving=None if leaving is None else Leaving(leaving),
        quiet_s=values["quiet_s"] or 0,
    )


def _back(row: dict[str, Any]) -> Return:
    last_end = row["last_end"]
    return Return(
        at_ms=row["received_ms"],
        is_same_run=bool(row["is_same_run"]),
        uptime_s=row["uptime_s"],
        last_end=None if last_end is None else RunEnd(last_end),
        away_s=row["away_s"],
        trouble=row["trouble"],
        power=None if row["power_before"] is None else PowerKind(row["power_before"]),
        power_ms=row["power_before_ms"] or 0,
    )


def _judgement(verdict: Verdict) -> dict[str, Any]:
    return {"reason": int(verdict.reason), "evidence": verdict.evidence}
