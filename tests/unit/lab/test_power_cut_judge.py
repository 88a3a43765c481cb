"""A small recorded box: a sound update is found sound at every cut, and each kind of fault is found."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from omamori_firmware import disk, installer
from omamori_firmware.recipe import source_tree
from omamori_lab.power_cut.judge import Report
from omamori_lab.power_cut.next_start import entry_partition
from omamori_lab.power_cut.rehearsal import choose
from sim.power_cut_world import SIZES, World

SEEDS = (1, 2, 3)

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("gcc", "mke2fs", "debugfs")),
    reason="no compiler or no e2fsprogs",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("chooser")
    installer.build_chooser(place, source=source_tree().slots)
    return place / installer.CHOOSER


@pytest.fixture
def world(tmp_path: Path, program: Path) -> World:
    return World(tmp_path, program)


def judged(world: World) -> Report:
    judge = world.judge()
    return judge.run(range(judge.timeline.boundaries + 1), SEEDS)


def activate(world: World) -> None:
    world.keep({"firmware/state.json": world.record(state=4), "boot/attempt": b"B set\n"})
    world.flush()
    world.boot_next("B")


def update(world: World) -> None:
    """An update as the box makes it."""
    world.keep({"firmware/state.json": world.record(state=3)})
    world.flush()
    world.install()
    world.flush()
    activate(world)
    world.flash.remove("BootNext")
    world.keep({"boot/attempt": b"B started\n", "firmware/state.json": world.record(state=5, trials=1)})
    world.flush()
    world.keep({"boot/attempt": b"B committing\n"})
    world.flush()
    world.boot_order("BA")
    world.keep({"boot/committed": b"B\n"})
    world.flush()
    world.keep({"boot/attempt": None, "firmware/state.json": world.record(state=6, trials=1)})
    world.flush()


def test_update_has_a_way_on_from_every_cut(world: World) -> None:
    update(world)
    report = judged(world)
    assert report.faults == []
    assert report.writes == report.boundaries - 8  # flushes, and the beginning
    assert report.subsets == 8 * len(SEEDS)
    words = " / ".join(sorted(report.outcomes))
    for part in ("A 1.0.0, normal: idle", "verified", "rolled-back (not-started)", "trial: trying", "B 1.1.0, normal"):
        assert part in words
    moments = choose(report, 4, 2)
    assert len(moments) == 4
    assert moments[0].cut.boundary >= 2
    assert [moment.cut.boundary for moment in moments] == sorted(moment.cut.boundary for moment in moments)


def install_late(world: World) -> None:
    activate(world)
    world.install()
    world.flush()


def install_without_flush(world: World) -> None:
    world.keep({"firmware/state.json": world.record(state=4), "boot/attempt": b"B set\n"})
    world.flush()
    world.install()
    world.boot_next("B")
    world.flush()


def half_install(world: World) -> None:
    world.install(share=0.5)
    world.flush()
    activate(world)


def damage_old(world: World) -> None:
    world.write("root_a", b"x" * 512)
    world.flush()


def damage_tables(world: World) -> None:
    world.disk_log.add(512, b"x" * 512)
    world.flush()


def half_record(world: World) -> None:
    world.keep({"firmware/state.json": world.record(state=3)[:100]})
    world.flush()


def half_other_file(world: World) -> None:
    world.keep({"desired/state.json": b'{"a":'})
    world.flush()


def broken_spool(world: World) -> None:
    world.keep({"spool/spool.db": b"SQLite format 3\0" + b"x" * 4080})
    world.flush()


def broken_file_system(world: World) -> None:
    world.write("data", b"x" * (1 << 16))
    world.flush()


def commit_unannounced(world: World) -> None:
    world.install()
    world.flush()
    world.boot_order("BA")


def lost_order(world: World) -> None:
    world.install()
    world.flush()
    world.keep({"boot/committed": b"B\n", "firmware/state.json": world.record(state=6)})
    world.flush()
    world.flash.remove("BootOrder")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (install_late, "slot B would be started, 148 blocks are wrong"),
        (install_without_flush, "slot B would be started"),
        (half_install, "slot B would be started, 74 blocks are wrong"),
        (damage_old, "slot A would be started, 1 blocks are wrong"),
        (damage_tables, "partition tables"),
        (half_record, "record is broken"),
        (half_other_file, "desired/state.json is broken"),
        (broken_spool, "spool is broken"),
        (broken_file_system, "e2fsck"),
        (commit_unannounced, "not understood"),
        (lost_order, "not understood"),
    ],
)
def test_fault_is_found(world: World, fault: Callable[[World], None], words: str) -> None:
    fault(world)
    report = judged(world)
    assert any(words in text for text in report.faults), str(report)


def test_a_firmware_that_loses_the_chain_of_its_variables_is_found(world: World) -> None:
    sector = bytearray(world.flash.data[:512])
    sector[0x48 + 28 + 40 : 0x48 + 28 + 44] = (0x7FFFFFFF).to_bytes(4, "little")
    world.flash.written(0, bytes(sector))
    report = judged(world)
    assert "beyond the store" in report.faults[0]


def test_entry_of_the_firmware_names_its_partition() -> None:
    partition = struct.pack("<BBHIQQ16sBB", 4, 1, 42, 1, 2048, 99, disk.guid("slot_b").bytes_le, 2, 2)
    option = struct.pack("<IH", 1, len(partition)) + "x".encode("utf-16-le") + b"\0\0" + partition
    assert entry_partition(option + b"\x7f\xff\x04\0") == disk.guid("slot_b")
    assert entry_partition(b"\x01\0\0\0\0\0x\0\0\0\x7f\xff\x04\0") is None
    assert entry_partition(b"") is None
    assert entry_partition(option[:20]) is None


def test_copy_of_the_data_partition_leaves_the_disk_alone(world: World) -> None:
    judge = world.judge()
    before = judge.disk.read_bytes()
    judge.run([0], [])
    assert judge.disk.read_bytes() == before
    assert len(before) == SIZES.total_mib << 20
