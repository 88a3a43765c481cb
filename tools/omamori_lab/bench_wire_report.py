"""The wire bench's result as figures: a ratio for each measurement, what the engine costs, how much memory it takes."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .bench_wire import BRIDGE, MEASUREMENTS, OMAMORI, STOCK, Measurement, Sample, WireResult, ratios
from .benchmark import Figure, median

# What profiles of the lanes showed; the figures above are its measure.
LIMITS = (
    """\
**What limits new connections.** A short HTTP connection is a dozen packets, and the engine looks at each of them: bare
acknowledgements too, which it needs to follow the stream. Somewhat more than half of a worker's time is the kernel's,
because the verdict on a packet sends it on its way, through bridge and driver and here even into the receiving host,
before the worker goes on. What the gate, the bridge's packet filter and the queue cost by themselves is small beside
it. Finer groups of rules, larger batches of verdicts, a longer queue and other settings of the allocator made no
difference that could be measured. What helps is more cores with a worker each, as far as connections have different
pairs of addresses: the kernel spreads packets over the queues by addresses alone, so that both directions and all
fragments of a flow meet the same worker.""",
    """\
**Which rules cost.** Not their number: those that the engine has to read to their end because it has found what it
looks for first. A list of hosts in the form of rules for another engine had `Host` there, 2853 times, and cost
milliseconds per connection; a single rule that looks for a run of zeros made a UDP packet of zeros ten times as dear.
The feed's compiler leaves such rules out ([ADR 27](adr/0027-rules-are-judged-by-what-the-engine-looks-for-first.md));
lists never become rules. So Omamori is measured with what a box would load: the rules that the compiler takes over,
filled up to the number, and the product's own about lists and applications, which the stock engine beside it does not
have.""",
    """\
**What limits inspected UDP.** The rules' part of a packet is two to three microseconds; the rest is the way through the
queue to the engine and back, a packet at a time.""",
    """\
**What limits short TLS connections.** Six packets go through the queue with TLS 1.3: the TCP handshake, the client's
hello, its acknowledgement, and the server's answer; TLS 1.2 has two more. Each wakes a worker whose caches belong to
others by then, and costs two to four times as much as a packet of a busy flow. Names, fingerprints and versions stand
in those packets, so none of them can be spared.""",
    """\
**What limits several streams.** A stream of an unknown protocol is inspected for its first megabyte, TLS for its
handshake only, HTTP for 20 MiB, so that a file's hash is known. In a short run those first megabytes of each stream
show; after them every stream runs at the speed of the bridge.""",
    """\
**A full queue.** Inspected TCP hardly outruns the queue's room, because its window ends; UDP does. Then packets pass
without inspection, are counted, and those that wait come late. A shorter queue would make them less late, and would
let bursts of ordinary downloads pass uninspected.""",
)
_NAMES = {BRIDGE: "bare bridge", STOCK: "stock engine (AF_PACKET)", OMAMORI: "Omamori"}


def figures(result: WireResult) -> tuple[Figure, ...]:
    """Return the figures of a run in which Omamori's lane was measured."""
    made: list[Figure] = []
    for measurement in MEASUREMENTS:
        samples = result.samples.get(measurement.name)
        if samples:
            made.append(_ratio(measurement, samples))
    made += _costs(result)
    made += _memory(result)
    return tuple(made)


def details(result: WireResult) -> dict[str, Any]:
    """Return everything that was measured, for the file."""
    return {
        "rules": result.rules,
        "seconds of one measurement": result.seconds,
        "memory, MiB": {name: round(value, 1) for name, value in result.memory_mib.items()},
        "samples": {
            name: {lane: [_plain(sample) for sample in taken] for lane, taken in lanes.items()}
            for name, lanes in result.samples.items()
        },
    }


def _ratio(measurement: Measurement, samples: Mapping[str, Sequence[Sample]]) -> Figure:
    values = {lane: statistics.median(sample.value for sample in taken) for lane, taken in samples.items()}
    parts = [f"{_NAMES[lane]} {value:.4g}" for lane, value in values.items()]
    if STOCK in samples:
        stock = statistics.median(ratios(samples, STOCK))
        parts.append(f"so the stock engine is at {stock:.2f} × the bare bridge")
    # A bound on a ratio holds for throughput; of a delay, less is better.
    direction = " (less is better)" if measurement.is_delay else ""
    text = f"{measurement.how[0].upper()}{measurement.how[1:]}. Medians in {measurement.unit}: {', '.join(parts)}"
    return median(
        measurement.title,
        ratios(samples, OMAMORI),
        "× bare bridge",
        f"{text}{direction}.{_quantiles(samples)}",
        budget=measurement.budget,
    )


def _quantiles(samples: Mapping[str, Sequence[Sample]]) -> str:
    if not all("p99_us" in sample.more for taken in samples.values() for sample in taken):
        return ""
    parts = [
        f"{_NAMES[lane]} {statistics.median(sample.more['p99_us'] for sample in taken):.0f}"
        for lane, taken in samples.items()
    ]
    return f" p99 in µs: {', '.join(parts)}."


def _costs(result: WireResult) -> Iterator[Figure]:
    for name, what, explanation, budget in (
        (
            "https_10m",
            "engine, per bypassed gigabyte",
            "HTTPS objects of 10 MB: the handshake is inspected, the rest goes past the engine.",
            "≤ 0.1 s",
        ),
        (
            "https_100k",
            "engine, per gigabyte in small HTTPS objects",
            "HTTPS objects of 100 kB, ten a connection: a handshake for each megabyte.",
            "",
        ),
    ):
        samples = result.samples.get(name)
        if samples:
            yield median(
                what,
                [sample.engine_s / (sample.work / 1e9) for sample in samples[OMAMORI]],
                "s",
                f"Processor time of the engine while a gigabyte passes in {explanation}{_of_stock(samples)}",
                budget=budget,
            )
    for name, what, unit, scale in (
        ("tcp4_down", "engine, per gigabyte of an unknown protocol", "s", 1e9),
        ("http_10m", "engine, per gigabyte over HTTP", "s", 1e9),
        ("http_connections", "engine, per HTTP connection", "µs", 1e-6),
        ("https_connections", "engine, per HTTPS connection", "µs", 1e-6),
    ):
        if name in result.samples:
            yield _cost(result, name, what, unit, scale)
    if "udp1400" in result.samples:
        packets = [
            sample.engine_s / sample.queued * 1e6 for sample in result.samples["udp1400"][OMAMORI] if sample.queued
        ]
        if packets:
            yield median(
                "engine, per inspected packet",
                packets,
                "µs",
                "Processor time of the engine per 1400-byte UDP packet that its queue handed over during the flood.",
                budget="≤ 6 µs",
            )
            passed = [100 * sample.uninspected / sample.work for sample in result.samples["udp1400"][OMAMORI]]
            yield median(
                "flood past a full queue",
                passed,
                "%",
                "Part of the 1400-byte flood that passed without inspection because the queue was full: the box never"
                " drops for want of time, and counts what it let pass.",
            )


def _cost(result: WireResult, name: str, what: str, unit: str, scale: float) -> Figure:
    # `scale` is units of work for seconds, or seconds per unit for microseconds.
    def of(sample: Sample) -> float:
        each = sample.engine_s / sample.work
        return each * scale if scale > 1 else each / scale

    stock = result.samples[name].get(STOCK)
    beside = f" The stock engine: {statistics.median(of(sample) for sample in stock):.4g} {unit}." if stock else ""
    packets = result.samples[name][OMAMORI]
    how = ""
    if scale < 1:
        per_connection = statistics.median(sample.queued / sample.work for sample in packets)
        how = f" A connection has {per_connection:.1f} inspected packets."
    passed = sum(sample.uninspected for sample in packets)
    handed = sum(sample.queued for sample in packets)
    how += f" {100 * passed / (passed + handed or 1):.2g} % of the packets found a full queue and passed uninspected."
    return median(what, [of(sample) for sample in packets], unit, f"Processor time of the engine.{how}{beside}")


def _of_stock(samples: Mapping[str, Sequence[Sample]]) -> str:
    taken = [sample.engine_s / (sample.work / 1e9) for sample in samples.get(STOCK, ())]
    return f" The stock engine: {statistics.median(taken):.3g} s." if taken else ""


def _memory(result: WireResult) -> Iterator[Figure]:
    for moment, explanation in (
        ("loaded", f"with {result.rules}, before any traffic"),
        ("at most", "the most it had while all this was measured"),
    ):
        value = result.memory_mib.get(f"{OMAMORI}, {moment}")
        if value is None:
            continue
        stock = result.memory_mib.get(f"{STOCK}, {moment}")
        beside = f" The stock engine: {stock:.0f} MiB." if stock is not None else ""
        yield Figure(
            name=f"engine, resident memory, {moment}",
            value=round(value, 1),
            unit="MiB",
            explanation=f"Resident memory of the engine, {explanation}.{beside}",
        )


def _plain(sample: Sample) -> dict[str, Any]:
    body = dataclasses.asdict(sample)
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in body.items()}
