"""Lines of a list become indicators: normalised, checked, unique, sorted.

A list comes from people and from other lists, so a bad line is the normal case: it is left out, counted, and reported
with its number and the reason. Only when more than a few are bad is the list itself refused (`read_list`), because
then it is not the list it was. Rules:

* domain: IDNA A-labels, lower case, no trailing dot; never an address, a single label or a public suffix, since an
  entry covers everything below it;
* ip: an address or a network in CIDR notation without host bits, not wider than /8 (IPv6: /20), nothing private,
  local, multicast or reserved;
* sha256: 64 hexadecimal digits;
* text: printable ASCII without spaces, of a bounded length. Only the compiler writes such lists (`urls`).

An entry that another entry of the list covers is folded into it. Nothing here knows what a match means.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable

import idna
from publicsuffixlist import PublicSuffixList

from omamori_protocol.feed_manifest import MAX_ENTRIES, MAX_TEXT_BYTES, ListKind

from .errors import SourceError

MAX_LINE_BYTES = 1024
MAX_REPORTED = 100
_TOLERATED_FLOOR = 10
_TOLERATED_SHARE = 0.01

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WIDEST = {4: 8, 6: 20}
_DOCUMENTATION: tuple[Network, ...] = tuple(
    map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"))
)
# IANA special-purpose registries: what is never a stranger on the internet.
_SPECIAL: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/3",
            "::/8",
            "100::/64",
            "fc00::/7",
            "fe80::/10",
            "fec0::/10",
            "ff00::/8",
        ),
    )
)


def _ranges(networks: tuple[Network, ...]) -> dict[int, list[tuple[int, int]]]:
    # Numbers, because lists have hundreds of thousands of addresses and comparing network objects is slow.
    return {
        version: [(int(item[0]), int(item[-1])) for item in networks if item.version == version] for version in (4, 6)
    }


_SPECIAL_RANGES, _DOCUMENTATION_RANGES = _ranges(_SPECIAL), _ranges(_DOCUMENTATION)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that was left out; `number` counts from 1."""

    file: str
    number: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedList:
    """What a list holds.

    Attributes:
        entries: Normalised, unique, in the order of their bytes.
        bad_count: How many lines were left out.
        bad_lines: The first `MAX_REPORTED` of them.
        folded_count: How many entries another entry covers, or repeats.
    """

    entries: tuple[str, ...]
    bad_count: int
    bad_lines: tuple[BadLine, ...]
    folded_count: int


class IndicatorError(ValueError):
    """A line is not an indicator of its kind; the text is the reason."""


class DomainRules:
    """What is a domain that a list may hold, by the pinned public suffix list."""

    def __init__(self) -> None:
        self._suffixes = PublicSuffixList()

    def normalise(self, text: str) -> str:
        """Return the canonical form of a domain.

        Raises:
            IndicatorError: It is not one that a list may hold.
        """
        name = text.removesuffix(".")
        if not name.isascii():
            try:
                name = idna.encode(name, uts46=True).decode()
            except (idna.IDNAError, UnicodeError) as err:
                raise IndicatorError(f"not an international domain name: {str(err)[:80]}") from err
        name = name.lower()
        labels = name.split(".")
        if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            raise IndicatorError("not a domain name")
        if labels[-1].isdigit():
            raise IndicatorError("an address, not a domain name")
        if len(labels) < 2 or self.is_suffix(name):
            raise IndicatorError("a top-level domain or public suffix: it would cover everybody below it")
        return name

    def is_suffix(self, name: str) -> bool:
        """Say whether a name is a top-level domain or public suffix."""
        return bool(self._suffixes.is_public(name))

    def registrable(self, name: str) -> str:
        """Return the registrable domain that `name` belongs to."""
        return str(self._suffixes.privatesuffix(name))

    def fold(self, names: set[str]) -> set[str]:
        """Leave out names below a listed registrable domain.

        Only below a registrable one: that is what the engine compares with. A listed host name covers itself only.
        """
        return {name for name in names if (parent := self.registrable(name)) == name or parent not in names}


def normalise_network(text: str, *, allow_documentation: bool = False) -> str:
    """Return the canonical form of an address or network.

    Raises:
        IndicatorError: It is not one that may be blocked.
    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError as err:
        raise IndicatorError(str(err)[:120]) from err
    if "%" in text:
        raise IndicatorError("an address with a zone")
    if network.prefixlen < _WIDEST[network.version]:
        raise IndicatorError(f"wider than /{_WIDEST[network.version]}")
    first, last = int(network.network_address), int(network.broadcast_address)
    if _meets(first, last, _SPECIAL_RANGES[network.version]):
        raise IndicatorError("private, local, multicast or reserved")
    if not allow_documentation and _meets(first, last, _DOCUMENTATION_RANGES[network.version]):
        raise IndicatorError("reserved for documentation")
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _meets(first: int, last: int, ranges: list[tuple[int, int]]) -> bool:
    return any(first <= end and start <= last for start, end in ranges)


def fold_networks(names: set[str]) -> set[str]:
    """Leave out networks that lie in another listed one."""
    kept: set[str] = set()
    last: Network | None = None
    networks = sorted(map(ipaddress.ip_network, names), key=lambda item: (item.version, item))
    for network in networks:
        # Sorted by address, then by length: what covers `network` was the last that was kept.
        if last is None or last.version != network.version or int(network.broadcast_address) > int(last[-1]):
            kept.add(str(network.network_address) if network.num_addresses == 1 else str(network))
            last = network
    return kept


def check_text(text: str) -> str:
    """Return a line of a list of text as it stands.

    Raises:
        IndicatorError: It is longer than allowed, or holds more than printable ASCII.
    """
    if not 1 <= len(text) <= MAX_TEXT_BYTES or not text.isascii() or not text.isprintable() or " " in text:
        raise IndicatorError("not printable ASCII without spaces, or too long")
    return text


def normalise_digest(text: str) -> str:
    """Return a SHA-256 in lower case.

    Raises:
        IndicatorError: It is not one.
    """
    digest = text.lower()
    if not _DIGEST.fullmatch(digest):
        raise IndicatorError("not a SHA-256 in hexadecimal")
    return digest


def read_list(
    data: bytes, kind: ListKind, file: str, *, domains: DomainRules, allow_documentation_addresses: bool = False
) -> ParsedList:
    """Read the lines of a list.

    Args:
        data: The file: one indicator a line; `#` begins a comment.
        kind: What the lines are.
        file: Name for reports.
        domains: Rules for domain names.
        allow_documentation_addresses: See `feed_source`.

    Raises:
        SourceError: More than ten lines and one per cent are bad, or there are too many entries.
    """
    normalise: dict[ListKind, Callable[[str], str]] = {
        ListKind.DOMAIN: domains.normalise,
        ListKind.IP: lambda text: normalise_network(text, allow_documentation=allow_documentation_addresses),
        ListKind.SHA256: normalise_digest,
        ListKind.TEXT: check_text,
    }
    entries: set[str] = set()
    bad: list[BadLine] = []
    seen = bad_count = 0
    for number, raw in enumerate(data.split(b"\n"), start=1):
        try:
            # In a list of text `#` is a character like any other.
            text = raw.decode("ascii", "replace") if kind is ListKind.TEXT else _content(raw)
            if not text:
                continue
            seen += 1
            entries.add(normalise[kind](text))
        except IndicatorError as err:
            bad_count += 1
            if len(bad) < MAX_REPORTED:
                bad.append(BadLine(file=file, number=number, reason=str(err)))
        if len(entries) > MAX_ENTRIES:
            raise SourceError(f"{file}: more than {MAX_ENTRIES} entries")
    if bad_count > max(_TOLERATED_FLOOR, seen * _TOLERATED_SHARE):
        raise SourceError(
            f"{file}: {bad_count} of {seen} lines are bad, the first is line {bad[0].number}: {bad[0].reason}",
            hint="this is probably not the list it should be",
        )
    fold = {ListKind.DOMAIN: domains.fold, ListKind.IP: fold_networks}.get(kind, set)
    kept = fold(entries)
    return ParsedList(
        entries=tuple(sorted(kept)),
        bad_count=bad_count,
        bad_lines=tuple(bad),
        folded_count=seen - bad_count - len(kept),
    )


def _content(raw: bytes) -> str:
    if len(raw) > MAX_LINE_BYTES:
        raise IndicatorError(f"longer than {MAX_LINE_BYTES} bytes")
    try:
        text = raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as err:
        raise IndicatorError("not UTF-8") from err
    return text.partition("#")[0].strip()
