"""Merges the indicators of all sources into the lists of a pack.

Rules, in this order:

* an indicator that would reach something allowed is taken out of every list that blocks (`allow`);
* an indicator stands in one list only: among the lists of threats, or among those of categories, the first in the
  policy's order that any source puts it into;
* within a list, what another entry covers is folded into that: names below a listed registrable domain, networks in a
  listed network.

Everything goes through sorted files: memory does not grow with the lists, and the result does not depend on the order
of sources or on their repetitions.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from omamori_protocol.vocabulary import Action

from .allow import AllowList, Protection, cut_out
from .indicators import DomainRules, Network
from .policy import Policy, PolicyKind, PolicyList
from .sorter import LineSorter
from .source_reader import Entry

# Sorts before every character of a name, so that a name is followed by all names below it.
_BELOW = "!"
MAX_ALLOWED_REPORTED = 20_000


class Merged(NamedTuple):
    """An entry of a list, and the names of its sources."""

    entry: str
    sources: tuple[str, ...]


class TakenOut(NamedTuple):
    """An indicator that the allow-list took out."""

    entry: str
    name: str
    sources: tuple[str, ...]
    protection: Protection


@dataclasses.dataclass
class MergeTally:
    """What became of a list's indicators: given by all sources, repeated or in an earlier list, folded, allowed."""

    given: int = 0
    repeated: int = 0
    folded: int = 0
    allowed: int = 0


class Merger:
    """Takes indicators of all sources, gives the lists.

    Args:
        policy: The lists.
        sources: Names of the sources; an entry's sources are numbers into this.
        allow: What must stay reachable.
        domains: Rules for names.
        work: Directory for temporary files.
    """

    def __init__(
        self, policy: Policy, sources: tuple[str, ...], allow: AllowList, domains: DomainRules, work: Path
    ) -> None:
        self._lists, self._sources, self._allow, self._domains = policy.lists, sources, allow, domains
        self._numbers = {item.name: number for number, item in enumerate(policy.lists)}
        self._stack = ExitStack()
        self._work = work
        self._given = {key: self._sorter(f"given-{key}") for key in ("threats", "categories", "ip", "sha256", "url")}
        self.tallies = {item.name: MergeTally() for item in policy.lists}
        self.taken_out: list[TakenOut] = []
        self.taken_out_count = 0

    def __enter__(self) -> Merger:  # noqa: PYI034 - this class has no subclasses
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _sorter(self, name: str) -> LineSorter:
        return self._stack.enter_context(LineSorter(self._work, name))

    def add(self, source: int, name: str, entry: Entry) -> None:
        """Add an indicator that a source puts into a list; the kind of the list is the kind of the indicator."""
        number = self._numbers[name]
        item = self._lists[number]
        self.tallies[name].given += 1
        mark = f"\t{number:03d}\t{source:03d}"
        match item.kind:
            case PolicyKind.DOMAIN:
                key = _BELOW.join(reversed(entry.value.split(".")))
                self._given["threats" if item.is_threat else "categories"].add(key + mark)
            case PolicyKind.IP:
                self._given["ip"].add(_network_key(entry.value) + mark)
            case PolicyKind.SHA256:
                self._given["sha256"].add(entry.value + mark)
            case PolicyKind.URL:
                self._given["url"].add(f"{entry.value} {entry.path}{mark}")

    def merge(self) -> Iterator[tuple[PolicyList, Iterator[Merged]]]:
        """Yield every list of the policy with its entries in the order of their bytes; read each before the next."""
        sorted_entries = self._sorter("merged")
        for key, decide in (
            ("threats", self._names()),
            ("categories", self._names()),
            ("ip", self._networks()),
            ("sha256", self._plain),
            ("url", self._urls),
        ):
            for text, numbers, sources in _groups(iter(self._given[key])):
                winner = numbers[0]
                self.tallies[self._lists[winner].name].repeated += len(sources) - 1
                for entry in decide(text, winner, sources):
                    listed = ",".join(map(str, sorted(set(sources))))
                    sorted_entries.add(f"{winner:03d}\t{entry}\t{listed}")
        stream = _Stream(iter(sorted_entries))
        for number, item in enumerate(self._lists):
            yield item, self._of_list(stream, f"{number:03d}")

    def _of_list(self, stream: _Stream, number: str) -> Iterator[Merged]:
        last = ""
        while (line := stream.peek()) is not None and line.startswith(number):
            stream.next()
            _, entry, listed = line.split("\t")
            if entry != last:  # parts of two networks that were cut may meet
                yield Merged(entry, self._names_of(listed))
            last = entry

    def _names_of(self, listed: str) -> tuple[str, ...]:
        return tuple(self._sources[int(number)] for number in listed.split(","))

    def _take_out(self, entry: str, winner: int, sources: list[int], protection: Protection) -> None:
        self.tallies[self._lists[winner].name].allowed += 1
        self.taken_out_count += 1
        # What goes back to a customer's report is always told.
        if protection.report or len(self.taken_out) < MAX_ALLOWED_REPORTED:
            names = tuple(self._sources[number] for number in sorted(set(sources)))
            self.taken_out.append(TakenOut(entry, self._lists[winner].name, names, protection))

    def _protects(self, name: str, item: PolicyList) -> Protection | None:
        is_blocked = item.action is Action.BLOCKED
        return self._allow.protects_name(name, is_threat=item.is_threat, is_blocked=is_blocked)

    def _names(self) -> Callable[[str, int, list[int]], list[str]]:
        covering: dict[int, str] = {}

        def decide(key: str, winner: int, sources: list[int]) -> list[str]:
            item = self._lists[winner]
            parent = covering.get(winner)
            if parent is not None and key.startswith(parent):
                self.tallies[item.name].folded += 1
                return []
            name = ".".join(reversed(key.split(_BELOW)))
            if (protection := self._protects(name, item)) is not None:
                self._take_out(name, winner, sources, protection)
                return []
            if self._domains.registrable(name) == name:
                covering[winner] = key + _BELOW
            return [name]

        return decide

    def _networks(self) -> Callable[[str, int, list[int]], list[str]]:
        covered: dict[tuple[int, int], int] = {}

        def decide(key: str, winner: int, sources: list[int]) -> list[str]:
            item, network = self._lists[winner], _network(key)
            place = (winner, network.version)
            if int(network[-1]) <= covered.get(place, -1):
                self.tallies[item.name].folded += 1
                return []
            covered[place] = int(network[-1])
            protected = self._allow.protects_network(network)
            if not protected:
                return [_text(network)]
            self._take_out(_text(network), winner, sources, protected[0][1])
            return [_text(part) for part in cut_out(network, [allowed for allowed, _ in protected])]

        return decide

    def _plain(self, text: str, winner: int, sources: list[int]) -> list[str]:
        if (protection := self._allow.protects_exactly(text)) is not None:
            self._take_out(text, winner, sources, protection)
            return []
        return [text]

    def _urls(self, text: str, winner: int, sources: list[int]) -> list[str]:
        host = text.partition(" ")[0]
        item = self._lists[winner]
        protection = self._allow.protects_exactly(text) or self._protects(host, item)
        if protection is None and not host.rpartition(".")[2].isdigit():
            # A page of an allowed site is not blocked either: its path could be another site's malware.
            protection = self._protects(self._domains.registrable(host), item)
        if protection is not None:
            self._take_out(text, winner, sources, protection)
            return []
        return [text]


class _Stream:
    """Lines with a look ahead."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._head = next(lines, None)

    def peek(self) -> str | None:
        return self._head

    def next(self) -> None:
        self._head = next(self._lines, None)


def _groups(lines: Iterator[str]) -> Iterator[tuple[str, list[int], list[int]]]:
    """Yield each key with the numbers of its lists and of its sources, lists in order."""
    key: str | None = None
    lists: list[int] = []
    sources: list[int] = []
    for line in lines:
        text, number, source = line.rsplit("\t", 2)
        if text != key:
            if key is not None:
                yield key, lists, sources
            key, lists, sources = text, [], []
        lists.append(int(number))
        sources.append(int(source))
    if key is not None:
        yield key, lists, sources


def _network_key(text: str) -> str:
    network = ipaddress.ip_network(text)
    digits = 8 if network.version == 4 else 32
    return f"{network.version}{int(network[0]):0{digits}x}{network.prefixlen:03d}"


def _network(key: str) -> Network:
    start, length = int(key[1:-3], 16), int(key[-3:])
    return ipaddress.IPv4Network((start, length)) if key[0] == "4" else ipaddress.IPv6Network((start, length))


def _text(network: Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)
