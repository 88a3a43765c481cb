"""Desired state: the one document that says how a box shall be.

It travels inside a COSE_Sign1 message (`cose`, context `DESIRED_CONTEXT`), retained on the box's `desired` topic. It
is the whole truth, not a change to an earlier one: a section that is absent means the product's default (Wi-Fi off,
address by DHCP, fail-open, no exemptions, the firmware that runs, the factory's feed channel). Everything is checked
here, before anybody applies a part of it: a document that breaks one rule is refused as a whole, unknown keys included.

Nothing here knows time or versions already seen; who receives the document judges `version` and `expires_s`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import ClassVar

from .device import check_device_id, format_mac, parse_mac
from .errors import MalformedError
from .firmware_version import MAX_VERSION_LENGTH, check_firmware_version
from .record import Checked, Choice, Flag, Nested, Record, Several, Text, UInt, wire
from .topics import check_channel
from .vocabulary import WireEnum

MAX_EXEMPTIONS = 256
MAX_DNS = 3
MAX_RULE_ID = 2**32 - 1
# The widest networks that one exemption may name: as for the block list.
MIN_IPV4_BITS = 8
MIN_IPV6_BITS = 16
MINUTES_A_DAY = 24 * 60
MAX_WAIT_S = 90 * 86400
MAX_RATE_KBPS = 10_000_000
_U64 = 2**63 - 1
_ALL_DAYS = 0b111_1111
# Names of the IANA time zone database: Asia/Tokyo, America/Argentina/Ushuaia, Etc/GMT+9, UTC.
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z][A-Za-z0-9_+-]{0,31}){0,2}", re.ASCII)
_MAX_ZONE_LENGTH = 64
_COUNTRY = re.compile(r"[A-Z]{2}")
_RULE_ID = re.compile(r"[1-9][0-9]{0,9}")
_RESERVED = ipaddress.ip_network("240.0.0.0/4")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class WifiSecurity(WireEnum):
    """What a station must be able to do."""

    WPA2 = 1
    WPA2_WPA3 = 2


class AddressMode(WireEnum):
    """Where the box's management address comes from."""

    DHCP = 1
    STATIC = 2


class ExemptionKind(WireEnum):
    """What an exemption names."""

    TERMINAL_MAC = 1
    TERMINAL_IP = 2
    DESTINATION = 3
    RULE = 4


class Metered(WireEnum):
    """Whether a whole firmware may be fetched where the difference to the present one cannot be used."""

    NEVER = 1
    ASK = 2
    ALLOW = 3


def _check_ssid(value: str) -> None:
    if not 1 <= len(value.encode()) <= 32:
        raise MalformedError("an SSID has 1 to 32 bytes")


def _check_passphrase(value: str) -> None:
    if not 8 <= len(value) <= 63 or any(not 0x20 <= ord(char) <= 0x7E for char in value):
        raise MalformedError("a passphrase has 8 to 63 printable ASCII characters")  # and is never in a message


def _check_country(value: str) -> None:
    if not _COUNTRY.fullmatch(value):
        raise MalformedError("a country is two upper-case letters")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WifiSettings(Record):
    """The access point. `channel` 0 lets the box choose; `isolation` keeps stations from reaching each other."""

    STRICT: ClassVar[bool] = True

    enabled: bool = wire(1, Flag())
    ssid: str = wire(2, Checked(Text(32), _check_ssid))
    passphrase: str = wire(3, Checked(Text(63), _check_passphrase), repr=False)
    channel: int = wire(4, UInt(13))
    country: str = wire(5, Checked(Text(2), _check_country))
    security: WifiSecurity = wire(6, Choice(WifiSecurity))
    isolation: bool = wire(7, Flag())


def _is_host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    is_odd = address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local
    return not is_odd and not (address.version == 4 and address in _RESERVED)


def _check_interface(value: str) -> None:
    try:
        interface = ipaddress.IPv4Interface(value)
    except ValueError as err:
        raise MalformedError("not an IPv4 address with its prefix length") from err
    network = interface.network
    if str(interface) != value or not MIN_IPV4_BITS <= network.prefixlen <= 30:
        raise MalformedError(f"expected a.b.c.d/n with n from {MIN_IPV4_BITS} to 30")
    if interface.ip in {network.network_address, network.broadcast_address} or not _is_host(interface.ip):
        raise MalformedError("not the address of a host")


def _check_ipv4(value: str) -> None:
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError as err:
        raise MalformedError("not an IPv4 address") from err
    if not _is_host(address):
        raise MalformedError("not the address of a host")


def _check_resolver(value: str) -> None:
    try:
        address = ipaddress.ip_address(value)
    except ValueError as err:
        raise MalformedError("not an IP address") from err
    if str(address) != value or not _is_host(address):
        raise MalformedError("not the address of a host in its usual form")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddressSettings(Record):
    """The box's own address on the bridge, for its connections to the cloud; forwarding needs none.

    STATIC has `ipv4` (``a.b.c.d/n``), `gateway` and at least one of `dns`; DHCP has none of them.
    """

    STRICT: ClassVar[bool] = True

    mode: AddressMode = wire(1, Choice(AddressMode))
    ipv4: str | None = wire(2, Checked(Text(18), _check_interface), default=None)
    gateway: str | None = wire(3, Checked(Text(15), _check_ipv4), default=None)
    dns: tuple[str, ...] = wire(4, Several(Checked(Text(45), _check_resolver), MAX_DNS), default=())

    def check(self) -> None:
        """Check that the mode has what it needs and nothing else."""
        if self.mode is AddressMode.DHCP:
            if self.ipv4 is not None or self.gateway is not None or self.dns:
                raise MalformedError("address: DHCP takes no address, gateway or DNS")
            return
        if self.ipv4 is None or self.gateway is None or not self.dns:
            raise MalformedError("address: STATIC needs ipv4, gateway and dns")
        interface, gateway = ipaddress.IPv4Interface(self.ipv4), ipaddress.IPv4Address(self.gateway)
        network = interface.network
        if gateway not in network or gateway in {interface.ip, network.network_address, network.broadcast_address}:
            raise MalformedError("address: the gateway is not another host of the same network")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy(Record):
    """`fail_closed`: what nothing has inspected does not pass (the office may lose its connection)."""

    STRICT: ClassVar[bool] = True

    fail_closed: bool = wire(1, Flag())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exemption(Record):
    """Something that is not inspected, or a rule that is not used.

    `id` is the operator's number for it, unique in the document. `value` is a MAC address (``02:00:5e:10:00:01``), an
    IP address or network, or a rule's number in decimal, as `kind` says. It ends at `until_s` (Unix time), if given.
    """

    STRICT: ClassVar[bool] = True

    id: int = wire(1, UInt())
    kind: ExemptionKind = wire(2, Choice(ExemptionKind))
    value: str = wire(3, Text(43))
    until_s: int | None = wire(4, UInt(_U64), default=None)

    def check(self) -> None:
        """Check that the value is what the kind says."""
        try:
            match self.kind:
                case ExemptionKind.TERMINAL_MAC:
                    self.mac()
                case ExemptionKind.TERMINAL_IP | ExemptionKind.DESTINATION:
                    self.network()
                case ExemptionKind.RULE:
                    self.rule_id()
        except MalformedError as err:
            raise MalformedError(f"exemption {self.id}: {err}") from err

    def mac(self) -> bytes:
        """Return the value as the MAC address of one terminal; raises `MalformedError`."""
        mac = parse_mac(self.value)
        if format_mac(mac) != self.value:
            raise MalformedError("expected a MAC address in lower case with colons")
        if mac[0] & 1 or not any(mac):
            raise MalformedError("not the MAC address of one terminal")
        return mac

    def network(self) -> Network:
        """Return the value as an address or a network; raises `MalformedError`."""
        try:
            network = ipaddress.ip_network(self.value)
        except ValueError as err:
            raise MalformedError("not an IP address or network (with no host bits)") from err
        if self.value not in {str(network), str(network.network_address)} or getattr(
            network.network_address, "ipv4_mapped", None
        ):
            raise MalformedError("expected an IP address or network in its usual form")
        minimum = MIN_IPV4_BITS if network.version == 4 else MIN_IPV6_BITS
        if network.prefixlen < minimum:
            raise MalformedError(f"a network of {network.prefixlen} bits is too wide, at least {minimum}")
        if network.is_multicast or network.network_address.is_unspecified or network.is_loopback:
            raise MalformedError("not an address of a host")
        return network

    def rule_id(self) -> int:
        """Return the value as a rule's number; raises `MalformedError`."""
        if not _RULE_ID.fullmatch(self.value) or int(self.value) > MAX_RULE_ID:
            raise MalformedError("not a rule's number")
        return int(self.value)


def _check_days(value: int) -> None:
    if not 1 <= value <= _ALL_DAYS:
        raise MalformedError("days are a mask of 1 (Monday) to 64 (Sunday), at least one of them")


def _check_length(value: int) -> None:
    if value == 0:
        raise MalformedError("a window has a length")


def _check_zone(value: str) -> None:
    if not _ZONE.fullmatch(value):
        raise MalformedError("not the name of a time zone")


def _check_version(value: str) -> None:
    check_firmware_version(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirmwareWindow(Record):
    """When the box may restart with a new firmware, in local time.

    `days` is a mask of the days on which a window begins (1 Monday, 2 Tuesday … 64 Sunday), `start_min` minutes after
    midnight, `length_min` minutes; a window may run past midnight. `zone` is a name of the IANA time zone database.
    """

    STRICT: ClassVar[bool] = True

    days: int = wire(1, Checked(UInt(_ALL_DAYS), _check_days))
    start_min: int = wire(2, UInt(MINUTES_A_DAY - 1))
    length_min: int = wire(3, Checked(UInt(MINUTES_A_DAY), _check_length))
    zone: str = wire(4, Checked(Text(_MAX_ZONE_LENGTH), _check_zone))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirmwareSettings(Record):
    """The firmware a box shall run, and how it may get there.

    `version` has to be in the offline-signed metadata, too. A ready firmware waits for the `window` at most
    `max_wait_s` (0: not at all). `metered` says whether a whole firmware may be fetched where a difference would do;
    `rate_kbps` (kilobits a second, 0 for no cap) is what fetching may use of the office's line. With
    `owner_refuses_scheduled` only important releases are taken.
    """

    STRICT: ClassVar[bool] = True

    version: str = wire(1, Checked(Text(MAX_VERSION_LENGTH), _check_version))
    window: FirmwareWindow = wire(2, Nested(FirmwareWindow))
    max_wait_s: int = wire(3, UInt(MAX_WAIT_S))
    metered: Metered = wire(4, Choice(Metered))
    rate_kbps: int = wire(5, UInt(MAX_RATE_KBPS))
    owner_refuses_scheduled: bool = wire(6, Flag())


def _check_channel(value: str) -> None:
    check_channel(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedSettings(Record):
    """The feed channel that the box follows."""

    STRICT: ClassVar[bool] = True

    channel: str = wire(1, Checked(Text(32), _check_channel))


def _check_device(value: str) -> None:
    check_device_id(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DesiredState(Record):
    """Everything a box shall be. `version` grows with each document; times are Unix time in seconds."""

    MAX_BYTES: ClassVar[int] = 24 * 1024
    MAX_ITEMS: ClassVar[int] = MAX_EXEMPTIONS + 1  # one more, so that the right bound speaks
    STRICT: ClassVar[bool] = True

    device: str = wire(1, Checked(Text(32), _check_device))
    version: int = wire(2, UInt())
    issued_s: int = wire(3, UInt(_U64))
    expires_s: int = wire(4, UInt(_U64))
    wifi: WifiSettings | None = wire(5, Nested(WifiSettings), default=None)
    address: AddressSettings | None = wire(6, Nested(AddressSettings), default=None)
    policy: Policy | None = wire(7, Nested(Policy), default=None)
    exemptions: tuple[Exemption, ...] = wire(8, Several(Nested(Exemption), MAX_EXEMPTIONS), default=())
    firmware: FirmwareSettings | None = wire(9, Nested(FirmwareSettings), default=None)
    feed: FeedSettings | None = wire(10, Nested(FeedSettings), default=None)

    def check(self) -> None:
        """Check what no section can know alone."""
        if self.version == 0:
            raise MalformedError("version 0 is no version")
        if self.expires_s <= self.issued_s:
            raise MalformedError("it expires before it is issued")
        numbers = [exemption.id for exemption in self.exemptions]
        if len(set(numbers)) != len(numbers):
            raise MalformedError("two exemptions have the same id")
