"""What no source may block: the allow-list, which has the last word over every source.

It is made of the sources of kind `allow` and knows names and addresses, and of accepted reports also URLs, digests and
ids of rules. A listed indicator is taken out when it would reach something allowed: a domain, when it is an allowed
name or the registrable domain of one (the engine compares names exactly and by registrable domain, so nothing else can
reach it); a network, when it contains an allowed address. A host below an allowed name is not protected by it: pages of
a free host are not as good as the host.

* threats: protects from lists of threats. A list of social networks may well name them.
* everything: protects from every list that blocks, whatever it is about. For what a box itself and the office's
  name resolution need.
* all: takes out of lists that are only logged, too. For reports of false alarms that the operator has accepted.

A URL and a digest are protected exactly; a rule is left out by its id, whatever it is about.
"""

from __future__ import annotations

import bisect
import dataclasses
import ipaddress
from collections.abc import Iterable

from .catalogue import Overrides
from .indicators import DomainRules, Network
from .source_reader import Entry
from .tokens import TokenKind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protection:
    """Why an indicator was taken out: what it would reach, which allow-list says so, and on which customer's report."""

    allowed: str
    source: str
    report: int = 0


class AllowList:
    """Names and addresses that must stay reachable.

    Args:
        domains: Rules for host names.
    """

    def __init__(self, domains: DomainRules) -> None:
        self._domains = domains
        self._names: dict[Overrides, dict[str, Protection]] = {choice: {} for choice in Overrides}
        self._exact: dict[str, Protection] = {}  # digests, URLs as host, space and path, ids of rules
        self._ranges: list[tuple[int, int, int, Network, Protection]] = []
        self._starts: list[tuple[int, int]] = []

    def add(self, source: str, overrides: Overrides, entries: Iterable[Entry]) -> None:
        """Add what an allow-list holds; the first that names something is remembered as the reason."""
        for entry in entries:
            number = int(entry.group) if entry.group.isdecimal() else 0
            protection = Protection(allowed=entry.value + entry.path, source=source, report=number)
            if entry.kind is TokenKind.DOMAIN:
                names = self._names[overrides]
                names.setdefault(entry.value, protection)
                names.setdefault(self._domains.registrable(entry.value), protection)
            elif entry.kind is TokenKind.IP:
                network = ipaddress.ip_network(entry.value)
                first, last = int(network[0]), int(network[-1])
                self._ranges.append((network.version, first, last, network, protection))
            else:
                exact = f"{entry.value} {entry.path}" if entry.kind is TokenKind.URL else entry.value
                self._exact.setdefault(exact, protection)
        self._ranges.sort(key=lambda item: item[:3])
        self._starts = [item[:2] for item in self._ranges]

    def protects_name(self, name: str, *, is_threat: bool, is_blocked: bool = True) -> Protection | None:
        """Return why a domain must not be in a list, or None.

        Args:
            name: The domain.
            is_threat: Whether the list is about threats.
            is_blocked: Whether it blocks.
        """
        found = self._names[Overrides.ALL].get(name)
        if not is_blocked:
            return found
        if found is None:
            found = self._names[Overrides.EVERYTHING].get(name)
        if found is None and is_threat:
            found = self._names[Overrides.THREATS].get(name)
        return found

    def protects_exactly(self, entry: str) -> Protection | None:
        """Return why a digest, a URL (host, space, path) or a rule (its id) must not be in the pack, or None."""
        return self._exact.get(entry)

    def protects_network(self, network: Network) -> list[tuple[Network, Protection]]:
        """Return what of the allowed addresses lies in a network, or holds it."""
        if not self._ranges:
            return []
        first, last = int(network[0]), int(network[-1])
        place = bisect.bisect_right(self._starts, (network.version, last))
        found = []
        # Allowed ranges are few and short; those that begin before `first` are looked at until none can reach it.
        for version, start, end, allowed, protection in reversed(self._ranges[:place]):
            if version != network.version:
                break
            if end >= first:
                found.append((allowed, protection))
            elif first - start > _LONGEST[version]:
                break
        return found


# No allowed range is longer: a network of /8, or /20 in IPv6, is the widest that a list may hold.
_LONGEST = {4: 1 << 24, 6: 1 << 108}


def cut_out(network: Network, allowed: Iterable[Network]) -> list[Network]:
    """Return what is left of a network without the allowed ones."""
    parts: list[Network] = [network]
    for hole in allowed:
        left: list[Network] = []
        for part in parts:
            if part.version != hole.version or not part.overlaps(hole):
                left.append(part)
            elif int(hole[0]) > int(part[0]) or int(hole[-1]) < int(part[-1]):
                left.extend(part.address_exclude(hole))  # type: ignore[arg-type]  # same version, as asked above
        parts = left
    return parts
