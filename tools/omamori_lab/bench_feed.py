"""Measures the feed: bytes of increments, compiling, activating, memory, lookups, ways back, published → blocked.

Natively, with the agent's own code, the real engine and the real gate; published → blocked once more in the lab, with
the box in QEMU. Lists and rules are real ones where the user gives directories of them, else generated; the result says
so. Each part can be measured by itself; what was measured of the others before stays in the result.
"""

from __future__ import annotations

import datetime as dt
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omamori_protocol.feed_manifest import ListKind

from . import bench_feed_chain, machine, products
from .addresses import NEW_DOMAIN, PC2, ROUTER_IPV4
from .benchmark import MEASURED, Benchmark, Figure, median
from .errors import SetupError
from .feed_history import read_histories, read_names
from .feed_lane import Activation, FeedLane
from .feed_lookups import engine_us_per_query
from .feed_packs import write_feed_pack
from .feed_prepared import LargePacks, Lists, Prepared
from .lab import Lab
from .measured_lanes import memory_mib
from .native_wire import obtain_programs
from .progress import Progress
from .run import run
from .settings import LabSettings
from .waiting import wait_for

NAME = "feed"
NAMES, DIGESTS, ADDRESSES = 1_000_000, 200_000, 100_000
_CHANGES = 10_000
_RULES = {"20000": 20_000, "40000": 40_000}
PARTS = ("prepare", "increments", "compile", *_RULES, "lookups", "chain", "back", "blocked")
_BUDGET_MIB = 1024
_MIB = 1 << 20
_REMARKS = (
    """\
**Seconds and bytes.** Packets lost, memory and bytes are what they are; seconds are as good as the machine was free.
Its load stands above, of the part that was measured last. An activation has the engine compile its rules twice, in its
test and when it takes them over.""",
    """\
**What fits.** 20 000 rules, a million names, 200 000 digests and 100 000 addresses, while they are switched, fit beside
the 220 MiB that the rest of a box needs of 1 GiB. 40 000 rules with all of these do not, and `omamori-feed check`
refuses such a pack for a board of 1 GiB by its estimate.""",
    """\
**Ways back.** The engine has to die three times within a minute before a feed that has settled is blamed, so that way
takes three loads of its rules. A feed whose rules do not load, or for which memory ends, is noticed at once.""",
)
_TOML = """\
format = 1
engine_min = "8.0.0"

[[lists]]
name = "names"
kind = "domain"
file = "lists/names.txt"
function = "dangerous-site"
severity = 2
action = "blocked"
direction = "out"
sid = 1910000
licence = "-"
origin = "bench"

[[lists]]
name = "digests"
kind = "sha256"
file = "lists/digests.txt"
function = "virus"
severity = 2
action = "blocked"
direction = "in"
sid = 1910020
licence = "-"
origin = "bench"

[[lists]]
name = "addresses"
kind = "ip"
file = "lists/addresses.txt"
function = "firewall"
severity = 1
action = "blocked"
licence = "-"
origin = "bench"
"""


def obtain_indicators(lists: Path | None, count: int = NAMES) -> Lists:
    """Return real names if a directory has them, made up to `count`; digests and addresses are generated."""
    source = random.Random(20261122)  # noqa: S311 - to look alike every time
    real = read_names(lists)[:count] if lists else []
    made = {f"{source.getrandbits(50):x}.example{number % 977}.com".encode() for number in range(count - len(real))}
    digests = sorted({f"{source.getrandbits(256):064x}".encode() for _ in range(DIGESTS)})
    addresses: set[bytes] = set()
    while len(addresses) < ADDRESSES:
        bits = source.getrandbits(24)
        addresses.add(f"{source.randint(11, 99)}.{bits >> 16}.{bits >> 8 & 255}.{bits & 255}".encode())
    origin = f"{len(real)} real names, {len(made)} generated"
    return Lists(sorted({*real, *made}), digests, sorted(addresses), origin)


def measure(
    settings: LabSettings,
    progress: Progress,
    *,
    lists: Path | None,
    rules: Sequence[Path],
    only: Sequence[str] = (),
    indicators: int = 100,
) -> Benchmark:
    """Measure everything, or only some parts.

    Args:
        settings: Of the lab.
        progress: Told what is being done.
        lists: Directory of real lists, see `feed_history`.
        rules: Directories of real rules, see `public_rules`.
        only: Some of `PARTS`; empty for all. ``prepare`` makes what others measure with and measures nothing.
        indicators: How many are published and waited for, natively and in the lab.

    Raises:
        SetupError: There is no such part.
    """
    if unknown := set(only) - set(PARTS):
        raise SetupError(f"no part {', '.join(sorted(unknown))} of this bench", hint=", ".join(PARTS))
    run_ = _Run(settings, progress, lists, rules, indicators)
    taken = {part: tuple(run_.measure(part)) for part in PARTS if part in (only or PARTS)}
    return Benchmark(
        name=NAME,
        title="The feed",
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        machine=machine.describe(),
        versions=run_.versions,
        figures=tuple(figure for figures in taken.values() for figure in figures),
        remarks=_REMARKS,
        details={
            **run_.details,
            MEASURED: {part: [figure.name for figure in figures] for part, figures in taken.items()},
        },
    )


class _Run:
    """One run: what several parts need is obtained once."""

    def __init__(
        self,
        settings: LabSettings,
        progress: Progress,
        lists: Path | None,
        rules: Sequence[Path],
        indicators: int,
    ) -> None:
        self._settings = settings
        self._progress = progress
        self._lists = lists
        self._rules = rules
        self._count = indicators
        self._scratch = settings.state / "bench-feed"
        self._indicators: Lists | None = None
        self._prepared = Prepared(self._scratch, rules, self._found)
        self.versions: dict[str, str] = {}
        self.details: dict[str, Any] = {}

    def measure(self, part: str) -> Iterator[Figure]:
        """Measure one part."""
        self._progress.step(f"feed: {part}")
        if part in _RULES:
            yield from self._activate(_RULES[part], has_changes=part == next(iter(_RULES)))
            return
        match part:
            case "prepare":
                for wanted in _RULES.values():
                    self._prepared.packs(wanted)
                self._prepared.rules(bench_feed_chain.BACK_RULES)
            case "increments":
                yield from _increments(self._lists) if self._lists is not None else ()
            case "compile":
                yield from _compile(self._found(), self._scratch)
            case "lookups":
                yield from self._lookups()
            case "chain":
                yield from bench_feed_chain.published_to_blocked(self._scratch, self._progress, self._count)
            case "back":
                rules = self._prepared.rules(bench_feed_chain.BACK_RULES)
                yield from bench_feed_chain.ways_back(self._scratch, rules, self._progress)
            case _:
                yield from self._blocked()

    def _found(self) -> Lists:
        if self._indicators is None:
            self._indicators = obtain_indicators(self._lists)
            self.versions["lists"] = self._indicators.origin
        return self._indicators

    def _activate(self, wanted: int, *, has_changes: bool) -> Iterator[Figure]:
        packs = self._prepared.packs(wanted)
        self.versions |= {"rules": packs.rules_origin, "lists": packs.lists_origin}
        lane = FeedLane(*obtain_programs())
        lane.start()
        try:
            yield from _activations(lane, packs, wanted, self.details)
            if has_changes:
                yield from _changes(lane, packs.names)
        finally:
            lane.stop()

    def _lookups(self) -> Iterator[Figure]:
        rules = self._prepared.rules(next(iter(_RULES.values())))
        lane = FeedLane(*obtain_programs())
        lane.start()
        try:
            pack = self._scratch / "small.tar.gz"
            write_feed_pack(pack, 1, rules, {"names": (ListKind.DOMAIN, [b"malware.test"])})
            lane.activate(lane.take(pack, 1))
            yield _lookup("lookup, list of one name", lane)
        finally:
            lane.stop()

    def _blocked(self) -> Iterator[Figure]:
        products.ensure_keys(self._settings.keys)
        lab = Lab(self._settings, self._progress)
        with lab.running():
            lab.boot()
            yield from _blocked(lab, self._progress, self._count)


def _increments(lists: Path) -> Iterator[Figure]:
    total = 0.0
    for history in read_histories(lists):
        sizes = [step.size for step in history.steps]
        last = history.steps[-1]
        total += history.mean_bytes
        yield Figure(
            name=f"increment, {history.name}",
            value=round(history.mean_bytes),
            unit="B/step",
            explanation=f"{len(sizes)} consecutive versions of a real list of about {last.lines} lines: median"
            f" {statistics.median(sizes):.0f} B, largest {max(sizes)} B.",
        )
    yield Figure(
        name="increments, all lists",
        value=round(total),
        unit="B/day",
        explanation="Sum of the means above: what a box fetches for one publication a day, metadata aside.",
    )


def _compile(found: Lists, scratch: Path) -> Iterator[Figure]:
    source = scratch / "source"
    for name in ("lists", "rules"):
        (source / name).mkdir(parents=True, exist_ok=True)
    (source / "feed.toml").write_text(_TOML)
    for name, lines in (("names", found.names), ("digests", found.digests), ("addresses", found.addresses)):
        (source / f"lists/{name}.txt").write_bytes(b"".join(line + b"\n" for line in lines))
    out = scratch / "compiled.tar.gz"
    began = time.monotonic()
    line: list[str | Path] = [
        products.program("omamori-feed"),
        "build",
        source,
        "--serial",
        "1",
        "--channel",
        "bench",
        "--out",
        out,
    ]
    run(line, timeout_s=1800)
    yield Figure(
        name="compile",
        value=round(time.monotonic() - began, 1),
        unit="s",
        explanation=f"`omamori-feed build` with {len(found.names)} names, {len(found.digests)} digests and"
        f" {len(found.addresses)} addresses ({found.origin}): a pack of {out.stat().st_size / _MIB:.1f} MiB.",
    )
    yield Figure(
        name="compile, memory",
        value=round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        unit="MiB",
        explanation="The most resident memory of the publisher's compiler in that run.",
    )


def _activations(lane: FeedLane, packs: LargePacks, wanted: int, details: dict[str, Any]) -> Iterator[Figure]:
    size = f"{packs.rules} rules, {packs.names} names, {packs.digests} digests, {packs.addresses} addresses"
    began = time.monotonic()
    feed = lane.take(packs.first, 1)
    yield Figure(
        name=f"unpacking, {wanted} rules",
        value=round(time.monotonic() - began, 1),
        unit="s",
        explanation=f"A whole pack of {packs.first.stat().st_size / _MIB:.1f} MiB ({size}) into the box's store,"
        " checked line by line.",
    )
    yield from _activation(f"full activation, {wanted} rules", lane.activate(feed), f"{size}, new lists: restart")
    feed = lane.take(packs.second, 2)
    yield from _activation(f"activation by reload, {wanted} rules", lane.activate(feed), "one rule more: reload")
    yield Figure(
        name=f"engine, {wanted} rules and all lists",
        value=round(memory_mib(lane.engine.pid)),
        unit="MiB",
        explanation=f"Resident memory of the engine afterwards: {size} ({packs.rules_origin}).",
    )
    yield Figure(
        name=f"gate, {packs.addresses} addresses, {wanted} rules",
        value=round(lane.gate_bytes() / _MIB, 1),
        unit="MiB",
        explanation="Memory of the kernel for all maps of the gate then, as the kernel counts it.",
    )
    stats = lane.control.ruleset_stats()
    details[f"{wanted} rules"] = {"origin": packs.rules_origin, "loaded": stats.loaded, "failed": stats.failed}


def _activation(name: str, done: Activation, what: str) -> Iterator[Figure]:
    yield Figure(
        name=name,
        value=done.seconds,
        unit="s",
        explanation=f"Test, switch, engine, two seconds of settling ({what}).",
    )
    yield Figure(
        name=f"{name}: packets lost",
        value=done.lost,
        unit="packets",
        explanation=f"Of {done.sent} numbered datagrams, 200 a second, through the box meanwhile.",
        budget="0",
    )
    yield Figure(
        name=f"{name}: memory peak",
        value=done.peak_mib,
        unit="MiB",
        explanation="The most that the engine and its test had together, sampled every 50 ms.",
        budget=f"≤ {_BUDGET_MIB} with everything else",
    )


def _changes(lane: FeedLane, names: int) -> Iterator[Figure]:
    new = [b"bench-%05d.test" % number for number in range(_CHANGES)]
    for word, is_added in (("added", True), ("removed", False)):
        began = time.monotonic()
        lane.control.change_dataset("names", [(is_added, name) for name in new])
        yield Figure(
            name=f"{_CHANGES} names {word}",
            value=round(time.monotonic() - began, 2),
            unit="s",
            explanation=f"Entries of the engine's list of {names}, over its socket, without a reload.",
        )
    began = time.monotonic()
    addresses = [(b"100.%d.%d.1" % (number >> 8, number & 255), 9) for number in range(_CHANGES)]
    lane.gate.change_block(addresses)
    lane.gate.change_block([(line, None) for line, _number in addresses])
    yield Figure(
        name=f"{_CHANGES} addresses added and removed",
        value=round(time.monotonic() - began, 2),
        unit="s",
        explanation="Entries of the gate's block list, which acts at once.",
    )
    yield _lookup(f"lookup, list of {names} names", lane)


def _lookup(name: str, lane: FeedLane) -> Figure:
    return median(
        name,
        [engine_us_per_query(lane) for _ in range(3)],
        "µs",
        "Processor time of the engine for one DNS query that is in no list, everything included.",
    )


def _blocked(lab: Lab, progress: Progress, count: int) -> Iterator[Figure]:
    progress.step(f"published → blocked, {count} indicators")
    feeds, pc = lab.surroundings.feeds, lab.client(PC2.name)
    taken = []
    for number in range(count):
        domain = f"bench-{number}-{NEW_DOMAIN}"
        feeds.add_dangerous(domain)
        published = feeds.publish()
        blocked_s = wait_for(_asker(pc, domain), f"{domain} blocked", timeout_s=60, every_s=0.05)
        taken.append(max(0.0, blocked_s - published.at_s))
        progress.moment(f"{number + 1} of {count}: {taken[-1]:.2f} s")
    ordered = sorted(taken)
    yield median(
        "published → blocked, p50",
        taken,
        "s",
        "From the moment the repository names a feed with one more name, taken as an increment, to the first question"
        " for that name that stays without an answer.",
        budget="≤ 5 s",
    )
    yield Figure(
        name="published → blocked, p99",
        value=round(ordered[max(0, -(-99 * len(ordered) // 100) - 1)], 3),
        unit="s",
        explanation=f"The same: 99 of 100 of {count} indicators were blocked within this time.",
        budget="≤ 5 s",
    )


def _asker(pc: Any, domain: str) -> Callable[[], float | None]:
    def asked() -> float | None:
        at_s = time.time()
        return at_s if pc.resolve(domain, server=ROUTER_IPV4, timeout_s=1) is None else None

    return asked
