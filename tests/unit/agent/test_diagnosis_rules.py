"""Which code a box shows in which situation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from omamori_agent.diagnosis.facts import Contact, Facts, Port
from omamori_agent.diagnosis.rules import ENGINE_PATIENCE_S, diagnose, is_double_router, is_hot
from omamori_protocol.trouble import COOL_CELSIUS, HOT_CELSIUS, LOW_MILLIVOLTS, Trouble, trouble_of

BOTH = (Port(name="wan", has_carrier=True), Port(name="lan1", has_carrier=True))
FINE = Facts(
    ports=BOTH,
    address="192.168.10.5",
    gateway="192.168.10.1",
    gateway_answers=True,
    gateway_port="wan",
    is_connected=True,
)


def ports(**carrier: bool) -> tuple[Port, ...]:
    return tuple(Port(name=name, has_carrier=has) for name, has in carrier.items())


def cut_off(**contacts: Contact) -> dict[str, Any]:
    return {"is_connected": False, "contacts": contacts}


CASES: dict[str, tuple[dict[str, Any], list[Trouble]]] = {
    "all is well": ({}, []),
    "no cable": ({"ports": ports(wan=False, lan1=False)}, [Trouble.NO_CABLE]),
    "router's cable out": (
        {"ports": ports(wan=False, lan1=True), "gateway_port": "", "is_connected": False},
        [Trouble.NO_WAN_CABLE],
    ),
    "router in the office's port, nothing in its own": (
        {"ports": ports(wan=False, lan1=True, lan2=True), "gateway_port": "lan1"},
        [Trouble.SWAPPED],
    ),
    "office's cable out": ({"ports": ports(wan=True, lan1=False)}, [Trouble.NO_LAN_CABLE]),
    "an office on Wi-Fi alone": ({"ports": ports(wan=True, lan1=False, wlan0=True)}, []),
    "one of two office ports empty": ({"ports": ports(wan=True, lan1=True, lan2=False)}, []),
    "swapped": ({"gateway_port": "lan1"}, [Trouble.SWAPPED]),
    "swapped and cut off": ({"gateway_port": "lan1", **cut_off()}, [Trouble.SWAPPED]),
    "a router on the radio is no swap": ({"ports": (*BOTH, *ports(wlan0=True)), "gateway_port": "wlan0"}, []),
    "loop": ({"is_looping": True}, [Trouble.LOOP]),
    "hot": ({"is_hot": True}, [Trouble.HOT]),
    "hot and without a cable": (
        {"is_hot": True, "ports": ports(wan=False, lan1=False)},
        [Trouble.NO_CABLE, Trouble.HOT],
    ),
    "loop before swapped": ({"is_looping": True, "gateway_port": "lan1"}, [Trouble.LOOP]),
    "no DHCP": ({"address": "", "gateway": "", **cut_off()}, [Trouble.NO_DHCP]),
    "IPv6 alone is enough": ({"address": "", "gateway": "", "has_ipv6": True, "is_connected": True}, []),
    "no router": ({"gateway": "", **cut_off()}, [Trouble.NO_ROUTER]),
    "router silent": ({"gateway_answers": False, **cut_off()}, [Trouble.ROUTER_SILENT]),
    "router not asked yet": ({"gateway_answers": None, **cut_off()}, []),
    "not tried yet": (cut_off(), []),
    "no names": (cut_off(repository=Contact.NO_NAME, broker=Contact.NO_NAME), [Trouble.NO_NAMES]),
    "nobody answers about names": (
        cut_off(repository=Contact.NO_ANSWER_ABOUT_NAME, broker=Contact.NO_ANSWER_ABOUT_NAME),
        [Trouble.NO_INTERNET],
    ),
    "the router has no way": (cut_off(repository=Contact.NO_WAY, broker=Contact.SILENT), [Trouble.NO_INTERNET]),
    "all silent": (cut_off(repository=Contact.SILENT, broker=Contact.SILENT), [Trouble.SERVICE_UNREACHABLE]),
    "all refuse": (cut_off(repository=Contact.REFUSED, broker=Contact.REFUSED), [Trouble.SERVICE_UNREACHABLE]),
    "portal": (cut_off(repository=Contact.FOREIGN, broker=Contact.SILENT), [Trouble.PORTAL]),
    "clock": (cut_off(repository=Contact.OTHER_TIME, broker=Contact.OTHER_TIME), [Trouble.CLOCK_WRONG]),
    "broker down": (cut_off(repository=Contact.REACHED, broker=Contact.REFUSED), [Trouble.BROKER_UNREACHABLE]),
    "broker's port blocked": (cut_off(repository=Contact.REACHED, broker=Contact.SILENT), [Trouble.BROKER_UNREACHABLE]),
    "broker refuses us": (cut_off(repository=Contact.REACHED, broker=Contact.REACHED), [Trouble.BROKER_REFUSES]),
    "claim refused": (
        {"is_enrolled": False, **cut_off(repository=Contact.REACHED, enrolment=Contact.REACHED)},
        [Trouble.CLAIM_REFUSED],
    ),
    "enrolment down": (
        {"is_enrolled": False, **cut_off(repository=Contact.REACHED, enrolment=Contact.SILENT)},
        [Trouble.SERVICE_UNREACHABLE],
    ),
    "no wire": ({"is_wire_whole": False}, [Trouble.NO_WIRE]),
    "engine down": ({"engine_down_s": ENGINE_PATIENCE_S + 1}, [Trouble.ENGINE_DOWN]),
    "engine starting": ({"engine_down_s": ENGINE_PATIENCE_S}, []),
    "double router": ({"second_hop": "192.168.1.1"}, [Trouble.DOUBLE_ROUTER]),
    "double router comes last": (
        {"second_hop": "192.168.1.1", "gateway_port": "lan1"},
        [Trouble.SWAPPED, Trouble.DOUBLE_ROUTER],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_code_of_a_situation(name: str) -> None:
    changes, troubles = CASES[name]
    assert list(diagnose(dataclasses.replace(FINE, **changes))) == troubles


@pytest.mark.parametrize(
    ("gateway", "second", "is_double"),
    [
        ("192.168.1.1", "10.0.0.1", True),
        ("192.168.1.1", "172.31.255.1", True),
        ("192.168.1.1", "172.32.0.1", False),
        ("192.168.1.1", "100.64.0.1", False),
        ("192.168.1.1", "203.0.113.1", False),
        ("192.168.1.1", "192.168.1.1", False),
        ("192.168.1.1", "", False),
        ("", "10.0.0.1", False),
        ("192.168.1.1", "2001:db8::1", False),
        ("192.168.1.1", "nonsense", False),
    ],
)
def test_double_router(gateway: str, second: str, is_double: bool) -> None:
    assert is_double_router(gateway, second) is is_double


def test_codes_can_be_blinked_and_are_not_the_supervisors() -> None:
    for trouble in Trouble:
        digits = f"{trouble:d}"
        assert len(digits) == 4
        assert "0" not in digits
        assert digits[0] in "789"


def test_a_code_of_a_newer_box_is_none_of_ours() -> None:
    assert trouble_of(7121) is Trouble.SWAPPED
    assert trouble_of(9999) is None
    assert trouble_of(0) is None
    assert trouble_of(None) is None


@pytest.mark.parametrize(
    ("celsius", "was_hot", "expected"),
    [
        (None, False, False),
        (None, True, False),  # nobody knows any more
        (HOT_CELSIUS - 1, False, False),
        (HOT_CELSIUS, False, True),
        (HOT_CELSIUS - 1, True, True),
        (COOL_CELSIUS, True, True),
        (COOL_CELSIUS - 1, True, False),
    ],
)
def test_when_a_box_is_hot(celsius: int | None, *, was_hot: bool, expected: bool) -> None:
    assert is_hot(celsius, was_hot=was_hot) is expected


def test_hot_is_what_the_supervisor_calls_so() -> None:
    root = Path(__file__).parents[3] / "hw/supervisor/lib/supervisor"
    assert f"\nHOT_CELSIUS = {HOT_CELSIUS}\n" in (root / "app.py").read_text()
    assert f"\nRAIL_LOW_MV = {LOW_MILLIVOLTS}\n" in (root / "words.py").read_text()
