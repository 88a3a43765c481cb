"""Measures what a box with a repository does: from published to blocked, and back from a bad feed. Natively."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from omamori_protocol.feed_manifest import ListKind
from omamori_protocol.vocabulary import FeedState

from . import feed_way_back
from .benchmark import Figure, median
from .errors import LabError
from .feed_packs import write_feed_pack
from .feed_questions import Questions
from .feed_way_back import WayBack
from .native_wire import obtain_programs
from .progress import Progress
from .rule_set import RuleSet
from .served_feed_lane import ServedFeedLane

BACK_RULES = 10_000  # as many as the compiler makes of today's public rules
_WAIT_S = 60.0
_ROOM_BYTES = 64 << 20
_MANY = 1_000_000
_BUDGET_S, _BACK_BUDGET_S = 5, 30


def published_to_blocked(scratch: Path, progress: Progress, count: int) -> Iterator[Figure]:
    """Publish one name more at a time, and ask for it until no answer comes."""
    lane = ServedFeedLane(*obtain_programs())
    lane.start()
    try:
        names = [b"malware.test"]
        before = scratch / "chain-1.tar.gz"
        write_feed_pack(before, 1, _no_rules(), {"names": (ListKind.DOMAIN, names)})
        lane.publish(before, 1)
        lane.work()
        lane.wait_shown(1, FeedState.ACTIVE)
        taken = []
        with Questions(lane.lane) as questions:
            for serial in range(2, count + 2):
                name = f"published-{serial}.test"
                names = sorted([*names, name.encode()])
                pack = scratch / f"chain-{serial}.tar.gz"
                write_feed_pack(pack, serial, _no_rules(), {"names": (ListKind.DOMAIN, names)})
                if not questions.is_answered(name):
                    raise LabError(f"{name} is blocked before it is published")
                at_s = lane.publish(pack, serial, since=before)
                taken.append(max(0.0, questions.first_unanswered_s(name, timeout_s=_WAIT_S) - at_s))
                lane.wait_shown(serial, FeedState.ACTIVE)
                before.unlink()
                before = pack
                progress.moment(f"{serial - 1} of {count}: {taken[-1]:.2f} s")
        if not _is_by_increments(lane):
            raise LabError("a whole pack was fetched where an increment was enough")
    finally:
        lane.stop()
    ordered = sorted(taken)
    said = (
        "From the moment the repository names a feed with one more name to the first question for that name that stays"
        " without an answer; natively, without the broker's part, which the lab measures."
    )
    yield median("published → blocked, native, p50", taken, "s", said, budget=f"≤ {_BUDGET_S} s")
    yield Figure(
        name="published → blocked, native, p99",
        value=round(ordered[max(0, -(-99 * len(ordered) // 100) - 1)], 3),
        unit="s",
        explanation=f"The same: 99 of 100 of {count} names were blocked within this time.",
        budget=f"≤ {_BUDGET_S} s",
    )


def ways_back(scratch: Path, rules: RuleSet, progress: Progress) -> Iterator[Figure]:
    """Publish bad feeds to a box with many rules, and wait until it is where it was."""
    lane = ServedFeedLane(*obtain_programs())
    lane.start()
    try:
        packs = {
            1: _pack(scratch, 1, rules),
            2: _pack(
                scratch, 2, rules, extra='alert ip any any -> any any (msg:"bad"; no_such_word:1; sid:1899999;)\n'
            ),
            3: _pack(scratch, 3, rules, extra='alert ip any any -> any any (msg:"more"; ip_proto:255; sid:1899999;)\n'),
            4: _pack(scratch, 4, rules, many=[b"host%07d.example%d.com" % (each, each % 997) for each in range(_MANY)]),
        }
        lane.publish(packs[1], 1)
        lane.work()
        lane.wait_shown(1, FeedState.ACTIVE)
        what = f"with {rules.count} rules ({rules.origin})"
        progress.step("a feed that does not load")
        found = feed_way_back.from_refusal(lane, packs[2], 2)
        yield Figure(
            name="way back: rules that do not load",
            value=round(found.seconds, 1),
            unit="s",
            explanation=f"From publication to the serial's quarantine, {what}: the engine's test refuses it, and the"
            " running engine is never touched.",
            budget=f"≤ {_BACK_BUDGET_S} s",
        )
        progress.step("a feed with which the engine crashes")
        yield from _back("the engine crashes", feed_way_back.from_crashes(lane, packs[3], 3), what)
        progress.step("a feed for which memory does not suffice")
        found = feed_way_back.from_no_memory(lane, packs[4], 4, room_bytes=_ROOM_BYTES)
        yield from _back("no memory for the lists", found, f"{what} and a new list of {_MANY} names")
    finally:
        lane.stop()


def _back(name: str, found: WayBack, what: str) -> Iterator[Figure]:
    yield Figure(
        name=f"way back: {name}",
        value=found.protected_s,
        unit="s",
        explanation=f"From the engine's first end ({found.deaths} in all) to an engine that inspects with the feed"
        f" before, {what}; the serial is quarantined. The wire passes all the time.",
        budget=f"≤ {_BACK_BUDGET_S} s",
    )
    yield Figure(
        name=f"way back: {name}, proved",
        value=found.seconds,
        unit="s",
        explanation="The same until the feed before has settled for ten seconds and noticed its canary.",
    )


def _pack(scratch: Path, serial: int, rules: RuleSet, *, extra: str = "", many: Sequence[bytes] = ()) -> Path:
    path = scratch / f"back-{serial}.tar.gz"
    lists: dict[str, tuple[ListKind, Sequence[bytes]]] = {"names": (ListKind.DOMAIN, [b"malware.test"])}
    if many:
        lists["many"] = (ListKind.DOMAIN, many)
    write_feed_pack(path, serial, rules, lists, extra=extra)
    return path


def _no_rules() -> RuleSet:
    return RuleSet(text=b"", count=0, origin="only those about lists")


def _is_by_increments(lane: ServedFeedLane) -> bool:
    return lane.packs_fetched == 1
