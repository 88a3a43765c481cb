"""The power, or the agent alone, ends at touches of the disk and around calls to the slots: there is a way on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from omamori_agent.firmware.machine import AttemptEnd
from omamori_protocol.vocabulary import FirmwareState, Slot
from sim.firmware_box import WELL, FirmwareBox, settings
from sim.firmware_release import ReleaseSource, noise
from sim.power import PowerCut, power_cut_before

S = FirmwareState
NEXT = ReleaseSource(version="1.1.0", bundle=noise("1.1.0", 120_000))
AFTER = ReleaseSource(version="1.2.0", bundle=noise("1.2.0", 100_000))
STRIDE = 3  # every third touch of the disk; the ones between are the same kind of file


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], FirmwareBox]]:
    """Make boxes with a stick, which needs no server and is the same way but for the wire."""
    made: list[FirmwareBox] = []

    def make() -> FirmwareBox:
        box = FirmwareBox(tmp_path_factory.mktemp("box"))
        made.append(box)
        box.release(NEXT)
        box.release(AFTER)
        box.make_stick()
        return box

    yield make
    for box in made:
        box.server._server.server_close()


def to_the_end(box: FirmwareBox) -> None:
    """What a box does by itself until nothing is left to do: work, restart when it asks for it."""
    for _ in range(60):
        box.steps(2)
        if box.wants_restart:
            box.restart()
        if box.state is S.COMMITTED and box.slots.version == box.record.version:
            return


def check_end(box: FirmwareBox, version: str = "1.1.0") -> None:
    assert box.slots.committed is box.slots.running
    assert box.slots.version == version
    assert (box.state, box.record.version) == (S.COMMITTED, version)
    assert box.store.floor.version == version
    assert not box.store.bundle.exists()
    assert (version, S.COMMITTED) in {(told[0], told[1]) for told in box.told}


def count(make: Callable[[], FirmwareBox]) -> int:
    box = make()
    box.want(settings())
    with power_cut_before(None) as counter:
        to_the_end(box)
    check_end(box)
    return counter.steps


@pytest.mark.parametrize("whole_box", [False, True], ids=["agent killed", "power cut"])
@pytest.mark.parametrize("phase", range(STRIDE))
def test_cut_at_touches_of_the_disk(places: Callable[[], FirmwareBox], whole_box: bool, phase: int) -> None:
    steps = count(places)
    assert steps > 60
    for step in range(1 + phase, steps + 1, STRIDE * 4):
        box = places()
        box.want(settings())
        with contextlib.suppress(PowerCut), power_cut_before(step):
            to_the_end(box)
        if whole_box:
            box.restart()
        else:
            box.boot()
        assert box.slots.running is box.slots.committed or box.state is S.TRYING, step
        box.clock.advance(7 * 3600.0)
        to_the_end(box)
        box.clock.advance(7 * 3600.0)
        to_the_end(box)
        check_end(box)


@pytest.mark.parametrize("whole_box", [False, True], ids=["agent killed", "power cut"])
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", ["install", "activate", "commit"])
def test_cut_around_each_call_to_the_slots(
    places: Callable[[], FirmwareBox], call: str, is_after: bool, whole_box: bool
) -> None:
    box = places()
    box.want(settings())
    original = getattr(box.slots, call)

    def cutting(*args: object) -> None:
        if is_after:
            original(*args)
        raise PowerCut

    setattr(box.slots, call, cutting)
    with contextlib.suppress(PowerCut):
        to_the_end(box)
    setattr(box.slots, call, original)
    if whole_box:
        box.restart()
    else:
        box.boot()
    box.clock.advance(7 * 3600.0)
    to_the_end(box)
    check_end(box)
    box.want(settings("1.2.0"))
    to_the_end(box)
    check_end(box, "1.2.0")


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", ["reject", "deactivate"])
def test_cut_on_the_way_back(places: Callable[[], FirmwareBox], call: str, is_after: bool) -> None:
    box = places()
    box.want(settings())
    for _ in range(30):
        box.steps(1)
        if box.state is S.REBOOT_PENDING:
            break
    original = getattr(box.slots, call)

    def cutting(*args: object) -> None:
        if is_after:
            original(*args)
        raise PowerCut

    setattr(box.slots, call, cutting)
    if call == "reject":
        box.restart()
        box.health = type(WELL)(**(vars(WELL) | {"inspects": False}))
        box.boottime_s = 600.0
    else:
        box.want(None)
    with contextlib.suppress(PowerCut):
        box.steps(5)
    setattr(box.slots, call, original)
    box.restart()
    if call == "reject":
        assert (box.slots.running, box.state) == (Slot.A, S.ROLLED_BACK)
        assert box.record.reason.word == "engine-down"
        return
    # The plug was pulled before the wish was taken back: then it is a trial, and the box keeps what runs well.
    box.steps(40)
    assert box.state in {S.IDLE, S.COMMITTED}
    assert box.slots.running is box.slots.committed


def test_cut_in_every_trial_gives_up_in_the_end(places: Callable[[], FirmwareBox]) -> None:
    box = places()
    box.want(settings())
    for _ in range(10):
        for _ in range(40):
            box.steps(1)
            if box.wants_restart:
                break
        box.restart(AttemptEnd.INTERRUPTED)
        box.clock.advance(7 * 3600.0)
    assert (box.state, box.slots.running, box.record.trials) == (S.ROLLED_BACK, Slot.A, 3)
    assert box.part_state().startswith("refused: interrupted")
