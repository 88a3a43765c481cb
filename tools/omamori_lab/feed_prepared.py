"""What the feed's bench measures with, made once and kept beside it: rules that the engine loads, and large packs.

Making them takes longer than measuring and says nothing about a box. Who wants new ones removes the directory, or
names other directories of rules and lists.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omamori_protocol.durable import write_atomic
from omamori_protocol.feed_manifest import ListKind

from .feed_lane import FeedLane
from .feed_packs import write_feed_pack
from .native_wire import obtain_programs
from .public_rules import obtain_public_rules
from .rule_set import RuleSet

_ONE_RULE = 'alert ip any any -> any any (msg:"more"; ip_proto:255; sid:1899999;)\n'


@dataclasses.dataclass(frozen=True)
class Lists:
    """Lines of three lists, in order and once, and where they are from."""

    names: Sequence[bytes]
    digests: Sequence[bytes]
    addresses: Sequence[bytes]
    origin: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargePacks:
    """Two packs that differ in one rule.

    Attributes:
        first: With these rules and all lists.
        second: The same with one rule more.
        rules: How many.
        rules_origin: Whose.
        names: How many names, and of the other lists.
        digests: …
        addresses: …
        lists_origin: Whose names.
    """

    first: Path
    second: Path
    rules: int
    rules_origin: str
    names: int
    digests: int
    addresses: int
    lists_origin: str


class Prepared:
    """Rules and packs in a directory.

    Args:
        directory: Where they are kept.
        rules: Directories of real rules.
        lists: Called for the lists if a pack has to be made.
    """

    def __init__(self, directory: Path, rules: Sequence[Path], lists: Callable[[], Lists]) -> None:
        self._directory = directory
        self._sources = rules
        self._lists = lists
        directory.mkdir(parents=True, exist_ok=True)

    def rules(self, wanted: int) -> RuleSet:
        """Return `wanted` public rules without those that the engine refuses; a box would refuse the whole pack."""
        path = self._directory / f"{wanted}.rules"
        known = self._read(path.with_suffix(".rules.json"))
        if known is not None and path.exists():
            return RuleSet(text=path.read_bytes(), count=known["count"], origin=known["origin"])
        lane = FeedLane(*obtain_programs())
        try:
            lane.start()
            made = lane.loadable(obtain_public_rules(self._sources, wanted))
        finally:
            lane.stop()
        write_atomic(path, made.text)
        self._write(path.with_suffix(".rules.json"), {"count": made.count, "origin": made.origin})
        return made

    def packs(self, wanted: int) -> LargePacks:
        """Return packs with `wanted` rules and all lists."""
        first, second = (self._directory / f"{wanted}-{number}.tar.gz" for number in (1, 2))
        note = self._directory / f"{wanted}.packs.json"
        known = self._read(note)
        if known is not None and first.exists() and second.exists():
            return LargePacks(first=first, second=second, **known["packs"])
        rules, lists = self.rules(wanted), self._lists()
        contents = {
            "names": (ListKind.DOMAIN, lists.names),
            "digests": (ListKind.SHA256, lists.digests),
            "addresses": (ListKind.IP, lists.addresses),
        }
        write_feed_pack(first, 1, rules, contents)
        write_feed_pack(second, 2, rules, contents, extra=_ONE_RULE)
        facts: dict[str, Any] = {
            "rules": rules.count,
            "rules_origin": rules.origin,
            "names": len(lists.names),
            "digests": len(lists.digests),
            "addresses": len(lists.addresses),
            "lists_origin": lists.origin,
        }
        self._write(note, {"packs": facts})
        return LargePacks(first=first, second=second, **facts)

    def _key(self) -> list[str]:
        return [str(path.absolute()) for path in self._sources]

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            body = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        return body if isinstance(body, dict) and body.get("of") == self._key() else None

    def _write(self, path: Path, body: dict[str, Any]) -> None:
        write_atomic(path, json.dumps({**body, "of": self._key()}).encode())
