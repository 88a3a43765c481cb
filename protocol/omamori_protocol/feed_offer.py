"""What the repository says about a channel's feed: the custom data of the pack's signed target, and the way to it.

The data names the serial, the digest of the pack's manifest and the increments that may spare a box the pack. Every
increment is a target of its own, so size and digest of each are signed twice over. Pure values.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import MalformedError
from .feed_chain import MAX_CHAIN
from .feed_increment import MAX_INCREMENT_BYTES
from .rings import PERMILLE
from .topics import check_channel

FORMAT = 1
MAX_SERIAL = 2**31 - 1
MAX_OFFERED = 64
MAX_WITHDRAWN = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")


def increment_target(channel: str, start: int, goal: int) -> str:
    """Return the TUF target path of an increment."""
    return f"feed/{check_channel(channel)}/{start}-{goal}.increment"


@dataclasses.dataclass(frozen=True)
class OfferedIncrement:
    """An increment that can be had: from which serial to which, and its size in bytes."""

    start: int
    goal: int
    size: int


@dataclasses.dataclass(frozen=True)
class FeedOffer:
    """Custom data of a pack's target.

    Attributes:
        serial: Of the pack.
        manifest_sha256: Digest of its manifest in hexadecimal; None from publishers that know no increments.
        increments: What can be had besides.
        permille: How much of the fleet it is for (see `rings`); everyone, unless it is a candidate.
        withdrawn: Later serials that turned out bad. A box that has one of them goes back to this offer; no other
            way leads to a lower serial.
    """

    serial: int
    manifest_sha256: str | None = None
    increments: tuple[OfferedIncrement, ...] = ()
    permille: int = PERMILLE
    withdrawn: tuple[int, ...] = ()

    def to_custom(self) -> dict[str, Any]:
        """Return the data as it stands in the target."""
        custom: dict[str, Any] = {"format": FORMAT, "serial": self.serial}
        if self.manifest_sha256 is not None:
            custom["manifest"] = self.manifest_sha256
        if self.increments:
            custom["increments"] = [[item.start, item.goal, item.size] for item in self.increments]
        if self.permille != PERMILLE:
            custom["permille"] = self.permille
        if self.withdrawn:
            custom["withdrawn"] = list(self.withdrawn)
        return custom


def parse_offer(custom: Any) -> FeedOffer:
    """Read the custom data of a pack's target; keys that are not known are passed over.

    Raises:
        MalformedError: It is not such data.
    """
    if not isinstance(custom, Mapping) or custom.get("format") != FORMAT:
        raise MalformedError("no data of a feed")
    serial = _number(custom.get("serial"), 1, MAX_SERIAL)
    digest = custom.get("manifest")
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise MalformedError("digest of the manifest")
    items = custom.get("increments", [])
    if not isinstance(items, list) or len(items) > MAX_OFFERED:
        raise MalformedError("increments")
    permille = _number(custom.get("permille", PERMILLE), 0, PERMILLE)
    withdrawn = custom.get("withdrawn", [])
    if not isinstance(withdrawn, list) or len(withdrawn) > MAX_WITHDRAWN:
        raise MalformedError("withdrawn serials")
    later = tuple(_number(item, serial + 1, MAX_SERIAL) for item in withdrawn)
    return FeedOffer(serial, digest, tuple(map(_increment, items)), permille, later)


def _number(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise MalformedError(f"{str(value)[:40]} is not a number from {low} to {high}")
    return value


def _increment(item: Any) -> OfferedIncrement:
    if not isinstance(item, list) or len(item) != 3:
        raise MalformedError("increment")
    start = _number(item[0], 1, MAX_SERIAL)
    return OfferedIncrement(start, _number(item[1], start + 1, MAX_SERIAL), _number(item[2], 1, MAX_INCREMENT_BYTES))


def choose_chain(offer: FeedOffer, have: int, pack_bytes: int) -> Sequence[OfferedIncrement]:
    """Return the increments with the fewest bytes that lead from serial `have` to the offered one.

    Empty when none do, or when the pack itself has not more bytes.
    """
    if offer.manifest_sha256 is None or have >= offer.serial:
        return ()
    best: dict[int, tuple[int, tuple[OfferedIncrement, ...]]] = {have: (0, ())}
    for item in sorted(offer.increments, key=lambda item: (item.start, item.goal)):
        if item.start not in best or item.goal > offer.serial:
            continue
        size, way = best[item.start]
        total = size + item.size
        if len(way) < MAX_CHAIN and (item.goal not in best or total < best[item.goal][0]):
            best[item.goal] = total, (*way, item)
    size, way = best.get(offer.serial, (pack_bytes, ()))
    return way if size < pack_bytes else ()
