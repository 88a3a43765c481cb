"""Makes messages and stores for tests: sensible values, each test names only what it is about."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI
from sqlalchemy import Engine

from omamori_cloud.config import Limits
from omamori_cloud.feed_shelf import FeedShelf
from omamori_cloud.ingest import IngestStatus
from omamori_cloud.intake import Message
from omamori_cloud.page.config import PageConfig
from omamori_cloud.page.web import make_app
from omamori_cloud.store.database import migrate, open_database
from omamori_cloud.store.reader import Reader
from omamori_cloud.store.reports import ReportStore
from omamori_cloud.store.writer import Writer
from omamori_protocol.diagnostics import Diagnostics, compress
from omamori_protocol.messages import Event, Heartbeat, State, SupervisorState
from omamori_protocol.reported import PartName, PartReport, PartState, Reported
from omamori_protocol.vocabulary import (
    Action,
    Direction,
    EngineState,
    EventKind,
    FeedState,
    Function,
    PowerKind,
    Presence,
    Severity,
    Slot,
    UninspectedReason,
)

NOW_MS = 1_790_000_000_000  # 2026-09-21 23:13:20 in Japan
BOX = "ZA35-000001"
OTHER_BOX = "ZA35-000002"
BOTH = ("sqlite", "postgresql")


class OpenElsewhere(Protocol):
    """Opens a database that does not exist yet; each time another one."""

    def __call__(self) -> Engine: ...


class MakeBench(Protocol):
    """Opens the one store of a test."""

    def __call__(self, **limits: int) -> Bench: ...


class Bench:
    """A store, in a file unless a URL is given, with the present in `now_ms`."""

    def __init__(self, folder: Path, *, url: str = "", password_file: Path | None = None, **limits: int) -> None:
        self.url = url or f"sqlite:///{folder / 'cloud.db'}"
        self.password_file = password_file
        self.engine = open_database(self.url, password_file=password_file)
        migrate(self.engine)
        self.limits = Limits(**limits)
        self.writer = Writer(self.engine, self.limits)
        self.reader = Reader(self.engine)
        self.allow_file = folder / "reports.tsv"
        self.reports = ReportStore(self.engine, allow_file=self.allow_file)
        self.now_ms = NOW_MS

    def configuration(self, folder: Path, extra: str = "") -> Path:
        """Write a configuration for the command line that has this store."""
        path = folder / "cloud.toml"
        password = f'password_file = "{self.password_file}"\n' if self.password_file else ""
        path.write_text(
            f'{extra}\n[broker]\nhost = "x"\nca = "x"\ncert = "x"\nkey = "x"\n'
            f'[database]\nurl = "{self.url}"\n{password}'
        )
        return path

    def say(self, body: Any, *, device: str = BOX, retained: bool = False) -> Any:
        return self.writer.store([Message(device=device, body=body, received_ms=self.now_ms, retained=retained)])

    def app(self, config: PageConfig, status: IngestStatus, book: Path | None = None) -> FastAPI:
        return make_app(
            self.reader,
            config,
            clock=lambda: self.now_ms,
            status=status,
            reports=self.reports,
            shelf=FeedShelf(book),
        )

    def close(self) -> None:
        self.engine.dispose()


def heartbeat(**changes: Any) -> Heartbeat:
    values: dict[str, Any] = {
        "boot": 1,
        "seq": 1,
        "sent_s": NOW_MS // 1000,
        "uptime_s": 11_700,
        "firmware": "2026.11.1",
        "slot": Slot.A,
        "feed_serial": 12,
        "feed_state": FeedState.ACTIVE,
        "engine": EngineState.INSPECTING,
        "agent_rss_kib": 31_744,
        "memory_available_kib": 421_888,
        "spool_depth": 0,
        "uninspected_s": 9,
    }
    return Heartbeat(**{**values, **changes})


def state(**changes: Any) -> State:
    values: dict[str, Any] = {
        "session": b"sessionA",
        "presence": Presence.ONLINE,
        "boot": 1,
        "since_s": NOW_MS // 1000 - 600,
        "model": "ZA-SA3500N",
        "firmware": "2026.11.1",
        "flavour": "release",
        "slot": Slot.A,
        "feed_serial": 12,
        "feed_state": FeedState.ACTIVE,
    }
    return State(**{**values, **changes})


def alert(**changes: Any) -> Event:
    values: dict[str, Any] = {
        "boot": 1,
        "seq": random.randrange(2**62),
        "at_ms": NOW_MS - 1000,
        "kind": EventKind.ALERT,
        "severity": Severity.TWO,
        "function": Function.DANGEROUS_SITE,
        "direction": Direction.OUT,
        "action": Action.BLOCKED,
        "terminal_ip": "192.168.10.11",
        "terminal_mac": bytes.fromhex("02005e100001"),
        "destination": "phishing.test",
        "remote_ip": "203.0.113.80",
        "remote_port": 443,
        "protocol": "tls",
        "rule_id": 9_000_012,
        "rule": "Omamori dangerous site (TLS SNI)",
    }
    return Event(**{**values, **changes})


def feed_event(**changes: Any) -> Event:
    values: dict[str, Any] = {
        "boot": 1,
        "seq": random.randrange(2**62),
        "at_ms": NOW_MS - 1000,
        "kind": EventKind.FEED,
        "feed_serial": 12,
        "feed_state": FeedState.ACTIVE,
    }
    return Event(**{**values, **changes})


def ledger_event(**changes: Any) -> Event:
    values: dict[str, Any] = {
        "boot": 1,
        "seq": random.randrange(2**62),
        "at_ms": NOW_MS - 60_000,
        "kind": EventKind.LEDGER,
        "uninspected_reason": UninspectedReason.ENGINE_DOWN,
        "uninspected_s": 12,
        "packets": 3_400,
        "size_bytes": 2_500_000,
    }
    return Event(**{**values, **changes})


def diagnostics(told: dict[str, Any] | None = None, **changes: Any) -> Diagnostics:
    values: dict[str, Any] = {"command_id": bytes(range(8)), "at_s": NOW_MS // 1000 - 5}
    return Diagnostics(**{**values, "content": compress(told or {"format": 1, "log": ["始動"]}), **changes})


def reported(**changes: Any) -> Reported:
    values: dict[str, Any] = {
        "at_s": NOW_MS // 1000 - 5,
        "version": 7,
        "state": PartState.REFUSED,
        "parts": (
            PartReport(part=PartName.POLICY, state=PartState.APPLIED),
            PartReport(part=PartName.ADDRESS, state=PartState.PENDING, reason="waits for the broker"),
            PartReport(part=PartName.WIFI, state=PartState.REFUSED, reason="no radio on this board"),
        ),
    }
    return Reported(**{**values, **changes})


def power_event(**changes: Any) -> Event:
    values: dict[str, Any] = {
        "boot": 2,
        "seq": 1,
        "at_ms": NOW_MS - 1000,
        "kind": EventKind.POWER,
        "power_kind": PowerKind.SHORT_PULL,
        "power_serial": 4,
        "power_ms": 5012,
    }
    return Event(**{**values, **changes})


def supervisor_state(**changes: Any) -> SupervisorState:
    values: dict[str, Any] = {
        "answers": True,
        "chip": "1.4.0",
        "through": True,
        "moves": 7,
        "past_s": 134,
        "resets": 0,
        "restarts": 1,
        "power_serial": 4,
        "power_kind": PowerKind.SHORT_PULL,
        "power_ms": 5012,
        "lease_ms": 150,
    }
    return SupervisorState(**{**values, **changes})
