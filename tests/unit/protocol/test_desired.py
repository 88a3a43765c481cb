"""Desired state, commands and reports: golden vectors, and every rule of them broken once."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol import cbor, command, desired, reported
from omamori_protocol.command import Command, Moment, Verb
from omamori_protocol.cose import OVERHEAD_BYTES
from omamori_protocol.desired import (
    MAX_EXEMPTIONS,
    AddressMode,
    AddressSettings,
    DesiredState,
    Exemption,
    ExemptionKind,
    FeedSettings,
    FirmwareSettings,
    FirmwareWindow,
    Metered,
    Policy,
    WifiSecurity,
    WifiSettings,
)
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError, UnknownVersionError
from omamori_protocol.record import Checked, Choice, Nested, Octets, Record, Several
from omamori_protocol.reported import MAX_REASON_LENGTH, PartName, PartReport, PartState, Reported

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "desired.json").read_text(encoding="utf-8"))["messages"]
TYPES: dict[str, type[Record]] = {
    name: value
    for module in (desired, command, reported)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Record)
}
WIFI = WifiSettings(
    enabled=True,
    ssid="office",
    passphrase="correct horse",
    channel=6,
    country="JP",
    security=WifiSecurity.WPA2,
    isolation=False,
)
STATIC = AddressSettings(mode=AddressMode.STATIC, ipv4="192.168.10.5/24", gateway="192.168.10.1", dns=("192.168.10.1",))
FIRMWARE = FirmwareSettings(
    version="1.4.0",
    window=FirmwareWindow(days=0b001_1111, start_min=120, length_min=180, zone="Asia/Tokyo"),
    max_wait_s=7 * 86400,
    metered=Metered.ASK,
    rate_kbps=4000,
    owner_refuses_scheduled=False,
)
DOCUMENT = DesiredState(device="ZA35-000001", version=1, issued_s=1000, expires_s=2000)


def value_of(kind: Any, value: Any) -> Any:
    match kind:
        case Checked():
            return value_of(kind.kind, value)
        case Choice():
            return kind.enum.from_word(value)
        case Octets():
            return bytes.fromhex(value)
        case Nested():
            return record_of(kind.record, value)
        case Several():
            return tuple(value_of(kind.kind, item) for item in value)
    return value


def record_of(record: type[Record], fields: dict[str, Any]) -> Record:
    kinds = {field.name: field.metadata["kind"] for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    return record(**{name: value_of(kinds[name], value) for name, value in fields.items()})


def body(record: Record) -> dict[int, Any]:
    value = cbor.decode(record.encode(), max_bytes=type(record).MAX_BYTES, max_items=MAX_EXEMPTIONS + 1)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_golden_vector(vector: dict[str, Any]) -> None:
    kind = TYPES[vector["message"]]
    message = record_of(kind, vector["fields"])
    assert message.encode().hex() == vector["hex"]
    assert kind.decode(bytes.fromhex(vector["hex"])) == message


def test_every_message_has_a_golden_vector() -> None:
    assert {vector["message"] for vector in VECTORS} == {"DesiredState", "Command", "Reported"}


@pytest.mark.parametrize("kind", [DesiredState, Command, Reported])
def test_arbitrary_bytes_never_do_more_than_be_refused(kind: type[Record]) -> None:
    @given(
        st.binary(max_size=80)
        | st.dictionaries(st.integers(0, 10), st.integers() | st.text() | st.lists(st.integers()), max_size=12).map(
            cbor.encode
        )
    )
    def check(data: bytes) -> None:
        try:
            kind.decode(data)
        except ProtocolError:
            return

    check()


def test_the_longest_document_fits() -> None:
    exemptions = tuple(
        Exemption(
            id=2**32 - 1 - number,
            kind=ExemptionKind.TERMINAL_IP,
            value=f"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ff{number:02x}/128",
            until_s=2**63 - 1,
        )
        for number in range(MAX_EXEMPTIONS)
    )
    document = dataclasses.replace(
        DOCUMENT,
        wifi=dataclasses.replace(WIFI, ssid="守" * 10, passphrase="x" * 63),
        address=dataclasses.replace(STATIC, dns=("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",) * 3),
        policy=Policy(fail_closed=True),
        exemptions=exemptions,
        firmware=dataclasses.replace(FIRMWARE, version="999999.999999.999999-dev.999999"),
        feed=FeedSettings(channel="x" * 32),
    )
    assert len(document.encode()) <= DesiredState.MAX_BYTES
    assert DesiredState.decode(document.encode()) == document
    too_many = body(document)
    too_many[8].append({1: 1, 2: 4, 3: "1"})
    with pytest.raises(OversizeError, match="257 items"):
        DesiredState.decode(cbor.encode(too_many))
    with pytest.raises(OversizeError):
        DesiredState.decode(bytes(DesiredState.MAX_BYTES + 1))


def test_the_longest_report_fits() -> None:
    reason = "理" * MAX_REASON_LENGTH
    whole = Reported(
        at_s=2**63 - 1,
        version=2**32 - 1,
        state=PartState.PENDING,
        parts=tuple(
            PartReport(part=part, state=PartState.REFUSED, reason="x" * MAX_REASON_LENGTH) for part in PartName
        ),
        refused_version=2**32 - 1,
        refused_reason="x" * MAX_REASON_LENGTH,
        command_id=bytes(8),
        command_state=PartState.REFUSED,
        command_reason="x" * MAX_REASON_LENGTH,
        bypass_until_s=2**63 - 1,
    )
    assert len(whole.encode()) <= Reported.MAX_BYTES
    assert OVERHEAD_BYTES < 100
    with pytest.raises(OversizeError):
        dataclasses.replace(whole, refused_reason=reason + "x").encode()


@pytest.mark.parametrize("path", [(), (5,), (6,), (7,), (8, 0), (9,), (9, 2)])
def test_an_unknown_key_anywhere_makes_the_document_unacceptable(path: tuple[int, ...]) -> None:
    whole = dataclasses.replace(
        DOCUMENT,
        wifi=WIFI,
        address=STATIC,
        policy=Policy(fail_closed=False),
        exemptions=(Exemption(id=1, kind=ExemptionKind.RULE, value="7"),),
        firmware=FIRMWARE,
    )
    plain: Any = body(whole)
    assert DesiredState.decode(cbor.encode(plain)) == whole
    inner = plain
    for key in path:
        inner = inner[key]
    inner[99] = 1
    with pytest.raises(MalformedError, match="unknown key 99"):
        DesiredState.decode(cbor.encode(plain))


def test_the_passphrase_shows_nowhere() -> None:
    assert WIFI.passphrase not in repr(WIFI)
    document = body(dataclasses.replace(DOCUMENT, wifi=WIFI))
    for passphrase in ("seven 7", "a" * 64, "パスワードです12345"):
        document[5][3] = passphrase
        with pytest.raises(ProtocolError) as caught:
            DesiredState.decode(cbor.encode(document))
        assert passphrase not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ssid", ""),
        ("ssid", "x" * 33),
        ("ssid", "守" * 11),
        ("ssid", "a\0b"),
        ("passphrase", "1234567"),
        ("passphrase", "x" * 64),
        ("passphrase", "tab\there"),
        ("channel", 14),
        ("channel", -1),
        ("country", "jp"),
        ("country", "J"),
        ("country", "JPN"),
        ("security", 3),
        ("enabled", 1),
        ("isolation", None),
    ],
)
def test_wifi_setting_that_cannot_be(field: str, value: Any) -> None:
    plain = body(dataclasses.replace(DOCUMENT, wifi=WIFI))
    key = next(item.metadata["key"] for item in dataclasses.fields(WifiSettings) if item.name == field)
    plain[5][key] = value
    with pytest.raises(ProtocolError, match=field):
        DesiredState.decode(cbor.encode(plain))


@pytest.mark.parametrize("ssid", ["x", "x" * 32, "お守り-2F", "守" * 10])
def test_ssid_that_can_be(ssid: str) -> None:
    assert record_there_and_back(dataclasses.replace(WIFI, ssid=ssid)).ssid == ssid


def record_there_and_back(record: Any) -> Any:
    return type(record).from_body(record.to_body())


@pytest.mark.parametrize(
    "changes",
    [
        {"ipv4": None},
        {"gateway": None},
        {"dns": ()},
        {"ipv4": "192.168.10.5"},
        {"ipv4": "192.168.10.0/24"},
        {"ipv4": "192.168.10.255/24"},
        {"ipv4": "192.168.10.5/31"},
        {"ipv4": "192.168.10.5/7"},
        {"ipv4": "192.168.10.5/255.255.255.0"},
        {"ipv4": "192.168.010.5/24"},
        {"ipv4": "127.0.0.5/8"},
        {"ipv4": "224.0.0.5/24"},
        {"ipv4": "2001:db8::5/64"},
        {"ipv4": "192.168.10.5/24\n"},
        {"gateway": "192.168.11.1"},
        {"gateway": "192.168.10.5"},
        {"gateway": "192.168.10.255"},
        {"gateway": "router"},
        {"dns": ("192.168.10.1",) * 4},
        {"dns": ("dns.example",)},
        {"dns": ("0.0.0.0",)},
        {"dns": ("2001:DB8::53",)},
        {"mode": AddressMode.DHCP},
    ],
)
def test_address_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        dataclasses.replace(STATIC, **changes).to_body()


def test_addresses_that_can_be() -> None:
    assert record_there_and_back(STATIC) == STATIC
    assert record_there_and_back(AddressSettings(mode=AddressMode.DHCP)) == AddressSettings(mode=AddressMode.DHCP)
    both = dataclasses.replace(STATIC, ipv4="10.0.0.1/8", gateway="10.255.0.1", dns=("2001:db8::53", "10.0.0.9"))
    assert record_there_and_back(both) == both


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ExemptionKind.TERMINAL_MAC, "02:5E:10:00:00:01"),
        (ExemptionKind.TERMINAL_MAC, "02-5e-10-00-00-01"),
        (ExemptionKind.TERMINAL_MAC, "01:00:5e:00:00:01"),
        (ExemptionKind.TERMINAL_MAC, "ff:ff:ff:ff:ff:ff"),
        (ExemptionKind.TERMINAL_MAC, "00:00:00:00:00:00"),
        (ExemptionKind.TERMINAL_MAC, "192.168.10.1"),
        (ExemptionKind.TERMINAL_IP, "0.0.0.0/0"),
        (ExemptionKind.TERMINAL_IP, "10.0.0.0/7"),
        (ExemptionKind.TERMINAL_IP, "192.168.10.5/24"),
        (ExemptionKind.TERMINAL_IP, "224.0.0.1"),
        (ExemptionKind.TERMINAL_IP, "2001::/15"),
        (ExemptionKind.TERMINAL_IP, "::ffff:192.168.10.5"),
        (ExemptionKind.TERMINAL_IP, "pc-7"),
        (ExemptionKind.DESTINATION, "example.com"),
        (ExemptionKind.DESTINATION, "::/16"),
        (ExemptionKind.DESTINATION, "2001:DB8::1"),
        (ExemptionKind.RULE, "0"),
        (ExemptionKind.RULE, "-1"),
        (ExemptionKind.RULE, "1.5"),
        (ExemptionKind.RULE, str(2**32)),
        (ExemptionKind.RULE, "٣"),
        (ExemptionKind.RULE, ""),
        (ExemptionKind.RULE, "7" * 44),
    ],
)
def test_exemption_that_cannot_be(kind: ExemptionKind, value: str) -> None:
    with pytest.raises(ProtocolError):
        Exemption(id=1, kind=kind, value=value).to_body()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ExemptionKind.TERMINAL_MAC, "02:5e:10:00:00:01"),
        (ExemptionKind.TERMINAL_IP, "192.168.10.5"),
        (ExemptionKind.TERMINAL_IP, "192.168.10.0/24"),
        (ExemptionKind.DESTINATION, "2001:db8::/32"),
        (ExemptionKind.DESTINATION, "203.0.113.80/32"),
        (ExemptionKind.RULE, str(2**32 - 1)),
    ],
)
def test_exemption_that_can_be(kind: ExemptionKind, value: str) -> None:
    exemption = Exemption(id=1, kind=kind, value=value)
    assert record_there_and_back(exemption) == exemption


@pytest.mark.parametrize(
    "changes",
    [
        {"version": ""},
        {"version": "1.4"},
        {"version": "1.4.0-rc1"},
        {"version": "01.4.0"},
        {"version": "1.4.1000000"},
        {"version": "1.4.0\n"},
        {"version": "1.4.٣"},
        {"max_wait_s": 90 * 86400 + 1},
        {"max_wait_s": -1},
        {"rate_kbps": 10_000_001},
        {"owner_refuses_scheduled": 1},
        {"days": 0},
        {"days": 128},
        {"start_min": 1440},
        {"length_min": 0},
        {"length_min": 1441},
        {"zone": ""},
        {"zone": "../../etc/passwd"},
        {"zone": "/etc/localtime"},
        {"zone": "Asia/../UTC"},
        {"zone": "Asia/Tokyo/"},
        {"zone": "A/" + "x" * 33},
        {"zone": "a/b/c/d"},
        {"zone": "Asia/Tōkyō"},
    ],
)
def test_firmware_setting_that_cannot_be(changes: dict[str, Any]) -> None:
    inner = {name: value for name, value in changes.items() if name in {"days", "start_min", "length_min", "zone"}}
    if inner:
        changes = {"window": dataclasses.replace(FIRMWARE.window, **inner)}
    settings = dataclasses.replace(FIRMWARE, **changes)
    with pytest.raises(ProtocolError):
        settings.to_body()


def test_way_to_fetch_that_does_not_exist() -> None:
    plain = body(dataclasses.replace(DOCUMENT, firmware=FIRMWARE))
    plain[9][4] = 4
    with pytest.raises(MalformedError, match="metered"):
        DesiredState.decode(cbor.encode(plain))
    del plain[9][4]
    with pytest.raises(MalformedError, match="metered"):
        DesiredState.decode(cbor.encode(plain))


@pytest.mark.parametrize(
    "zone", ["UTC", "Asia/Tokyo", "America/Argentina/Ushuaia", "Etc/GMT+9", "America/Port-au-Prince"]
)
def test_firmware_setting_that_can_be(zone: str) -> None:
    settings = dataclasses.replace(FIRMWARE, window=dataclasses.replace(FIRMWARE.window, zone=zone))
    assert record_there_and_back(settings) == settings


def test_two_exemptions_of_one_number() -> None:
    twice = (Exemption(id=1, kind=ExemptionKind.RULE, value="1"), Exemption(id=1, kind=ExemptionKind.RULE, value="2"))
    with pytest.raises(MalformedError, match="same id"):
        dataclasses.replace(DOCUMENT, exemptions=twice).encode()


@pytest.mark.parametrize(
    "changes", [{"version": 0}, {"expires_s": 1000}, {"device": "not a device"}, {"version": 2**32}, {"wifi": STATIC}]
)
def test_document_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        dataclasses.replace(DOCUMENT, **changes).encode()


@pytest.mark.parametrize("channel", ["", "Stable", "a/b", "x" * 33, "-a", "stable\n"])
def test_feed_channel_that_is_none(channel: str) -> None:
    good = dataclasses.replace(DOCUMENT, feed=FeedSettings(channel="stable"))
    assert DesiredState.decode(good.encode()) == good
    with pytest.raises(ProtocolError):
        dataclasses.replace(DOCUMENT, feed=FeedSettings(channel=channel)).encode()


def test_document_of_another_schema() -> None:
    with pytest.raises(UnknownVersionError):
        DesiredState.decode(cbor.encode({**body(DOCUMENT), 0: 2}))


COMMAND = Command(
    device="ZA35-000001", command_id=bytes(8), verb=Verb.BYPASS, issued_s=1000, expires_s=1600, minutes=10
)


@pytest.mark.parametrize(
    "changes",
    [
        {"minutes": 1441},
        {"minutes": -1},
        {"expires_s": 1000},
        {"expires_s": 1000 + command.MAX_LIFE_S + 1},
        {"command_id": bytes(7)},
        {"asked_by": "x" * 65},
        {"asked_by": "a\nb"},
        {"device": "zz"},
        {"moment": Moment.NOW},
        {"verb": Verb.IDENTIFY, "minutes": command.MAX_IDENTIFY_MINUTES + 1},
        {"verb": Verb.IDENTIFY, "moment": Moment.NOW},
        {"verb": Verb.REBOOT, "minutes": 0},
        {"verb": Verb.REBOOT, "moment": Moment.NOW},
        {"verb": Verb.DIAGNOSTICS},
    ],
)
def test_command_that_cannot_be(changes: dict[str, Any]) -> None:
    assert Command.decode(COMMAND.encode()) == COMMAND
    with pytest.raises(ProtocolError):
        dataclasses.replace(COMMAND, **changes).encode()


def test_verbs_are_a_closed_list() -> None:
    assert {verb.word: verb.value for verb in Verb} == {"bypass": 1, "identify": 2, "reboot": 3, "diagnostics": 4}
    assert {moment.word: moment.value for moment in Moment} == {"now": 1, "window": 2, "never": 3}
    with pytest.raises(MalformedError):
        Command.decode(cbor.encode({**body(COMMAND), 3: 5}))
    with pytest.raises(MalformedError):
        Command.decode(cbor.encode({**body(COMMAND), 3: 3, 6: 0, 8: 4}))
    with pytest.raises(MalformedError, match="unknown key"):
        Command.decode(cbor.encode({**body(COMMAND), 9: "sh"}))


def test_numbers_on_the_wire_never_change() -> None:
    assert [(item.name, item.value) for item in PartName] == [
        ("WIFI", 1),
        ("ADDRESS", 2),
        ("POLICY", 3),
        ("EXEMPTIONS", 4),
        ("FIRMWARE", 5),
        ("FEED", 6),
    ]
    assert [item.value for item in Metered] == [1, 2, 3]
    assert [item.value for item in PartState] == [0, 1, 2, 3]
    assert [item.value for item in ExemptionKind] == [1, 2, 3, 4]
