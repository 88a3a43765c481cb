"""The image for 64-bit Arm, made on this machine and started in QEMU: the same promises as on x86-64.

Minutes of emulation: packages' scripts run in an emulator once, and the machine is another processor's altogether.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware import disk as layout
from omamori_firmware.architecture import AARCH64, X86_64
from omamori_firmware.cache import Cache
from omamori_firmware.elf import needed
from omamori_firmware.errors import SetupError
from omamori_firmware.qemu import PortFd, prepare
from omamori_firmware.recipe import source_tree
from omamori_firmware.tools import ToolsTree, find_tools
from omamori_hw.board import load_board

from .conftest import Boot, Build, starter

pytestmark = [pytest.mark.long, pytest.mark.image, pytest.mark.root, pytest.mark.timeout(2400)]
NAME = "aarch64-uefi"
BOARD = load_board(source_tree().boards / NAME)
RELEASE = rf"omamori: release version=\S+ flavour=dev slot=A board={NAME}"
BOOT_TIMEOUT_S = 600.0


@pytest.fixture(scope="session")
def arm_build(build: Build) -> tuple[Path, dict[str, Any]]:
    return build("dev", board=NAME)[:2]


@pytest.fixture(scope="session")
def arm_dev(arm_build: tuple[Path, dict[str, Any]]) -> Path:
    return arm_build[0]


@pytest.fixture(scope="session")
def machine_tree(arm_dev: Path, cache: Cache) -> ToolsTree:
    return find_tools(source_tree(), cache, name=AARCH64.machine_tree)


@pytest.fixture
def arm_boot(machine_tree: ToolsTree, ports: list[PortFd], tmp_path: Path) -> Iterator[Boot]:
    with starter(machine_tree, ports, tmp_path / "vm", model=AARCH64.model) as start:
        yield start


def test_a_box_forwards_first_and_comes_up_whole(arm_boot: Boot, arm_dev: Path, tmp_path: Path) -> None:
    box = arm_boot(*prepare(arm_dev, tmp_path / "disk"))
    box.wait(r"omamori: forwarding uptime=[0-9.]+", timeout_s=BOOT_TIMEOUT_S)
    box.wait(RELEASE, timeout_s=BOOT_TIMEOUT_S)
    box.wait("DEVELOPMENT IMAGE - root console on ttyAMA1", timeout_s=BOOT_TIMEOUT_S)
    box.shell("systemctl is-system-running --wait", timeout_s=BOOT_TIMEOUT_S)
    assert box.shell("uname -m") == "aarch64\n"
    assert box.shell("cat /run/omamori/slot") == "A\n"
    assert "[integrity]" in box.shell("cat /sys/kernel/security/lockdown"), "Secure Boot must be on"
    for unit in ("omamori-wire", "omamori-engine", "omamori-watch", "systemd-networkd", "systemd-resolved"):
        assert box.shell(f"systemctl is-active {unit}") == "active\n", unit
    links = box.shell("bridge -color=never link")
    assert " wan: " in links
    assert " lan1: " in links
    assert links.count("state forwarding") == 2
    assert box.shell("cat /sys/class/net/wan/address /sys/class/net/br0/address").split() == ["52:54:00:00:01:00"] * 2
    assert "queue flags bypass" in box.shell("nft list table inet omamori")
    mounts = box.shell("findmnt -rn -o TARGET,FSTYPE,OPTIONS")
    assert "/ erofs ro" in mounts
    assert "/var ext4 rw,nosuid,nodev" in mounts
    assert " verity " in box.shell("dmsetup table root")
    assert "active" in box.shell("cat /sys/class/watchdog/watchdog0/state")
    assert "heartbeat=180 sec" in box.shell("dmesg | grep i6300")
    assert box.shell("ls /var/lib/omamori/boot") == "committed\n", "a start that got somewhere is counted no more"
    assert "BOOTAA64.EFI" in box.shell("efibootmgr"), "the boot chooser has entered its slots"


def test_a_disk_that_is_not_what_was_signed_restarts_the_box(arm_boot: Boot, arm_dev: Path, tmp_path: Path) -> None:
    disk, variables = prepare(arm_dev, tmp_path / "disk")
    start = layout.find(BOARD.disk, "root_a").start
    with disk.open("r+b") as stream:
        for offset in range(1 << 20, 180 << 20, 1 << 20):
            stream.seek(start + offset)
            stream.write(os.urandom(256 << 10))
    box = arm_boot(disk, variables, extra=["-no-reboot"])
    box.wait("omamori: forwarding", timeout_s=BOOT_TIMEOUT_S)
    assert box.machine.wait_off(BOOT_TIMEOUT_S), "the kernel must have panicked and reset the machine"
    assert "dm-verity device corrupted" in box.said() or "is not the signed one" in box.said()


def test_an_unsigned_kernel_image_does_not_start(
    arm_boot: Boot, arm_dev: Path, tmp_path: Path, machine_tree: ToolsTree, cache: Cache
) -> None:
    tools = find_tools(source_tree(), cache)
    changed = tmp_path / "changed"
    changed.mkdir()
    unsigned = changed / "unsigned.efi"
    unsigned.write_bytes((arm_dev / "omamori.efi").read_bytes())
    tools.run(["sbattach", "--remove", "--signum", "0", unsigned], binds=[changed])
    slot = changed / "slot"
    layout.make_slot(slot, BOARD.disk, unsigned, tools, label="slot_a", epoch=0, arch=AARCH64)
    disk, variables = prepare(arm_dev, tmp_path / "disk")
    with disk.open("r+b") as stream:
        stream.seek(layout.find(BOARD.disk, "slot_a").start)
        stream.write(slot.read_bytes())
    box = arm_boot(disk, variables)
    box.wait("BdsDxe: failed to load|Access Denied|Security Violation|No bootable option", timeout_s=BOOT_TIMEOUT_S)
    time.sleep(30)  # longer than from there to forwarding
    assert "omamori: forwarding" not in box.said()


def test_every_program_is_for_the_boards_processor(
    arm_dev: Path, arm_build: tuple[Path, dict[str, Any]], cache: Cache, tmp_path: Path
) -> None:
    find_tools(source_tree(), cache).run(
        ["fsck.erofs", f"--extract={tmp_path}/root", arm_dev / "root.erofs"], binds=[arm_dev, tmp_path]
    )
    checked = 0
    for path in sorted((tmp_path / "root").rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        with path.open("rb") as stream:
            if stream.read(5) != b"\x7fELF\x02":
                continue
        data = path.read_bytes()
        if data[18:20] == b"\xf7\x00":  # the gate is for the kernel's own machine
            continue
        try:
            needed(data, machine=X86_64.elf_machine, where=path.name)
        except SetupError:
            needed(data, machine=AARCH64.elf_machine, where=path.name)
            checked += 1
            continue
        pytest.fail(f"{path} is a program of the developer's machine")
    assert checked > 200
    assert arm_build[1]["lock"].keys() >= {AARCH64.root_lock, AARCH64.target_tree, "cross-aarch64", "tools"}


def test_another_build_gives_the_same_bytes(
    arm_build: tuple[Path, dict[str, Any]], build: Build, cache: Cache, tmp_path: Path
) -> None:
    """Everything is made anew but the trees and the installed packages, whose scripts take minutes."""
    fresh = Cache(tmp_path / "cache")
    objects = tmp_path / "cache" / "objects"
    objects.mkdir(parents=True)
    for name in ("tools", f"tree_{AARCH64.cross_tree}", f"tree_{AARCH64.target_tree}", "packages"):
        for path in (cache.debs.parent / "objects").glob(f"{name}-*"):
            (objects / path.name).symlink_to(path)
    _, again, reporter = build("dev", board=NAME, own_cache=fresh)
    kept = {"tools tree", f"{AARCH64.cross_tree} tree", f"{AARCH64.target_tree} tree", "packages"}
    assert {item.name for item in reporter.times if item.cached} == kept
    assert again["files"] == arm_build[1]["files"]
