"""Measures the feed: bytes of increments, compiling, activating, memory, lookups, and published → blocked.

The first five natively, with the agent's own code, the real engine and the real gate; the last in the lab, with the
box in QEMU. Lists and rules are real ones where the user gives directories of them, else generated; the result says so.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omamori_protocol.feed_manifest import FeedManifest, ListKind, PackFile, PackList, PackRules
from omamori_protocol.vocabulary import Action, Function, Severity
from omamori_signatures.engine import Engine
from omamori_signatures.pack_writer import write_pack

from . import machine, products
from .addresses import NEW_DOMAIN, PC2, ROUTER_IPV4
from .benchmark import Benchmark, Figure, median
from .feed_history import read_histories, read_names
from .feed_lane import Activation, FeedLane
from .feed_lookups import engine_us_per_query
from .lab import Lab
from .measured_lanes import memory_mib
from .native_wire import obtain_programs
from .progress import Progress
from .rule_set import RuleSet, obtain_rules
from .run import run
from .settings import LabSettings
from .waiting import wait_for

NAME = "feed"
NAMES, DIGESTS, ADDRESSES = 1_000_000, 200_000, 100_000
_CHANGES = 10_000
_RULES = (20_000, 40_000)
_BUDGET_MIB = 1024
_MIB = 1 << 20
_BUFFERS = (("dns", "dns.query"), ("http", "http.host"), ("tls", "tls.sni"), ("quic", "quic.sni"))
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


@dataclasses.dataclass(frozen=True)
class Indicators:
    """Lines of three lists, in order and once."""

    names: Sequence[bytes]
    digests: Sequence[bytes]
    addresses: Sequence[bytes]
    origin: str

    @staticmethod
    def obtain(lists: Path | None, count: int = NAMES) -> Indicators:
        """Return real names if a directory has them, made up to `count`; digests and addresses are generated."""
        source = random.Random(20261122)  # noqa: S311 - to look alike every time
        real = read_names(lists)[:count] if lists else []
        made = {f"{source.getrandbits(50):x}.example{number % 977}.com".encode() for number in range(count - len(real))}
        digests = sorted({f"{source.getrandbits(256):064x}".encode() for _ in range(DIGESTS)})
        addresses: set[bytes] = set()
        while len(addresses) < ADDRESSES:
            bits = source.getrandbits(24)
            addresses.add(f"{source.randint(11, 99)}.{bits >> 16}.{bits >> 8 & 255}.{bits & 255}".encode())
        return Indicators(
            sorted({*real, *made}), digests, sorted(addresses), f"{len(real)} real names, {len(made)} generated"
        )


def write_feed_pack(
    path: Path, serial: int, rules: RuleSet, lists: Mapping[str, tuple[ListKind, Sequence[bytes]]], *, extra: str = ""
) -> int:
    """Write a pack of these rules and lists; return its bytes."""
    files = {f"lists/{name}.txt": b"".join(line + b"\n" for line in lines) for name, (_kind, lines) in lists.items()}
    matching = "".join(_list_rules(name, kind, number) for number, (name, (kind, _lines)) in enumerate(lists.items()))
    files["rules/bench.rules"] = rules.text + matching.encode() + extra.encode()
    manifest = FeedManifest(
        serial=serial,
        created="2026-11-22T00:00:00Z",
        channel="bench",
        engine_min="8.0.0",
        files=tuple(PackFile(path=name, size=len(data), sha256=_sha256(data)) for name, data in files.items()),
        lists=tuple(
            PackList(
                name=name,
                kind=kind,
                path=f"lists/{name}.txt",
                count=len(lines),
                function=Function.VIRUS if kind is ListKind.SHA256 else Function.DANGEROUS_SITE,
                severity=Severity.TWO,
                action=Action.BLOCKED,
            )
            for name, (kind, lines) in lists.items()
        ),
        # The engine leaves out some rules of public sets; how many is not the activation's business here.
        rules=(PackRules(path="rules/bench.rules", count=0),),
    )
    data = write_pack(manifest, files)
    path.write_bytes(data)
    return len(data)


def _list_rules(name: str, kind: ListKind, number: int) -> str:
    sid = 1_900_000 + 20 * number
    if kind is ListKind.SHA256:
        return f'drop tcp any any -> any any (msg:"digest"; filesha256:{name}.sha256; sid:{sid};)\n'
    if kind is not ListKind.DOMAIN:
        return ""
    text = ""
    for offset, (protocol, buffer) in enumerate(_BUFFERS):
        head = f'{"drop:packet" if protocol == "dns" else "drop"} {protocol} any any -> any any (msg:"name"; '
        exact, domain = f"{buffer}; to_lowercase; dataset:", f"{buffer}; to_lowercase; domain; dataset:"
        text += f"{head}{domain}isset,{name}; sid:{sid + 2 * offset};)\n"
        text += f"{head}{exact}isset,{name}; {domain}isnotset,{name}; sid:{sid + 2 * offset + 1};)\n"
    return text


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def measure(
    settings: LabSettings,
    progress: Progress,
    *,
    lists: Path | None,
    rules: Sequence[Path],
    only: Sequence[str] = (),
    indicators: int = 100,
) -> Benchmark:
    """Measure everything, or only some parts: ``increments``, ``compile``, ``native``, ``blocked``.

    Args:
        settings: Of the lab.
        progress: Told what is being done.
        lists: Directory of real lists, see `feed_history`.
        rules: Directories of real rules, see `rule_set`.
        only: Parts to measure; empty for all.
        indicators: How many are published and waited for in the lab.
    """
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    versions: dict[str, str] = {}
    if lists is not None and _wanted(only, "increments"):
        progress.step("increments of real lists")
        figures += _increments(lists)
    if _wanted(only, "compile") or _wanted(only, "native"):
        progress.step("indicators")
        found = Indicators.obtain(lists)
        versions["lists"] = found.origin
        scratch = settings.state / "bench-feed"
        scratch.mkdir(parents=True, exist_ok=True)
        if _wanted(only, "compile"):
            progress.step("compile")
            figures += _compile(found, scratch)
        if _wanted(only, "native"):
            figures += _native(found, rules, scratch, progress, details)
    if _wanted(only, "blocked"):
        products.ensure_keys(settings.keys)
        lab = Lab(settings, progress)
        with lab.running():
            lab.boot()
            figures += _blocked(lab, progress, indicators)
    return Benchmark(
        name=NAME,
        title="The feed",
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        machine=machine.describe(),
        versions=versions,
        figures=tuple(figures),
        details=details,
    )


def _wanted(only: Sequence[str], part: str) -> bool:
    return not only or part in only


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


def _compile(found: Indicators, scratch: Path) -> Iterator[Figure]:
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


def _native(
    found: Indicators, directories: Sequence[Path], scratch: Path, progress: Progress, details: dict[str, Any]
) -> Iterator[Figure]:
    programs, tree = obtain_programs()
    for wanted in _RULES:
        progress.step(f"activation of {wanted} rules")
        lane = FeedLane(programs, tree)
        lane.start()
        try:
            # Public sets hold some rules that this engine does not load; the box would refuse the whole pack.
            rules = lane.loadable(obtain_rules(directories, wanted, Engine.in_root(tree)))
            yield from _activations(lane, found, rules, scratch, details)
            if wanted == _RULES[0]:
                progress.step("changes and lookups")
                yield from _changes(lane, found)
        finally:
            lane.stop()
    progress.step("lookups without lists")
    bare = FeedLane(programs, tree)
    bare.start()
    try:
        pack = scratch / "small.tar.gz"
        small = {"names": (ListKind.DOMAIN, [b"malware.test"])}
        write_feed_pack(pack, 1, bare.loadable(obtain_rules(directories, _RULES[0], Engine.in_root(tree))), small)
        bare.activate(bare.take(pack, 1))
        yield _lookup("lookup, list of one name", bare)
    finally:
        bare.stop()


def _activations(
    lane: FeedLane, found: Indicators, rules: RuleSet, scratch: Path, details: dict[str, Any]
) -> Iterator[Figure]:
    lists = {
        "names": (ListKind.DOMAIN, found.names),
        "digests": (ListKind.SHA256, found.digests),
        "addresses": (ListKind.IP, found.addresses),
    }
    size = (
        f"{rules.count} rules, {len(found.names)} names, {len(found.digests)} digests, {len(found.addresses)} addresses"
    )
    first, second = scratch / "first.tar.gz", scratch / "second.tar.gz"
    packed = write_feed_pack(first, 1, rules, lists)
    write_feed_pack(
        second, 2, rules, lists, extra='alert ip any any -> any any (msg:"more"; ip_proto:255; sid:1899999;)\n'
    )
    began = time.monotonic()
    feed = lane.take(first, 1)
    yield Figure(
        name=f"unpacking, {rules.count} rules",
        value=round(time.monotonic() - began, 1),
        unit="s",
        explanation=f"A whole pack of {packed / _MIB:.1f} MiB ({size}) into the box's store, checked line by line.",
    )
    yield from _activation(f"full activation, {rules.count} rules", lane.activate(feed), f"{size}, new lists: restart")
    feed = lane.take(second, 2)
    yield from _activation(f"activation by reload, {rules.count} rules", lane.activate(feed), "one rule more: reload")
    yield Figure(
        name=f"engine, {rules.count} rules and all lists",
        value=round(memory_mib(lane.engine.pid)),
        unit="MiB",
        explanation=f"Resident memory of the engine afterwards: {size}.",
    )
    stats = lane.control.ruleset_stats()
    details[f"{rules.count} rules"] = {"origin": rules.origin, "loaded": stats.loaded, "failed": stats.failed}


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


def _changes(lane: FeedLane, found: Indicators) -> Iterator[Figure]:
    new = [b"bench-%05d.test" % number for number in range(_CHANGES)]
    for word, is_added in (("added", True), ("removed", False)):
        began = time.monotonic()
        lane.control.change_dataset("names", [(is_added, name) for name in new])
        yield Figure(
            name=f"{_CHANGES} names {word}",
            value=round(time.monotonic() - began, 2),
            unit="s",
            explanation=f"Entries of the engine's list of {len(found.names)}, over its socket, without a reload.",
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
    yield _lookup(f"lookup, list of {len(found.names)} names", lane)


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
