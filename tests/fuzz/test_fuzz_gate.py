"""Mutated frames through the gate's programs, judged by a second reader that knows nothing of the first.

For more than the usual run: OMAMORI_FUZZ_CASES=1000000 OMAMORI_FUZZ_SEED=7 pytest tests/fuzz --timeout 3600
"""

from __future__ import annotations

import errno
import ipaddress
import os
import random
from collections.abc import Iterator

import pytest

from omamori_agent.gate.layout import ControlSlot, Mark
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.dataplane.build import obtain_gate
from omamori_firmware.recipe import source_tree
from sim import frames
from sim.frame_reader import is_group, read
from sim.gate_bench import REDIRECT, SHOT, UNSPEC, Bench, open_bench

pytestmark = pytest.mark.root

CASES = int(os.environ.get("OMAMORI_FUZZ_CASES", "6000"))
SEEDS = [int(os.environ["OMAMORI_FUZZ_SEED"])] if "OMAMORI_FUZZ_SEED" in os.environ else [1, 2, 3]
MAX_FRAME = 2000
LISTED = [ipaddress.ip_network(text) for text in ("198.51.100.128/25", "192.0.0.0/9", "2001:db8:8000::/33")]
# Numbers that mean something to some parser.
KINDS = [0x0800, 0x86DD, 0x8100, 0x88A8, 0x8864, 0x8863, 0x0021, 0x0057, 0x1100, 0x0806]
BYTES = [
    0,
    1,
    4,
    6,
    17,
    41,
    43,
    44,
    50,
    51,
    58,
    59,
    60,
    135,
    0x45,
    0x46,
    0x4F,
    0x60,
    0x11,
    0x20,
    0x3F,
    0x80,
    0xC3,
    0xFF,
]


@pytest.fixture(scope="module")
def loaded() -> Iterator[Bench]:
    with open_bench(obtain_gate(source_tree(), Cache(default_directory()))) as bench:
        yield bench


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    loaded.reset()
    return loaded


def corpus() -> list[bytes]:
    """Return frames of every kind, in both directions."""
    made = list(frames.UNREADABLE.values())
    payloads = [(6, frames.tcp), (17, frames.udp)]
    for out in (True, False):
        made += [kind(out) for kind in frames.NEVER_BYPASSED.values()]
        made += [wrap(build(out=out) + bytes(8), proto, out) for wrap in frames.READABLE for proto, build in payloads]
        made.append(frames.plain4(frames.udp(out=out, payload=frames.quic(0xC3, 1)[:40]), 17, out))
    return made


def mutate(random_: random.Random, seeds: list[bytes]) -> bytes:
    """Return a frame that is one of the seeds with a few things wrong (or none)."""
    frame = bytearray(random_.choice(seeds))
    for _ in range(random_.choice([0, 1, 1, 1, 2, 2, 3, 5, 8])):
        at = random_.randrange(len(frame))
        match random_.randrange(9):
            case 0:
                frame[at] ^= 1 << random_.randrange(8)
            case 1:
                frame[at] = random_.choice(BYTES)
            case 2:
                frame[at : at + 2] = random_.choice(KINDS).to_bytes(2, "big")
            case 3:
                del frame[at : at + random_.randrange(1, 9)]
            case 4:
                frame[at:at] = random_.randbytes(random_.randrange(1, 9))
            case 5:
                frame = frame[: max(at, 15)]
            case 6:
                other = random_.choice(seeds)
                frame = frame[:at] + other[random_.randrange(len(other)) :]
            case 7:
                frame[at:at] = frame[max(at - random_.randrange(1, 60), 0) : at]
            case _:
                frame += random_.randbytes(random_.randrange(1, 40))
        if len(frame) < 15:
            frame += bytes(15 - len(frame))
    return bytes(frame[:MAX_FRAME])


def is_listed(frame: bytes) -> bool:
    """Say whether an address that can be read is on the block list."""
    return any(address in network for address in read(frame).addresses for network in LISTED)


def check_ingress(bench: Bench, frame: bytes, *, out: bool, learned: set[object]) -> None:
    reading = read(frame)
    verdict = bench.ingress(frame, out=out, mark=0xFFFFFFFF)
    assert verdict.frame == frame, "the frame was changed"
    if is_listed(frame):
        assert verdict.action == SHOT, "a listed address passed"
        learned.discard(reading.flow)
    elif verdict.mark == 0xFFFFFFF0 | Mark.SKIP:
        assert reading.flow in learned, "what is not known was bypassed"
        assert not reading.is_turn, "a connection's begin or end was bypassed"
        assert not is_group(frame), "a frame for a group was bypassed"
        assert verdict.action in (REDIRECT, UNSPEC)
    else:
        assert (verdict.action, verdict.mark) == (UNSPEC, 0xFFFFFFF0), "neither passed nor bypassed"
        if not is_group(frame):
            assert reading.flow not in learned or reading.is_turn, "a bypassed flow went to the engine"
            if reading.is_turn:
                learned.discard(reading.flow)


def check_egress(bench: Bench, frame: bytes, *, out: bool, mark: int, learned: set[object]) -> None:
    reading = read(frame)
    verdict = bench.egress(frame, out=out, mark=mark)
    assert (verdict.action, verdict.mark, verdict.frame) == (UNSPEC, mark, frame)
    if reading.flow is None or mark & Mark.SKIP:
        return
    if reading.is_turn:
        learned.discard(reading.flow)
    elif mark & Mark.BYPASS and not is_group(frame):
        learned.add(reading.flow)


@pytest.mark.parametrize("seed", SEEDS)
def test_gate_does_to_mutated_frames_what_a_second_reader_expects(bench: Bench, seed: int) -> None:
    """Never drops what is not listed, never bypasses what cannot be read or was not learned, changes no frame."""
    random_ = random.Random(seed)
    seeds = corpus()
    learned: set[object] = set()
    bench.gate.sync_block(LISTED)
    refused = 0

    def play() -> None:
        nonlocal refused
        for number in range(CASES):
            frame = mutate(random_, seeds)
            out = random_.random() < 0.5
            mark = random_.choice([0, Mark.INSPECTED, Mark.BYPASS | Mark.INSPECTED, Mark.SKIP])
            try:
                check_ingress(bench, frame, out=out, learned=learned)
                check_egress(bench, frame, out=out, mark=mark, learned=learned)
            except OSError as err:
                if err.errno != errno.EINVAL:  # the kernel's test runner does not take every short frame
                    raise
                refused += 1
            except AssertionError as err:
                err.add_note(f"case {number} of seed {seed}, {'out' if out else 'in'}, mark {mark}: {frame.hex()}")
                raise

    bench.inside(play)
    assert refused < CASES / 4
    assert learned, "the fuzzer never reached the bypass"
    assert bench.flows() == len(learned)


@pytest.mark.parametrize("seed", SEEDS)
def test_fail_closed_refuses_exactly_ip_without_a_mark(bench: Bench, seed: int) -> None:
    random_ = random.Random(seed)
    seeds = corpus()
    bench.control(ControlSlot.FAIL_CLOSED, 1)

    def play() -> None:
        for _ in range(CASES // 3):
            frame = mutate(random_, seeds)
            try:
                action = bench.egress(frame, out=True, mark=0).action
            except OSError as err:
                if err.errno != errno.EINVAL:
                    raise
                continue
            assert action == (SHOT if read(frame).is_ip else UNSPEC), frame.hex()

    bench.inside(play)
