"""A store with boxes in it whose absences are judged, in a time that is moved by hand."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from omamori_cloud.ingest import IngestStatus
from omamori_cloud.liveness import LivenessConfig, OutageReason
from omamori_cloud.store import schema
from omamori_cloud.store.absences import AbsenceStore, Look
from omamori_protocol.vocabulary import Presence

from .makers import BOX, Bench, heartbeat, state

OFFLINE_AFTER_S = 180
OFFLINE = Presence.OFFLINE


class Watched:
    """A store whose time is moved by hand, with boxes in it and somebody who looks at them every 5 s."""

    def __init__(self, bench: Bench, **config: int) -> None:
        self.bench = bench
        self.status = IngestStatus()
        self.status.set("")
        self.absences = AbsenceStore(
            bench.engine, LivenessConfig(**config), offline_after_s=OFFLINE_AFTER_S, kept_per_device=50
        )
        self.sessions = 0
        self.found: list[Look] = []

    def birth(self, device: str = BOX, **values: Any) -> bytes:
        self.sessions += 1
        session = self.sessions.to_bytes(8, "big")
        self.bench.say(state(session=session, since_s=self.bench.now_ms // 1000, **values), device=device)
        return session

    def will(self, session: bytes, device: str = BOX, **values: Any) -> None:
        self.bench.say(state(session=session, presence=OFFLINE, **values), device=device)

    def beat(self, device: str = BOX, **values: Any) -> None:
        self.bench.say(heartbeat(**values), device=device)

    def wait(self, seconds: float, *, beats: tuple[str, ...] = (), looks: bool = True) -> None:
        """Let time pass; boxes in `beats` send a heartbeat every minute."""
        step = 5 if seconds <= 60 else 20
        for second in range(0, int(seconds), step):
            self.bench.now_ms += step * 1000
            for device in beats if second % 60 == 0 else ():
                self.beat(device, seq=1 + self.bench.now_ms // 60_000)
            if looks:
                self.look()

    def look(self) -> Look:
        self.absences.sign("ingest", self.bench.now_ms, self.status.trouble)
        self.found.append(self.absences.look(self.bench.now_ms))
        return self.found[-1]

    @property
    def noticed(self) -> int:
        return sum(look.noticed for look in self.found)

    def outages(self, device: str | None = BOX) -> list[Any]:
        table: Any = schema.Outage.__table__
        chosen = select(table).order_by(table.c.id)
        with self.bench.engine.connect() as connection:
            return list(connection.execute(chosen if device is None else chosen.where(table.c.device_id == device)))

    def service(self) -> list[Any]:
        table: Any = schema.ServiceOutage.__table__
        with self.bench.engine.connect() as connection:
            return list(connection.execute(select(table).order_by(table.c.id)))

    def reasons(self, device: str | None = BOX) -> list[OutageReason]:
        return [OutageReason(row.reason) for row in self.outages(device)]
