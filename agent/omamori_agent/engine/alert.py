"""What an alert of the engine means: one EVE record in, one event out.

Pure. Everything comes from traffic that an attacker may have shaped, so types are checked, texts lose their control
characters and are cut to what the message allows. A record that lacks what makes an alert is refused; an odd optional
part only stays out of the event.

* The terminal is the side inside the office: the one the gate has learned on a LAN port, else the private address.
  (The office's router has a private address too, but the gate never learns it: it is on the WAN port.)
* What the alert is, the rule says: ``metadata: omamori_function dangerous-site, omamori_severity 2,
  omamori_category games, omamori_direction out``. A rule that says nothing is an intrusion rule.
* Without a stated direction, a packet that the terminal sent goes out.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import json
from collections.abc import Callable, Mapping
from typing import Any

from omamori_agent.errors import RejectedError
from omamori_agent.text import clean_text
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Action, Direction, EventKind, Function, Severity

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MacLookup = Callable[[Address], bytes | None]

_HOME = tuple(
    ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")
)
_MAX_NAME = 255
_MAX_SID = 2**32 - 1
_ENGINE_SEVERITY = {1: Severity.TWO, 2: Severity.TWO}
_NO_PROTOCOL = frozenset({"", "failed", "unknown"})


class AlertRejectedError(RejectedError):
    """A line of the engine's output is not an alert that can be told."""


@dataclasses.dataclass(frozen=True)
class Alert:
    """An alert as an event, and what tells its twins apart from other alerts.

    `origin` is the same for alerts that two rules raised about the same transaction, and None when that cannot be
    told.
    """

    event: Event
    origin: tuple[int, int] | None


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of an EVE line, or None if it is no alert.

    Raises:
        AlertRejectedError: Not a JSON object.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise AlertRejectedError(f"EVE line is not JSON: {str(err)[:80]}") from err
    if not isinstance(record, dict):
        raise AlertRejectedError("EVE line is not an object")
    return record if record.get("event_type") == "alert" else None


def read_alert(record: Mapping[str, Any], mac_of: MacLookup, *, now_ms: int) -> Alert:
    """Turn an EVE alert record into an event.

    Args:
        record: The record, as `parse_line` returned it.
        mac_of: MAC address of a terminal that the gate knows, else None.
        now_ms: Unix time in milliseconds, for a record without a usable time.

    Raises:
        AlertRejectedError: Addresses, rule id, rule text or action are missing or not what they must be.
    """
    alert = record.get("alert")
    if not isinstance(alert, dict):
        raise AlertRejectedError("alert record without alert")
    metadata = _metadata(alert.get("metadata"))
    source = _Side(_address(record, "src_ip"), _port(record.get("src_port")), mac_of)
    target = _Side(_address(record, "dest_ip"), _port(record.get("dest_port")), mac_of)
    terminal, remote = (source, target) if _is_terminal(source, target) else (target, source)
    computed = Direction.OUT if terminal is source else Direction.IN
    rule_id = alert.get("signature_id")
    if type(rule_id) is not int or not 0 <= rule_id <= _MAX_SID:
        raise AlertRejectedError("alert without a rule id")
    function = _choice(metadata, "omamori_function", Function.from_word, Function.IPS)
    event = Event(
        boot=0,
        seq=0,
        at_ms=_time_ms(record.get("timestamp"), now_ms),
        kind=EventKind.ALERT,
        function=Function(function),
        severity=_severity(metadata, alert),
        direction=Direction(_choice(metadata, "omamori_direction", Direction.from_word, computed)),
        action=_action(alert),
        terminal_ip=str(terminal.address),
        terminal_mac=terminal.mac,
        destination=(_name(record) if _is_opener(record, terminal) else None) or str(remote.address),
        remote_ip=str(remote.address),
        remote_port=remote.port,
        protocol=_protocol(record),
        rule_id=rule_id,
        rule=_required_text(alert, "signature", 200),
        category=_optional_text(metadata.get("omamori_category"), 40),
    )
    return Alert(event, _origin(record))


class _Side:
    """One end of the packet."""

    def __init__(self, address: Address, port: int | None, mac_of: MacLookup) -> None:
        self.address = address
        self.port = port
        self.mac = mac_of(address)
        self.is_private = any(address in network for network in _HOME)


def _is_terminal(one: _Side, other: _Side) -> bool:
    """Return whether `one` rather than `other` is the terminal; in doubt the sender is."""
    if (one.mac is None) != (other.mac is None):
        return one.mac is not None
    if one.is_private != other.is_private:
        return one.is_private
    return True


def _is_opener(record: Mapping[str, Any], terminal: _Side) -> bool:
    """Return whether the terminal opened the connection; only then a name in it is the name of the other side."""
    flow = _part(record, "flow")
    return "src_ip" not in flow or _address(flow, "src_ip") == terminal.address


def _address(record: Mapping[str, Any], key: str) -> Address:
    text = record.get(key)
    if not isinstance(text, str) or len(text) > 64:
        raise AlertRejectedError(f"alert without {key}")
    try:
        address = ipaddress.ip_address(text)
    except ValueError as err:
        raise AlertRejectedError(f"{key} is not an address") from err
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        raise AlertRejectedError(f"{key} has a zone")
    return address


def _port(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= 65535 else None


def _metadata(value: Any) -> dict[str, str]:
    """Return the first word of each key: the engine gives a list for each."""
    if not isinstance(value, dict):
        return {}
    return {
        key: words[0]
        for key, words in value.items()
        if isinstance(words, list) and words and isinstance(words[0], str) and len(words[0]) <= 64
    }


def _choice(metadata: Mapping[str, str], key: str, read: Callable[[str], Any], default: Any) -> Any:
    try:
        return read(metadata[key])
    except (KeyError, ValueError):
        return default


def _severity(metadata: Mapping[str, str], alert: Mapping[str, Any]) -> Severity:
    own = _ENGINE_SEVERITY.get(alert["severity"], Severity.ONE) if type(alert.get("severity")) is int else Severity.ONE
    return Severity(_choice(metadata, "omamori_severity", lambda word: Severity(int(word)), own))


def _action(alert: Mapping[str, Any]) -> Action:
    match alert.get("action"):
        case "blocked":
            return Action.BLOCKED
        case "allowed":
            return Action.LOGGED
        case _:
            raise AlertRejectedError("alert without an action")


def _required_text(body: Mapping[str, Any], key: str, maximum: int) -> str:
    text = _optional_text(body.get(key), maximum)
    if text is None:
        raise AlertRejectedError(f"alert without {key}")
    return text


def _optional_text(value: Any, maximum: int) -> str | None:
    return (clean_text(value, maximum) or None) if isinstance(value, str) else None


def _time_ms(value: Any, now_ms: int) -> int:
    """Return EVE's time in milliseconds; what cannot be read, or lies before 1970, is now."""
    if not isinstance(value, str) or len(value) > 40:
        return now_ms
    try:
        at = dt.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%f%z")
    except ValueError:
        return now_ms
    return max(int(at.timestamp() * 1000), 0) or now_ms


def _protocol(record: Mapping[str, Any]) -> str | None:
    application = record.get("app_proto")
    if isinstance(application, str) and application not in _NO_PROTOCOL:
        return clean_text(application, 16)
    transport = _optional_text(record.get("proto"), 16)
    return transport.lower() if transport else None


def _part(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _name(record: Mapping[str, Any]) -> str | None:
    """Return the name the terminal asked for: TLS or QUIC server name, HTTP host, DNS question."""
    queries = _part(record, "dns").get("queries")
    question = queries[0] if isinstance(queries, list) and queries and isinstance(queries[0], dict) else {}
    for value in (
        _part(record, "tls").get("sni"),
        _part(record, "quic").get("sni"),
        _part(record, "http").get("hostname"),
        question.get("rrname"),
    ):
        name = _optional_text(value, _MAX_NAME)
        if name:
            return name.lower().rstrip(".")[:_MAX_NAME] or None
    return None


def _origin(record: Mapping[str, Any]) -> tuple[int, int] | None:
    flow, transaction = record.get("flow_id"), record.get("tx_id")
    return (flow, transaction) if type(flow) is int and type(transaction) is int else None
