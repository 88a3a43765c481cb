"""What scripts read: the same objects from the API and from the command line's ``--json``.

Closed choices are words, times RFC 3339 in UTC, unknown is null. Texts are as the box sent them: whoever shows them to
a person must treat them as hostile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from omamori_protocol.device import format_mac
from omamori_protocol.diagnostics import decompress
from omamori_protocol.feed_book import Explanation
from omamori_protocol.trouble import trouble_of
from omamori_protocol.vocabulary import WireEnum

from .clock import to_rfc3339
from .facts import (
    BoxFacts,
    DiagnosticsFacts,
    EventFacts,
    FirmwareFacts,
    LedgerFacts,
    LedgerSum,
    OutageFacts,
    ServiceOutageFacts,
    SettingsFacts,
    SupervisorFacts,
    WorkerFacts,
)
from .health import Health
from .reports import ReportFacts, Standing


def _word(choice: WireEnum | None) -> str | None:
    return None if choice is None else choice.word


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else to_rfc3339(at_ms)


def box_object(box: BoxFacts, health: Health, name: str | None) -> dict[str, Any]:
    """Return a box and how it is doing."""
    return {
        "device": box.device,
        "name": name,
        "online": health.online,
        "level": health.level.word,
        "findings": [finding.value for finding in health.findings],
        "first_seen": _time(box.first_seen_ms),
        "last_contact": _time(box.last_contact_ms),
        "model": box.model,
        "flavour": box.flavour,
        "firmware": box.firmware,
        "slot": None if box.slot is None else box.slot.name,
        "feed": {"serial": box.feed_serial, "state": _word(box.feed_state), "reason": box.feed_reason},
        "engine": _word(box.engine),
        "uptime_s": box.uptime_s,
        "uninspected_s": box.uninspected_s,
        "memory_available_kib": box.memory_available_kib,
        "agent_rss_kib": box.agent_rss_kib,
        "spool_depth": box.spool_depth,
        "packets": {
            "inspected": box.inspected_packets,
            "bypassed": box.bypassed_packets,
            "blocked": box.blocked_packets,
        },
        "certificate_expires": _time(None if box.certificate_expires_s is None else box.certificate_expires_s * 1000),
        "update": None if box.update is None else update_object(box.update),
        "settings": None if box.settings is None else settings_object(box.settings),
        "ledger": sums_object(box.ledger),
        "refused_messages": box.refused,
        "trouble": None if not box.trouble else trouble_object(box.trouble),
        "outage": None if box.outage is None else outage_object(box.outage),
        "supervisor": None if box.supervisor is None else supervisor_object(box.supervisor),
    }


def supervisor_object(told: SupervisorFacts) -> dict[str, Any]:
    """Return what a box told of its supervisor; counts are since the supervisor's start."""
    return {
        "answers": told.answers,
        "version": told.chip,
        "temperature": {"celsius": told.celsius, "at": _time(told.celsius_ms)},
        "rail": {"millivolts": told.millivolts, "at": _time(told.millivolts_ms)},
        "wire": {
            "through": told.through,
            "moves": told.moves,
            "past_s": told.past_s,
            "lease_ms": told.lease_ms,
        },
        "resets": told.resets,
        "restarts": told.restarts,
        "power": _power(told.power_kind, told.power_serial, told.power_ms),
    }


def _power(kind: WireEnum | None, serial: int | None, length_ms: int | None) -> dict[str, Any] | None:
    return None if kind is None else {"kind": kind.word, "number": serial, "length_ms": length_ms}


def trouble_object(code: int) -> dict[str, Any]:
    """Return what is wrong around a box; a code of a newer box has no word here."""
    return {"code": code, "word": _word(trouble_of(code))}


def outage_object(outage: OutageFacts) -> dict[str, Any]:
    """Return an absence of a box."""
    return {
        "id": outage.id,
        "device": outage.device,
        "start": _time(outage.start_ms),
        "known": _time(outage.known_ms),
        "end": _time(outage.end_ms),
        "seconds": None if outage.end_ms is None else (outage.end_ms - outage.start_ms) // 1000,
        "reason": outage.reason.word,
        "evidence": dict(outage.evidence),
        "noticed": _time(outage.noticed_ms),
    }


def service_outage_object(outage: ServiceOutageFacts) -> dict[str, Any]:
    """Return a time in which nothing came in."""
    return {"start": _time(outage.start_ms), "end": _time(outage.end_ms), "detail": outage.detail or None}


def worker_object(worker: WorkerFacts) -> dict[str, Any]:
    """Return the last sign of a program of ours."""
    return {
        "name": worker.name,
        "last_sign": _time(worker.at_ms),
        "connected_since": _time(worker.since_ms),
        "trouble": worker.trouble or None,
    }


def update_object(update: FirmwareFacts) -> dict[str, Any]:
    """Return what a box last said about a firmware update."""
    return {
        "version": update.version,
        "state": update.state.word,
        "reason": update.reason.word,
        "detail": update.detail,
        "occurred": _time(update.occurred_ms),
        "running": {"version": update.running, "slot": None if update.slot is None else update.slot.name},
    }


def settings_object(settings: SettingsFacts) -> dict[str, Any]:
    """Return what a box reported about its settings; `version` is that of the desired state it has accepted."""
    refused = {"version": settings.refused_version, "reason": settings.refused_reason}
    command = {
        "id": None if settings.command_id is None else settings.command_id.hex(),
        "state": _word(settings.command_state),
        "reason": settings.command_reason,
    }
    return {
        "version": settings.version,
        "state": _word(settings.state),
        "reported": _time(settings.at_s * 1000),
        "parts": {part.part.word: {"state": part.state.word, "reason": part.reason} for part in settings.parts},
        "refused": None if settings.refused_reason is None else refused,
        "command": None if settings.command_id is None else command,
        "bypass_until": _time(None if settings.bypass_until_s is None else settings.bypass_until_s * 1000),
    }


def diagnostics_object(found: DiagnosticsFacts) -> dict[str, Any]:
    """Return what a box told about itself; its content depends on the box's version."""
    return {
        "device": found.device_id,
        "command": found.command_id.hex(),
        "collected": _time(found.at_s * 1000),
        "received": _time(found.received_ms),
        "content": decompress(found.content),
    }


def sums_object(sums: Sequence[LedgerSum]) -> dict[str, Any]:
    """Return what passed uninspected, by reason; spans of different reasons may lie over each other."""
    return {
        entry.reason.word: {
            "seconds": entry.seconds,
            "packets": entry.packets,
            "bytes": entry.size_bytes,
            "latest": _time(entry.latest_ms),
        }
        for entry in sums
    }


def ledger_object(entry: LedgerFacts) -> dict[str, Any]:
    """Return one entry of the uninspected ledger; `occurred` is when its span began."""
    return {
        "id": entry.id,
        "device": entry.device,
        "boot": entry.boot,
        "seq": entry.seq,
        "occurred": _time(entry.occurred_ms),
        "box_time": _time(entry.at_ms),
        "received": _time(entry.received_ms),
        "reason": entry.reason.word,
        "seconds": entry.seconds,
        "packets": entry.packets,
        "bytes": entry.size_bytes,
    }


def alert_object(alert: EventFacts) -> dict[str, Any]:
    """Return an alert."""
    return {
        **_origin(alert),
        "function": _word(alert.function),
        "direction": _word(alert.direction),
        "action": _word(alert.action),
        "terminal": {
            "ip": alert.terminal_ip,
            "mac": None if alert.terminal_mac is None else format_mac(alert.terminal_mac),
        },
        "destination": alert.destination,
        "remote": {"ip": alert.remote_ip, "port": alert.remote_port},
        "protocol": alert.protocol,
        "rule": {"id": alert.rule_id, "text": alert.rule},
        "category": alert.category,
    }


def event_object(event: EventFacts) -> dict[str, Any]:
    """Return an event that is not an alert."""
    return {
        **_origin(event),
        "kind": event.kind.word,
        "feed": {"serial": event.feed_serial, "state": _word(event.feed_state)},
        "power": _power(event.power_kind, event.power_serial, event.power_ms),
        "text": event.text,
    }


def _origin(event: EventFacts) -> dict[str, Any]:
    return {
        "id": event.id,
        "device": event.device,
        "boot": event.boot,
        "seq": event.seq,
        "occurred": _time(event.occurred_ms),
        "box_time": _time(event.at_ms),
        "received": _time(event.received_ms),
        "severity": int(event.severity),
        "count": event.count,
    }


def explanation_object(found: Explanation) -> dict[str, Any]:
    """Return what a feed says to an indicator, as `omamori-feed explain --json` does."""
    return dataclasses.asdict(found)


def report_object(report: ReportFacts, where: Standing) -> dict[str, Any]:
    """Return a report of a false alarm and how far it has come."""
    decided = {"time": _time(report.decided_ms), "by": report.decided_by, "reason": report.reason}
    accepted = {"kind": report.accepted_kind, "indicator": report.accepted_indicator}
    return {
        "number": report.number,
        "created": _time(report.created_ms),
        "kind": report.kind.value,
        "indicator": report.indicator,
        "note": report.note,
        "reporter": report.reporter,
        "times": report.times,
        "device": report.device or None,
        "alert": report.alert_id,
        "terminal": {
            "ip": report.terminal_ip,
            "mac": None if report.terminal_mac is None else format_mac(report.terminal_mac),
        },
        "state": report.state.word,
        "decision": None if report.decided_ms is None else decided,
        "left_out": None if report.accepted_indicator is None else accepted,
        "progress": where.progress.value,
        "serial": where.serial or None,
        "boxes": {"waited_for": where.boxes, "updated": where.updated},
        "still_blocked": where.still,
    }
