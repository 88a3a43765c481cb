"""Increments on the box: the way that costs fewer bytes, and the pack whenever that way is not sound."""

from __future__ import annotations

import dataclasses
import shutil
import tracemalloc
from pathlib import Path

import pytest

from omamori_protocol.feed_increment import MAX_INCREMENT_BYTES
from omamori_protocol.feed_offer import OfferedIncrement
from omamori_protocol.vocabulary import FeedState
from sim.feed_box import Box, Killed, kill
from sim.increments import make_increment
from sim.packs import RULE, PackSource
from sim.power import PowerCut, count_steps, power_cut_before
from sim.repository import endless, status, tree

# Enough that an increment is smaller than the pack.
COMMON = tuple(f"n{number:04d}.test" for number in range(1000))


def source(serial: int, *, rules: bytes = RULE, address: str = "203.0.113.99", extra: str = "") -> PackSource:
    names = tuple(sorted({*COMMON, f"s{serial}.test", extra or "malware.test"}))
    return PackSource(serial=serial, domains={"dangerous": names}, addresses={"blocked": (address,)}, rules=rules)


SOURCES = [source(serial) for serial in range(1, 6)]
FIRST, SECOND = SOURCES[0], SOURCES[1]


@pytest.fixture
def box(box: Box) -> Box:
    """A box that has the first of the sources."""
    box.publish(FIRST)
    box.poll()
    assert box.active == 1
    forget(box)
    return box


def forget(box: Box) -> None:
    box.outbox.events.clear()
    box.engine.commands.clear()
    box.server.requests.clear()
    box.test_count.unlink(missing_ok=True)


def fetched(box: Box) -> list[str]:
    """What was downloaded, metadata aside."""
    return [path.rpartition("/")[2].partition(".")[2] for path in box.server.requests if path.startswith("targets")]


def assert_has(box: Box, source: PackSource) -> None:
    """Whether disk, engine and gate hold a pack exactly as if it had been unpacked."""
    assert box.shown == (source.serial, FeedState.ACTIVE, "")
    directory = box.paths.feed_store / str(source.serial)
    for path, data in source.files().items():
        assert (directory / path).read_bytes() == data
    assert (directory / "manifest.json").read_bytes() == source.manifest().to_json()
    box.store.download_path.write_bytes(source.build())
    again = dataclasses.replace(box.store.add(source.serial, lambda _found: None))
    assert {path.name: path.read_bytes() for path in (again.directory / "engine").iterdir()} == {
        path.name: path.read_bytes() for path in (box.paths.feed_current / "engine").iterdir()
    }
    box.store.discard_download()
    names = {name.encode() for name in source.domains["dangerous"]}
    assert box.engine.datasets["dangerous"] == names
    assert box.gate.blocked == {f"{source.addresses['blocked'][0]}/32"}
    assert box.store.record.transition is None


def test_increment_instead_of_the_pack(box: Box) -> None:
    box.publish(SECOND, since=[FIRST])
    box.poll()
    assert fetched(box) == ["1-2.increment"]
    assert box.events == [(2, FeedState.ACTIVE, None)]
    assert_has(box, SECOND)


def test_lists_that_change_need_neither_test_nor_reload(box: Box) -> None:
    changed = source(2, address="203.0.113.7")
    box.publish(changed, since=[FIRST])
    box.poll()
    assert (box.tests, box.engine.reload_time, box.engine.generation) == (0, 0, 2)
    assert sorted({command for command in box.engine.commands if command.startswith("dataset")}) == [
        "dataset-add",
        "dataset-lookup",
        "dataset-remove",
    ]
    assert_has(box, changed)


def test_rules_that_change_are_tested_and_reloaded(box: Box) -> None:
    changed = source(2, rules=RULE + b"alert ip (sid:2;)\n")
    box.publish(changed, since=[FIRST])
    box.poll()
    assert fetched(box) == ["1-2.increment"]
    assert (box.tests, box.engine.reload_time) == (1, 1)
    assert_has(box, changed)


def test_several_serials_behind(box: Box) -> None:
    box.publish(SOURCES[4], since=SOURCES[:4])
    box.poll()
    assert fetched(box) == ["1-2.increment", "2-3.increment", "3-4.increment", "4-5.increment"]
    assert_has(box, SOURCES[4])
    assert box.engine.reload_time == 0


def test_only_what_changed_is_written(box: Box) -> None:
    box.publish(SECOND, since=[FIRST])
    box.poll()
    old, new = (box.paths.feed_store / name for name in "12")
    same = {"lists/blocked.txt", "rules/omamori.rules", "engine/all.rules"}
    for path in same:
        assert (old / path).stat().st_ino == (new / path).stat().st_ino
    assert (old / "engine/dangerous.lst").stat().st_ino != (new / "engine/dangerous.lst").stat().st_ino


def test_box_behind_the_chain_takes_the_pack(box: Box) -> None:
    box.publish(SOURCES[4], since=SOURCES[2:4])
    box.poll()
    assert fetched(box) == ["pack.tar.gz"]
    assert_has(box, SOURCES[4])


def test_chain_as_large_as_the_pack_is_not_taken(box: Box) -> None:
    box.put_increment(FIRST, SECOND, b"x" * (len(SECOND.build()) + 1))
    box.publish(SECOND)
    box.poll()
    assert fetched(box) == ["pack.tar.gz"]


def test_new_box_takes_the_pack(box: Box) -> None:
    box.publish(SECOND, since=[FIRST])
    shutil.rmtree(box.paths.feed_store)
    box.boot()
    box.poll()
    assert "pack.tar.gz" in fetched(box)
    assert_has(box, SECOND)


# Increments that are not sound: the pack is taken, and the serial is as good as ever.


def spoilt(old: PackSource, new: PackSource) -> bytes:
    """Return an increment that leads elsewhere, signed all the same."""
    return make_increment(old, dataclasses.replace(new, addresses={"blocked": ("198.51.100.1",)}))


@pytest.mark.parametrize(
    "data",
    [b"no increment", make_increment(SECOND, SOURCES[2]), spoilt(FIRST, SECOND), make_increment(FIRST, SECOND)[:-9]],
)
def test_signed_increment_that_does_not_lead_there(box: Box, data: bytes) -> None:
    box.put_increment(FIRST, SECOND, data)
    box.publish(SECOND)
    box.poll()
    assert fetched(box) == ["1-2.increment", "pack.tar.gz"]
    assert box.store.record.quarantined == ()
    assert list(box.store.download_path.parent.iterdir()) == []
    assert_has(box, SECOND)


def test_increment_that_was_tampered_with(box: Box) -> None:
    place = box.put_increment(FIRST, SECOND, make_increment(FIRST, SECOND))
    box.publish(SECOND)
    box.repo.files[place] = box.repo.files[place][:-1] + b"x"
    box.poll()
    assert fetched(box) == ["1-2.increment", "pack.tar.gz"]
    assert_has(box, SECOND)


def test_increment_that_is_gone(box: Box) -> None:
    place = box.put_increment(FIRST, SECOND, make_increment(FIRST, SECOND))
    box.publish(SECOND)
    del box.repo.files[place]
    box.poll()
    assert_has(box, SECOND)


def test_increment_that_never_ends(box: Box) -> None:
    place = box.put_increment(FIRST, SECOND, make_increment(FIRST, SECOND))
    box.publish(SECOND)
    box.server.behaviours[place] = endless()
    box.poll()
    assert_has(box, SECOND)


def test_offer_of_another_size_than_the_target_has(box: Box) -> None:
    box.put_increment(FIRST, SECOND, make_increment(FIRST, SECOND))
    box.increments = [OfferedIncrement(1, 2, 5)]
    box.publish(SECOND)
    box.poll()
    assert fetched(box) == ["pack.tar.gz"]
    assert_has(box, SECOND)


def test_offer_of_an_increment_that_is_not_there(box: Box) -> None:
    box.increments = [OfferedIncrement(1, 2, 5)]
    box.publish(SECOND)
    box.poll()
    assert_has(box, SECOND)


def test_offer_of_the_greatest_size_and_one_more(box: Box) -> None:
    box.increments = [OfferedIncrement(1, 2, MAX_INCREMENT_BYTES)]
    box.publish(SECOND)
    box.poll()
    assert box.active == 2
    box.increments = [OfferedIncrement(2, 3, MAX_INCREMENT_BYTES + 1)]
    box.publish(SOURCES[2])
    box.poll()
    assert box.shown[:2] == (2, FeedState.REFUSED)
    assert "offers no feed" in box.shown[2]


def test_base_that_was_changed_on_disk(box: Box) -> None:
    path = box.paths.feed_store / "1/lists/dangerous.txt"
    path.write_bytes(path.read_bytes().replace(b"n0500.test\n", b"n0500.evil\n"))
    box.publish(SECOND, since=[FIRST])
    box.poll()
    assert fetched(box) == ["1-2.increment", "pack.tar.gz"]
    assert box.active == 2
    assert (box.paths.feed_store / "2/lists/dangerous.txt").read_bytes() == SECOND.files()["lists/dangerous.txt"]


def test_network_that_fails_after_the_increments(box: Box) -> None:
    place = box.put_increment(FIRST, SECOND, b"no increment")
    box.publish(SECOND)
    (pack,) = [path for path in box.repo.files if path.endswith("pack.tar.gz") and path != place][-1:]
    box.server.behaviours[pack] = status(503)
    box.poll()
    assert box.shown == (1, FeedState.ACTIVE, "")
    del box.server.behaviours[pack]
    box.poll()
    assert_has(box, SECOND)


def test_no_space_is_no_reason_for_the_pack(box: Box) -> None:
    box.store._free_bytes = lambda _path: 10
    box.publish(SECOND, since=[FIRST])
    box.poll()
    assert fetched(box) == []
    assert "not enough space" in box.shown[2]
    box.store._free_bytes = lambda _path: 10**9
    box.poll()
    assert_has(box, SECOND)


def test_rules_left_out_stay_out(box: Box) -> None:
    feed = box.store.leave_out(box.store.current(), frozenset({1000001}))
    box.store.confirm_left_out(feed)
    box.publish(SECOND, since=[FIRST])
    box.poll()
    assert box.store.current().left_out.count == 1
    assert b"sid:1000001" not in (box.paths.feed_current / "engine/all.rules").read_bytes()


# Kills and power cuts.


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize(
    ("name", "call"),
    [("change_block", 1), ("remember", 1), ("switch", 1), ("change_dataset", 1), ("remember", 2), ("prune", 1)],
)
def test_agent_killed_during_an_increment(box: Box, name: str, call: int, is_after: bool) -> None:
    changed = source(2, address="203.0.113.7")
    box.publish(changed, since=[FIRST])
    undo = kill(box, name, call, is_after=is_after)
    with pytest.raises(Killed):
        box.poll()
    undo()
    box.boot()
    box.poll()
    assert_has(box, changed)


def test_power_cut_at_every_step(box: Box, tmp_path: Path) -> None:
    """The store after each cut has a whole feed, and the same increment leads on from it."""
    old, new = SOURCES[0], source(2, rules=RULE + b"alert ip (sid:2;)\n", address="203.0.113.7")
    increment = make_increment(old, new)
    box.publish(new)
    offer = box.worker._repository.refresh().offer

    def take() -> None:
        store = box.store
        store.increment_path(0).write_bytes(increment)
        feed = store.add_increments(store.current(), 1, offer, lambda _found: None)
        store.switch(feed)
        store.prune()
        store.discard_download()

    spare = tmp_path / "spare"
    shutil.copytree(box.paths.feed, spare, symlinks=True)

    def restore() -> None:
        shutil.rmtree(box.paths.feed)
        shutil.copytree(spare, box.paths.feed, symlinks=True)
        box.store._record = None

    steps = count_steps(take)
    assert steps > 25
    for step in range(1, steps + 1):
        restore()
        with pytest.raises(PowerCut), power_cut_before(step):
            take()
        current = box.store.recover()
        assert current.serial in {1, 2}
        expected = old if current.serial == 1 else new
        assert {path: (current.directory / path).read_bytes() for path in expected.files()} == expected.files()
        assert not (box.paths.feed_store / ".new").exists()
        if current.serial == 1:
            take()
        assert box.store.current().serial == 2


# Memory.


def test_memory_does_not_depend_on_the_lists(box: Box) -> None:
    """What the agent holds while 150 000 names and their increment pass through it."""
    names = tuple(f"n{number:07d}.test" for number in range(150_000))
    large = PackSource(serial=2, domains={"dangerous": names})
    box.publish(large)
    box.poll()
    assert box.active == 2
    changed = PackSource(serial=3, domains={"dangerous": (*names[:70_000], *names[70_050:], "z.test")})
    box.publish(changed, since=[large])
    before = tree(box.paths.feed_metadata)
    del large, changed
    tracemalloc.start()
    try:
        box.poll()
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert before != tree(box.paths.feed_metadata)
    assert box.active == 3
    assert box.engine.has("dangerous", "z.test")
    assert peak < 8 << 20  # the names alone are 12 MiB as Python's objects
