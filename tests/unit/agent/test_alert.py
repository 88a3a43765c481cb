"""What an EVE alert becomes: the mapping, and what an attacker can put into it."""

from __future__ import annotations

import contextlib
import copy
import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.engine.alert import AlertRejectedError, parse_line, read_alert
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Action, Direction, EventKind, Function, Severity

PC1 = "192.168.10.11"
MAC = bytes.fromhex("02005e100001")
NOW_MS = 1_790_000_000_000
# As Suricata 8.0.8 writes it, shortened.
DNS: dict[str, Any] = {
    "timestamp": "2026-11-22T04:12:18.087305+0000",
    "flow_id": 1234567890123456,
    "event_type": "alert",
    "src_ip": PC1,
    "src_port": 40000,
    "dest_ip": "192.168.10.1",
    "dest_port": 53,
    "proto": "UDP",
    "ip_v": 4,
    "pkt_src": "wire/pcap",
    "tx_id": 0,
    "alert": {
        "action": "blocked",
        "gid": 1,
        "signature_id": 1910000,
        "rev": 1,
        "signature": "Dangerous site: dangerous",
        "category": "",
        "severity": 3,
        "metadata": {"omamori_function": ["dangerous-site"], "omamori_severity": ["2"]},
    },
    "app_proto": "dns",
    "direction": "to_server",
    "dns": {"version": 3, "type": "request", "queries": [{"rrname": "malware.test", "rrtype": "A"}]},
}
VIRUS: dict[str, Any] = {
    **DNS,
    "src_ip": "198.51.100.10",
    "src_port": 80,
    "dest_ip": PC1,
    "dest_port": 40001,
    "proto": "TCP",
    "app_proto": "http",
    "direction": "to_client",
    "http": {"hostname": "web.example", "url": "/eicar.com"},
    "alert": {
        **DNS["alert"],
        "signature": "Known malware: malware",
        "metadata": {"omamori_function": ["virus"], "omamori_severity": ["3"], "omamori_direction": ["in"]},
    },
}
del VIRUS["dns"]
IPS: dict[str, Any] = {
    "timestamp": "2026-11-22T04:12:18.087305+0000",
    "flow_id": 5,
    "event_type": "alert",
    "src_ip": "203.0.113.66",
    "src_port": 55555,
    "dest_ip": PC1,
    "dest_port": 445,
    "proto": "TCP",
    "app_proto": "failed",
    "alert": {"action": "allowed", "signature_id": 7, "signature": "exploit", "severity": 1},
}


def know(*addresses: str) -> Any:
    known = {ipaddress.ip_address(text) for text in addresses}
    return lambda address: MAC if address in known else None


def read(record: dict[str, Any], *, known: tuple[str, ...] = (PC1,)) -> Event:
    event = read_alert(record, know(*known), now_ms=NOW_MS).event
    assert len(event.encode()) <= Event.MAX_BYTES
    return event


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    body = copy.deepcopy(record)
    *way, last = path.split(".")
    place = body
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return body


def test_blocked_name() -> None:
    event = read(DNS)
    assert event.kind is EventKind.ALERT
    assert (event.function, event.severity) == (Function.DANGEROUS_SITE, Severity.TWO)
    assert (event.direction, event.action) == (Direction.OUT, Action.BLOCKED)
    assert (event.terminal_ip, event.terminal_mac) == (PC1, MAC)
    assert event.destination == "malware.test"
    assert (event.remote_ip, event.remote_port, event.protocol) == ("192.168.10.1", 53, "dns")
    assert (event.rule_id, event.rule) == (1910000, "Dangerous site: dangerous")
    assert event.at_ms == 1795320738087
    assert event.count == 1


def test_terminal_of_a_download_is_who_receives_it() -> None:
    event = read(VIRUS)
    assert (event.function, event.severity, event.direction) == (Function.VIRUS, Severity.THREE, Direction.IN)
    assert (event.terminal_ip, event.terminal_mac) == (PC1, MAC)
    assert (event.destination, event.remote_ip, event.remote_port) == ("web.example", "198.51.100.10", 80)


def test_attack_on_an_office_server_shows_the_attacker_not_the_server_as_the_other_side() -> None:
    attack = {
        **VIRUS,
        "src_ip": "203.0.113.66",
        "direction": "to_server",
        "flow": {"src_ip": "203.0.113.66", "dest_ip": PC1},
        "http": {"hostname": "srv.office.test", "url": "/"},
    }
    assert read(attack).destination == "203.0.113.66"
    download = {**VIRUS, "flow": {"src_ip": PC1, "dest_ip": "198.51.100.10"}}
    assert read(download).destination == "web.example"


def test_rule_without_our_metadata_is_an_intrusion_rule() -> None:
    event = read(IPS)
    assert (event.function, event.severity) == (Function.IPS, Severity.TWO)
    assert (event.direction, event.action, event.category) == (Direction.IN, Action.LOGGED, None)
    assert (event.destination, event.protocol) == ("203.0.113.66", "tcp")


@pytest.mark.parametrize(
    ("own", "severity"),
    [
        (1, Severity.TWO),
        (2, Severity.TWO),
        (3, Severity.ONE),
        (4, Severity.ONE),
        ("1", Severity.ONE),
        (True, Severity.ONE),
    ],
)
def test_severity_of_a_rule_without_our_metadata(own: Any, severity: Severity) -> None:
    assert read(changed(IPS, "alert.severity", own)).severity is severity


@pytest.mark.parametrize("word", ["0", "4", "two", "", "²", "-1"])
def test_severity_word_that_says_nothing(word: str) -> None:
    assert read(changed(DNS, "alert.metadata.omamori_severity", [word])).severity is Severity.ONE


@pytest.mark.parametrize("value", [["nothing"], [], "virus", [3], {}, ["x" * 1000]])
def test_function_word_that_says_nothing(value: Any) -> None:
    assert read(changed(DNS, "alert.metadata.omamori_function", value)).function is Function.IPS


def test_category() -> None:
    metadata = {"omamori_function": ["category"], "omamori_category": ["games"], "omamori_severity": ["1"]}
    event = read(changed(DNS, "alert.metadata", metadata))
    assert (event.function, event.category) == (Function.CATEGORY, "games")


def test_router_has_a_private_address_but_is_no_terminal() -> None:
    answer = DNS | {"src_ip": "192.168.10.1", "src_port": 53, "dest_ip": PC1, "dest_port": 40000}
    assert read(answer).terminal_ip == PC1
    assert read(answer).direction is Direction.IN


def test_gate_that_knows_nobody() -> None:
    event = read(IPS, known=())
    assert (event.terminal_ip, event.terminal_mac, event.direction) == (PC1, None, Direction.IN)


def test_two_terminals() -> None:
    event = read(IPS | {"src_ip": "192.168.10.12"}, known=(PC1, "192.168.10.12"))
    assert (event.terminal_ip, event.direction) == ("192.168.10.12", Direction.OUT)


def test_no_private_side_at_all() -> None:
    event = read(IPS | {"dest_ip": "198.51.100.7"}, known=())
    assert (event.terminal_ip, event.remote_ip, event.direction) == ("203.0.113.66", "198.51.100.7", Direction.OUT)


def test_ipv6_is_written_short() -> None:
    record = IPS | {
        "src_ip": "2001:0db8:0bad:0000:0000:0000:0000:0099",
        "dest_ip": "fd00:0010:0000:0000:0000:0000:0000:0011",
    }
    event = read(record, known=())
    assert (event.terminal_ip, event.remote_ip) == ("fd00:10::11", "2001:db8:bad::99")


def test_icmp_has_no_ports() -> None:
    record = changed(changed(IPS, "src_port", ...), "dest_port", ...) | {"proto": "IPv6-ICMP"}
    event = read(record)
    assert (event.remote_port, event.protocol) == (None, "ipv6-icmp")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("tls", {"sni": "Bad.Test."}),
        ("quic", {"sni": "bad.test"}),
        ("http", {"hostname": "bad.test"}),
        ("dns", {"queries": [{"rrname": "bad.test"}]}),
    ],
)
def test_name_of_the_destination(part: str, value: Any) -> None:
    assert read(IPS | {part: value}).destination == "bad.test"


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("tls", {}),
        ("tls", {"sni": ""}),
        ("tls", {"sni": 5}),
        ("tls", []),
        ("http", {"hostname": "\n\t"}),
        ("http", {"hostname": "."}),
        ("dns", {"queries": []}),
        ("dns", {"queries": {"rrname": "bad.test"}}),
        ("dns", {"queries": ["bad.test"]}),
        ("dns", {"queries": [{"rrname": None}]}),
    ],
)
def test_destination_without_a_usable_name_is_the_address(part: str, value: Any) -> None:
    assert read(IPS | {part: value}).destination == "203.0.113.66"


def test_texts_are_cut_and_cleaned() -> None:
    record = changed(DNS, "alert.signature", "evil\x00\x1b[31m\r\nrule " + "x" * 1000)
    record["dns"]["queries"][0]["rrname"] = "a" * 5000
    record["alert"]["metadata"]["omamori_category"] = ["c" * 60]
    record["app_proto"] = "p" * 40
    event = read(record)
    assert event.rule is not None
    assert event.rule.startswith("evil [31m rule xxx")
    assert len(event.rule) == 200
    assert event.destination is not None
    assert len(event.destination) == 255
    assert event.category is not None
    assert len(event.category) == 40
    assert event.protocol is not None
    assert len(event.protocol) == 16


@pytest.mark.parametrize("value", [None, "", "yesterday", "1969-12-31T23:59:59.000000+0000", 5, "9" * 100])
def test_time_that_says_nothing_is_now(value: Any) -> None:
    assert read(DNS | {"timestamp": value}).at_ms == NOW_MS


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("alert", ...),
        ("alert", []),
        ("src_ip", ...),
        ("src_ip", "nobody"),
        ("src_ip", 5),
        ("src_ip", "1" * 100),
        ("dest_ip", "fe80::1%eth0"),
        ("alert.signature_id", ...),
        ("alert.signature_id", -1),
        ("alert.signature_id", 2**32),
        ("alert.signature_id", True),
        ("alert.signature_id", "7"),
        ("alert.signature", ...),
        ("alert.signature", ""),
        ("alert.signature", "\x00\x01"),
        ("alert.signature", 7),
        ("alert.action", ...),
        ("alert.action", "dropped"),
    ],
)
def test_record_that_lacks_what_makes_an_alert(path: str, value: Any) -> None:
    with pytest.raises(AlertRejectedError):
        read(changed(DNS, path, value))


@pytest.mark.parametrize("port", [-1, 65536, "80", 1.5, True, None])
def test_port_that_is_none_stays_out(port: Any) -> None:
    assert read(VIRUS | {"src_port": port}).remote_port is None


def test_origin_is_the_transaction() -> None:
    assert read_alert(DNS, know(), now_ms=NOW_MS).origin == (1234567890123456, 0)
    assert read_alert(IPS, know(), now_ms=NOW_MS).origin is None


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_line_that_is_no_record(line: bytes) -> None:
    with pytest.raises(AlertRejectedError):
        parse_line(line)


def test_line_that_is_no_alert() -> None:
    assert parse_line(b'{"event_type":"stats"}') is None
    assert parse_line(json.dumps(DNS).encode()) == DNS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda kids: st.lists(kids, max_size=4) | st.dictionaries(st.text(max_size=20), kids, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from(sorted({*DNS, *VIRUS})), JSON)
def test_any_value_in_any_place_gives_an_event_or_a_refusal(key: str, value: Any) -> None:
    with contextlib.suppress(AlertRejectedError):
        read(VIRUS | {key: value})


@given(st.sampled_from(sorted(DNS["alert"])), JSON)
def test_any_value_in_the_alert_gives_an_event_or_a_refusal(key: str, value: Any) -> None:
    with contextlib.suppress(AlertRejectedError):
        read(changed(DNS, f"alert.{key}", value))
