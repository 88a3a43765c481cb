"""The factory's file is read whole and exactly, or refused."""

import json
from typing import Any

import pytest

from omamori_protocol.errors import MalformedError, OversizeError, UnknownVersionError
from omamori_protocol.provision import MAX_BYTES, Provision, check_host, parse_provision

GOOD: dict[str, Any] = {
    "format": 1,
    "serial": "ZA35-000001",
    "claim": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "enrolment_url": "https://enrol.omamori.test:8443",
    "broker": {"host": "broker.omamori.test", "port": 8883},
    "repository_url": "https://repo.omamori.test:443",
    "channel": "demo",
}


def parse(**changes: Any) -> Provision:
    return parse_provision(json.dumps(GOOD | changes).encode())


def test_good_file_and_back() -> None:
    provision = parse()
    assert provision.serial == "ZA35-000001"
    assert (provision.broker_host, provision.broker_port) == ("broker.omamori.test", 8883)
    assert parse_provision(provision.to_json()) == provision


def test_strict_office_has_a_websocket_port_and_a_proxy() -> None:
    broker = GOOD["broker"] | {"websocket_port": 443}
    provision = parse(broker=broker, proxy={"host": "192.0.2.1", "port": 3128})
    assert (provision.websocket_port, provision.proxy) == (443, ("192.0.2.1", 3128))
    assert parse_provision(provision.to_json()) == provision
    assert (parse().websocket_port, parse().proxy) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"broker": GOOD["broker"] | {"websocket_port": 0}},
        {"broker": GOOD["broker"] | {"websocket_port": 65536}},
        {"broker": GOOD["broker"] | {"websocket_port": None}},
        {"broker": GOOD["broker"] | {"websocket_path": "/"}},
        {"proxy": None},
        {"proxy": {}},
        {"proxy": {"host": "proxy.test"}},
        {"proxy": {"host": "proxy.test", "port": 3128, "user": "x"}},
        {"proxy": {"host": "http://proxy.test", "port": 3128}},
        {"proxy": {"host": "proxy.test\r\nX: y", "port": 3128}},
        {"proxy": {"host": "proxy.test", "port": "3128"}},
        {"proxy": {"host": "proxy.test", "port": 65536}},
    ],
)
def test_way_for_a_strict_office_out_of_its_form(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse(**changes)


def test_claim_is_never_shown() -> None:
    assert GOOD["claim"] not in repr(parse())


def test_trailing_slash_of_an_address_is_dropped() -> None:
    assert parse(repository_url="https://repo.omamori.test/boxes/").repository_url == "https://repo.omamori.test/boxes"


@pytest.mark.parametrize("key", [key for key in GOOD if key != "format"])
def test_missing_key(key: str) -> None:
    with pytest.raises(MalformedError, match=key):
        parse_provision(json.dumps({name: value for name, value in GOOD.items() if name != key}).encode())


def test_unknown_key() -> None:
    with pytest.raises(MalformedError, match="colour"):
        parse(colour="red")


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_unknown_format(version: object) -> None:
    with pytest.raises(UnknownVersionError):
        parse(format=version)


@pytest.mark.parametrize(
    "changes",
    [
        {"serial": "za35-000001"},
        {"serial": "ABC"},
        {"serial": "A" * 33},
        {"serial": "-ZA35"},
        {"serial": 35},
        {"serial": "ZA35/../X"},
        {"serial": "ZA35-000001\n"},
        {"claim": "A" * 25},
        {"claim": "A" * 65},
        {"claim": "a" * 26},
        {"claim": "1" * 26},
        {"claim": None},
        {"enrolment_url": "http://enrol.omamori.test"},
        {"enrolment_url": "https://"},
        {"enrolment_url": "https://user@enrol.omamori.test"},
        {"enrolment_url": "https://enrol.omamori.test/?x=1"},
        {"enrolment_url": "https://enrol.omamori.test/#x"},
        {"enrolment_url": "https://enrol.omamori.test/" + "x" * 300},
        {"enrolment_url": 5},
        {"repository_url": "file:///etc/passwd"},
        {"broker": "broker.omamori.test"},
        {"broker": {"host": "broker.omamori.test"}},
        {"broker": {"host": "broker.omamori.test", "port": 8883, "tls": False}},
        {"broker": {"host": "Broker.omamori.test", "port": 8883}},
        {"broker": {"host": "broker omamori", "port": 8883}},
        {"broker": {"host": "", "port": 8883}},
        {"broker": {"host": "b" * 64, "port": 8883}},
        {"broker": {"host": "broker.omamori.test", "port": 0}},
        {"broker": {"host": "broker.omamori.test", "port": 65536}},
        {"broker": {"host": "broker.omamori.test", "port": "8883"}},
        {"broker": {"host": "broker.omamori.test", "port": True}},
        {"channel": "Demo"},
        {"channel": "demo/#"},
        {"channel": ""},
        {"channel": "d" * 33},
        {"channel": 5},
    ],
)
def test_value_out_of_its_form(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse(**changes)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000])
def test_not_an_object(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_provision(data)


def test_one_byte_more_than_allowed() -> None:
    padding = " " * (MAX_BYTES - len(json.dumps(GOOD)))
    assert parse_provision((json.dumps(GOOD) + padding).encode()).serial == "ZA35-000001"
    with pytest.raises(OversizeError):
        parse_provision((json.dumps(GOOD) + padding + " ").encode())


@pytest.mark.parametrize("host", ["a", "a.b", "198.51.100.20", "x" * 63, ".".join(["a" * 49] * 5)])
def test_host_names(host: str) -> None:
    assert check_host(host) == host


@pytest.mark.parametrize("host", ["-a", ".a", "a.", "a..b", "a_b", "[::1]", ".".join(["a" * 63] * 4), None])
def test_not_host_names(host: object) -> None:
    with pytest.raises(MalformedError):
        check_host(host)
