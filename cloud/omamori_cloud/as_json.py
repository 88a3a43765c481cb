"""What scripts read: the same objects from the API and from the command line's ``--json``.

Closed choices are words, times RFC 3339 in UTC, unknown is null. Texts are as the box sent them: whoever shows them to
a person must treat them as hostile.
"""

from __future__ import annotations

from typing import Any

from omamori_protocol.device import format_mac
from omamori_protocol.vocabulary import WireEnum

from .clock import to_rfc3339
from .facts import BoxFacts, EventFacts
from .health import Health


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
        "refused_messages": box.refused,
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
