"""The wire at native speed: a bare bridge, the stock engine and Omamori in one run, measured in turn.

Every measurement is made in each lane before the next one, and everything again in each round, so that what else the
machine does meets all lanes alike. Clients, servers and box share the processors: rates say how much work a packet is,
not what a box of its own would reach, and only ratios within a round count. The engine's processor time
per unit of work is the steadiest figure of what inspection costs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from omamori_agent.gate import Gate
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.dataplane import PLAN
from omamori_firmware.dataplane.watch import NativeWatch

from .errors import LabError
from .load import generators
from .load.generators import Ends
from .load.programs import obtain_load_programs
from .measured_lanes import (
    StockEngine,
    UnbridgedLane,
    busy_s,
    cpu_s,
    ends,
    memory_mib,
    prepare,
    queued,
    serving,
)
from .native_wire import NativeLane, obtain_programs
from .rule_set import RuleSet, write_feed

BRIDGE, STOCK, OMAMORI = "bridge", "stock", "omamori"
LANES = (BRIDGE, STOCK, OMAMORI)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement in one lane.

    Attributes:
        value: The figure that is compared.
        work: Units of work done: bytes, connections or packets.
        engine_s: Processor time of the engine.
        busy_s: Processor time of the whole machine.
        queued: Packets that went through the engine's queue.
        uninspected: Packets that passed the box without inspection and without the engine's word, by the gate's count.
        more: Further figures by name, for example delays.
    """

    value: float
    work: float
    engine_s: float = 0.0
    busy_s: float = 0.0
    queued: int = 0
    uninspected: int = 0
    more: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is measured.

    Attributes:
        name: In the result's file.
        title: For people.
        unit: Of the value.
        how: How it is measured, the end of a sentence.
        play: Does it between two ends for some seconds; the sample has value, work and more.
        is_delay: Smaller is better.
        budget: What the design says about the ratio to the bare bridge.
    """

    name: str
    title: str
    unit: str
    how: str
    play: Callable[[Ends, int], Sample]
    is_delay: bool = False
    budget: str = ""


def _bulk(*options: str) -> Callable[[Ends, int], Sample]:
    def play(where: Ends, seconds: int) -> Sample:
        rate, size = generators.bulk(where, seconds=seconds, options=options)
        return Sample(value=rate / 1e9, work=size)

    return play


def _objects(scheme: str, path: str, at_once: int, requests: int) -> Callable[[Ends, int], Sample]:
    def play(where: Ends, seconds: int) -> Sample:
        got = generators.web(where, scheme=scheme, path=path, at_once=at_once, requests=requests, seconds=seconds)
        return Sample(
            value=got.size_bytes * 8 / got.seconds / 1e9,
            work=got.size_bytes,
            more={"failures": got.failures, "p50_us": got.delay.p50_us, "p99_us": got.delay.p99_us},
        )

    return play


def _connections(scheme: str, clients: int | None = None) -> Callable[[Ends, int], Sample]:
    def play(where: Ends, seconds: int) -> Sample:
        got = generators.web(where, scheme=scheme, path="/1k", at_once=32, requests=1, seconds=seconds, clients=clients)
        return Sample(
            value=got.connections / got.seconds,
            work=got.connections,
            more={"failures": got.failures, "p50_us": got.delay.p50_us, "p99_us": got.delay.p99_us},
        )

    return play


def _flood(size: int) -> Callable[[Ends, int], Sample]:
    def play(where: Ends, seconds: int) -> Sample:
        got = generators.flood(where, size=size, seconds=seconds)
        return Sample(
            value=got.rate / 1e3,
            work=got.received,
            more={"sent": got.sent, "gbit_s": got.rate * size * 8 / 1e9, "arrived_part": got.received / got.sent},
        )

    return play


def _delay(measure: Callable[..., generators.Delay]) -> Callable[[Ends, int], Sample]:
    def play(where: Ends, seconds: int) -> Sample:
        got = measure(where, seconds=seconds)
        return Sample(value=got.p50_us, work=got.count, more={"p99_us": got.p99_us})

    return play


MEASUREMENTS = (
    Measurement("tcp1_down", "TCP bulk, 1 stream down", "Gbit/s", "with iperf3", _bulk("--reverse"), budget="≥ 0.9"),
    Measurement("tcp1_up", "TCP bulk, 1 stream up", "Gbit/s", "with iperf3", _bulk(), budget="≥ 0.9"),
    Measurement(
        "tcp4_down",
        "TCP bulk, 4 streams down",
        "Gbit/s",
        "with iperf3",
        _bulk("--reverse", "--parallel", "4"),
        budget="≥ 0.9",
    ),
    Measurement("tcp4_up", "TCP bulk, 4 streams up", "Gbit/s", "with iperf3", _bulk("--parallel", "4"), budget="≥ 0.9"),
    Measurement(
        "https_100k",
        "HTTPS, 100 kB objects",
        "Gbit/s",
        "eight connections at a time, ten objects each, every connection with a full TLS handshake",
        _objects("https", "/100k", 8, 10),
        budget="≥ 0.9",
    ),
    Measurement(
        "https_10m",
        "HTTPS, 10 MB objects",
        "Gbit/s",
        "four connections at a time, one object each",
        _objects("https", "/10m", 4, 1),
        budget="≥ 0.9",
    ),
    Measurement(
        "http_10m",
        "HTTP, 10 MB objects",
        "Gbit/s",
        "four connections at a time, one object each; every byte is inspected, nothing is bypassed",
        _objects("http", "/10m", 4, 1),
    ),
    Measurement(
        "http_connections",
        "new HTTP connections",
        "1/s",
        "32 at a time from 16 terminals, 1 kB each",
        _connections("http"),
    ),
    Measurement(
        "http_connections_one",
        "new HTTP connections of one terminal",
        "1/s",
        "32 at a time from one address to one address, so that one queue and one worker of the engine have all of it",
        _connections("http", 1),
    ),
    Measurement(
        "https_connections",
        "new HTTPS connections",
        "1/s",
        "32 at a time from 16 terminals, 1 kB each, full handshakes",
        _connections("https"),
    ),
    *(
        Measurement(
            f"udp{size}",
            f"UDP flood, {size} bytes",
            "1000 packets/s",
            "sent as fast as it goes from 16 terminals and never bypassed; what arrives is counted",
            _flood(size),
        )
        for size in (64, 350, 1400)
    ),
    Measurement(
        "tcp_rr",
        "TCP request-response, p50",
        "µs",
        "one byte there and back on one inspected connection",
        _delay(generators.requests),
        is_delay=True,
    ),
    Measurement("ping", "ping, p50", "µs", "every 2 ms, inspected", _delay(generators.ping), is_delay=True),
)

Samples = dict[str, dict[str, list[Sample]]]


@dataclasses.dataclass(frozen=True)
class _Lane:
    ends: Ends
    lane: NativeLane
    engine_pid: int | None = None
    gate: Gate | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class WireResult:
    """What a run gave.

    Attributes:
        samples: By measurement and lane, in the order of the rounds.
        memory_mib: Resident memory of the engines: name of the lane and moment to MiB.
        rules: What the engines were loaded with, in words.
        seconds: Of one measurement.
    """

    samples: Samples
    memory_mib: Mapping[str, float]
    rules: str
    seconds: int


def measure(
    rules: RuleSet,
    *,
    rounds: int = 5,
    seconds: int = 2,
    only: Sequence[str] = (),
    lanes: Sequence[str] = LANES,
    note: Callable[[str], None] = lambda _: None,
) -> WireResult:
    """Measure in all lanes.

    Args:
        rules: What the engines inspect with.
        rounds: How often.
        seconds: Length of one measurement in one lane.
        only: Names of the measurements; all if empty.
        lanes: Which lanes; the bare bridge must be among them.
        note: Told what is going on.

    Raises:
        LabError: A lane cannot be made, or a measurement failed.
    """
    chosen = [each for each in MEASUREMENTS if not only or each.name in only]
    if rounds < 1 or seconds < 1 or not chosen or BRIDGE not in lanes:
        raise LabError("rounds and seconds must be positive, measurements known, and the bare bridge among the lanes")
    samples: Samples = {each.name: {lane: [] for lane in lanes} for each in chosen}
    with _running(rules, lanes, note) as running:
        memory = {f"{name}, loaded": memory_mib(lane.engine_pid) for name, lane in running.items() if lane.engine_pid}
        for number in range(1, rounds + 1):
            for each in chosen:
                for name, lane in running.items():
                    sample = _sample(each, lane, seconds)
                    samples[each.name][name].append(sample)
                    note(f"round {number}/{rounds} {each.name} {name}: {sample.value:.4g} {each.unit}")
        for name, lane in running.items():
            if lane.engine_pid:
                memory[f"{name}, after the load"] = memory_mib(lane.engine_pid)
                memory[f"{name}, at most"] = memory_mib(lane.engine_pid, "VmHWM")
    return WireResult(samples=samples, memory_mib=memory, rules=rules.origin, seconds=seconds)


@contextlib.contextmanager
def _running(rules: RuleSet, lanes: Sequence[str], note: Callable[[str], None]) -> Iterator[dict[str, _Lane]]:
    programs, engine_tree = obtain_programs()
    load = obtain_load_programs(Cache(default_directory()))
    with contextlib.ExitStack() as stack:
        running: dict[str, _Lane] = {}
        for name in lanes:
            note(f"lane {name}")
            lane = UnbridgedLane() if name == STOCK else NativeLane()
            stack.callback(lane.stop)
            lane.start()
            prepare(lane)
            feed = write_feed(rules, lane.directory / "feed")
            pid, gate = None, None
            if name == STOCK:
                assert isinstance(lane, UnbridgedLane)
                # The product's own rules ask lists that only its configuration declares.
                alone = feed / "engine" / "stock.rules"
                alone.write_bytes(rules.text)
                stock = StockEngine(lane, engine_tree, alone)
                stack.callback(stock.stop)
                stock.start()
                pid = stock.pid
            elif name == OMAMORI:
                wire = lane.install_wire(programs)
                gate = stack.enter_context(contextlib.closing(Gate(wire.pins)))
                watch = NativeWatch(PLAN, lane.box.path, programs, wire.pins, lane.directory)
                stack.callback(watch.stop)
                watch.start()
                engine = lane.prepare_engine(engine_tree, feed)
                engine.start(timeout_s=300)
                pid = engine.pid
                watch.look_after(pid)
            stack.enter_context(serving(lane))
            running[name] = _Lane(ends(lane, load), lane, pid, gate)
        yield running


def _sample(measurement: Measurement, lane: _Lane, seconds: int) -> Sample:
    engine, busy, before, passed = _engine_s(lane), busy_s(), queued(lane.lane)[0], _uninspected(lane)
    made = measurement.play(lane.ends, seconds)
    return dataclasses.replace(
        made,
        engine_s=round(_engine_s(lane) - engine, 3),
        busy_s=round(busy_s() - busy, 3),
        queued=queued(lane.lane)[0] - before,
        uninspected=_uninspected(lane) - passed,
    )


def _engine_s(lane: _Lane) -> float:
    return cpu_s(lane.engine_pid) if lane.engine_pid else 0.0


def _uninspected(lane: _Lane) -> int:
    return sum(count.packets for count in lane.gate.uninspected().values()) if lane.gate else 0


def ratios(samples: Mapping[str, Sequence[Sample]], lane: str) -> list[float]:
    """Return the ratio of a lane's value to the bare bridge's, round by round."""
    return [own.value / bare.value for own, bare in zip(samples[lane], samples[BRIDGE], strict=True)]
