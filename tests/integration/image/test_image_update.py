"""A new version, installed by RAUC and tried by the machine's own firmware, with Secure Boot on.

One story, because every start costs: refuse what is no bundle for this box, install, try, panic, try again by pulling
the plug, commit, and find out in a trial that the other slot's disk has lost a bit.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from omamori_agent.firmware.installer import is_refusal
from omamori_firmware.recipe import SourceTree
from omamori_firmware.tools import ToolsTree
from omamori_lab.waiting import wait_for
from omamori_ota.cli import main as ota

pytestmark = [pytest.mark.image, pytest.mark.root, pytest.mark.timeout(900)]

NEW = "0.1.1-dev.1"
STARTED = r"omamori: release version=(?P<version>\S+) flavour=dev slot=(?P<slot>\w)"
AGENT = "setpriv --reuid omamori-agent --regid omamori --clear-groups"
RAUC = "de.pengutronix.rauc / de.pengutronix.rauc.Installer"
STATE = "/var/lib/omamori/firmware"
STEP = '''
"""A step of the test: the agent's data get a second form."""

from pathlib import Path

PATHS = ("firmware/note", "firmware/fresh")


def apply(state: Path) -> None:
    """Change one file and make another."""
    (state / "firmware/note").write_text("second")
    (state / "firmware/fresh").write_text("new")
'''


# What RAUC says of bundles that are none for this box. The agent gives up for good on exactly these.
REFUSALS = {
    "older": r"Version mismatch: Expected at least '[\d.]+' but bundle manifest has '0\.0\.9'",
    "other": r"Compatible mismatch: Expected 'omamori-x86_64-uefi' but bundle manifest has 'omamori-other'",
    "foreign": r"signature verification failed: Verify error: .+",
    "plain": r"Bundle format 'plain' not allowed",
    "short": r"Invalid bundle format: Signature size \(\d+\) exceeds bundle size",
    "tiny": r"Invalid bundle format: Failed to seek",
    "cut": r"Invalid bundle format: Signature data is no valid CMS",
}
# Of these nobody knows whether it was the disk: the agent has compared every byte with what was signed before.
FAILURES = {"flipped": r"Unexpected dm-verity status 'C'"}

# A bit of the first program of a slot that does not run.
FLIP = """
import fcntl, struct
with open("/run/other/usr/lib/systemd/systemd", "rb") as file:
    block = struct.unpack("i", fcntl.ioctl(file, 1, struct.pack("i", 0)))[0]
print(block)
"""
SPOIL = """
import os, sys
with open(sys.argv[1], "r+b", buffering=0) as disk:
    disk.seek(int(sys.argv[2]) * 4096 + 64)
    byte = disk.read(1)
    disk.seek(-1, 1)
    disk.write(bytes([byte[0] ^ 1]))
    os.fsync(disk)
"""


def write_bundle(
    target: Path,
    images: Mapping[str, Path],
    keys: Path,
    tools: ToolsTree,
    *,
    version: str,
    compatible: str,
    form: str = "verity",
) -> None:
    """Write a signed bundle; `images` is slot class to file."""
    content = target.parent / f"{target.stem}-content"
    content.mkdir()
    lines = ["[update]", f"compatible={compatible}", f"version={version}", "", "[bundle]", f"format={form}"]
    for name, image in images.items():
        file = content / f"{name}{'.vfat' if name == 'boot' else '.img'}"
        shutil.copyfile(image, file)
        lines += ["", f"[image.{name}]", f"filename={file.name}"]
    (content / "manifest.raucm").write_text("\n".join(lines) + "\n")
    line: list[str | Path] = ["rauc", "bundle", "--cert", keys / "bundle.crt", "--key", keys / "bundle.key"]
    line += ["--mksquashfs-args=-noI -noD -noF -noX -no-xattrs -all-root", content, target]
    tools.run(line, binds=[target.parent, keys])
    shutil.rmtree(content)


@pytest.fixture
def bundles(
    build, keys: Path, sources: SourceTree, tools: ToolsTree, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:  # type: ignore[no-untyped-def]
    """A disk with the new version, whose agent brings a migration, and with bundles that must be refused."""
    tree = tmp_path / "sources"
    shutil.copytree(sources.top, tree, symlinks=True)
    (tree / "agent/omamori_agent/migration/steps/step_0002.py").write_text(STEP)
    new, _, _ = build("dev", version=NEW, tree=SourceTree(tree))
    place = tmp_path_factory.mktemp("bundles")
    images = {"boot": new / "boot.vfat", "root": new / "root.erofs", "verity": new / "root.verity"}
    signing = keys / "bundle"
    board = "omamori-x86_64-uefi"
    write_bundle(place / "new.raucb", images, signing, tools, version=NEW, compatible=board)
    small = place / "small"
    small.write_bytes(bytes(range(1, 256)) * 512)
    write_bundle(place / "older.raucb", {"root": small}, signing, tools, version="0.0.9", compatible=board)
    write_bundle(place / "other.raucb", {"root": small}, signing, tools, version=NEW, compatible="omamori-other")
    write_bundle(place / "plain.raucb", {"root": small}, signing, tools, version=NEW, compatible=board, form="plain")
    assert ota(["keys", "init", str(tmp_path / "strangers")]) == 0
    strangers = tmp_path / "strangers" / "bundle"
    write_bundle(place / "foreign.raucb", {"root": small}, strangers, tools, version=NEW, compatible=board)
    write_bundle(place / "whole.raucb", {"root": small}, signing, tools, version=NEW, compatible=board)
    whole = (place / "whole.raucb").read_bytes()
    (place / "whole.raucb").unlink()
    (place / "cut.raucb").write_bytes(whole[:-2048] + whole[-1024:])
    (place / "short.raucb").write_bytes(whole[: len(whole) // 2])
    (place / "tiny.raucb").write_bytes(whole[:4])
    middle = whole.index(bytes(range(1, 256)) * 8) + 5000
    (place / "flipped.raucb").write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    names = sorted(place.glob("*.raucb"))
    write_volume(place / "bundles.raw", "BUNDLES", names, tools)
    write_volume(place / "stick.raw", "OMAMORI", [place / "other.raucb"], tools)
    for bundle in names:
        bundle.unlink()
    return place


def write_volume(target: Path, label: str, files: list[Path], tools: ToolsTree) -> None:
    """Write a FAT file system with some files."""
    with target.open("wb") as stream:
        stream.truncate(max(40 << 20, sum(path.stat().st_size for path in files) + (16 << 20)))
    tools.run(["mkfs.vfat", "-F", "32", "-s", "1", "-n", label, target], binds=[target.parent])
    for path in files:
        tools.run(["mcopy", "-i", target, path, f"::/{path.name}"], binds=[target.parent, path.parent])


def plugged(bundles: Path) -> dict[str, Any]:
    """Return what a machine needs to have a stick in its USB port, and the bundles on a (faster) disk."""
    extra = ["-drive", f"if=none,id=stick,format=raw,readonly=on,file={bundles}/stick.raw"]
    extra += ["-device", "qemu-xhci,id=xhci", "-device", "usb-storage,drive=stick,id=plug"]
    extra += ["-drive", f"if=none,id=bundles,format=raw,readonly=on,file={bundles}/bundles.raw"]
    extra += ["-device", "virtio-blk-pci,drive=bundles,addr=0x8"]
    return {"extra": extra, "extra_paths": [bundles]}


def facts(box: Any) -> dict[str, Any]:
    """Wait until the box knows how it was started, and return it."""
    path = "/run/omamori/firmware/boot.json"
    wait_for(lambda: box.shell(f"test -e {path} && echo there") == "there\n", "boot.json", timeout_s=120)
    return dict(json.loads(box.shell(f"cat {path}")))


def call(box: Any, words: str, *, who: str = AGENT) -> str:
    return str(box.shell(f"{who} busctl --timeout=120 call {RAUC} {words} 2>&1", timeout_s=150))


def install(box: Any, path: str) -> str:
    """Install a bundle as the agent does; return RAUC's last error, empty when all is well."""
    assert "failed" not in call(box, f"InstallBundle 'sa{{sv}}' {path} 0")
    idle = f"busctl get-property {RAUC} Operation"
    wait_for(lambda: box.shell(idle) == 's "idle"\n', "an end of the installation", timeout_s=300)
    return str(json.loads(box.shell(f"busctl --json=short get-property {RAUC} LastError"))["data"])


def first_in_order(box: Any) -> str:
    """Return the name of what the machine's firmware would start, read by another program than ours."""
    text = box.shell("efibootmgr")
    first = next(line for line in text.splitlines() if line.startswith("BootOrder: "))[11:15]
    return next(line for line in text.splitlines() if line.startswith(f"Boot{first}"))[10:19]


def test_new_version_is_tried_once_and_stays_when_committed(boot, disk: tuple[Path, Path], bundles: Path) -> None:  # type: ignore[no-untyped-def]
    box = boot(*disk, **plugged(bundles))
    assert box.wait(STARTED)["slot"] == "A"
    assert facts(box)["other"] == {"slot": "B", "state": "empty"}
    wait_for(lambda: box.shell("ls /run/omamori/stick") == "other.raucb\n", "the stick", timeout_s=180)
    mounted = box.shell("findmnt -rn -o FSTYPE,OPTIONS /run/omamori/stick")
    assert mounted.startswith("vfat ro,nosuid,nodev,noexec,")

    box.shell(f"mkdir /run/bundles; mount -o ro /dev/vdb /run/bundles; {AGENT} sh -c 'printf first >{STATE}/note'")
    assert "denied" in call(box, "GetPrimary", who="setpriv --reuid omamori-engine --regid omamori --clear-groups")
    said = {name: install(box, f"/run/bundles/{name}.raucb") for name in (*REFUSALS, *FAILURES)}
    wrong = {name for name, form in (REFUSALS | FAILURES).items() if not re.search(form, said[name])}
    assert not wrong, json.dumps(said, indent=1)
    assert {name for name, error in said.items() if is_refusal(error)} == set(REFUSALS), json.dumps(said, indent=1)
    box.machine.qmp("device_del", id="plug")
    wait_for(lambda: not box.shell("ls /run/omamori/stick"), "no stick", timeout_s=60)
    assert install(box, "/run/bundles/new.raucb") == ""
    assert "boot.1" in call(box, "GetSlotStatus")
    assert first_in_order(box) == "omamori-A"
    assert "activated" in call(box, "Mark ss active other")
    mark = len(box.said())
    box.shell(f"{AGENT} touch /run/omamori/firmware/reboot")
    assert box.wait(STARTED, since=mark).groups() == (NEW, "B")

    told = facts(box)
    assert (told["slot"], told["committed"], told["is_trial"]) == ("B", "A", True)
    assert told["attempt"] == {"slot": "B", "end": "started"}
    note = f"cat {STATE}/note"
    wait_for(lambda: box.shell(note) == "second", "data carried over", timeout_s=120)
    assert box.shell("systemctl is-active omamori-trial.timer") == "active\n"
    assert "[integrity]" in box.shell("cat /sys/kernel/security/lockdown")

    mark = len(box.said())
    box.shell("(sleep 1; echo c >/proc/sysrq-trigger) & true")
    box.wait("Kernel panic", since=mark)
    assert box.wait(STARTED, since=mark)["slot"] == "A"
    told = facts(box)
    assert (told["is_trial"], told["attempt"]) == (False, {"slot": "B", "end": "interrupted"})
    wait_for(lambda: box.shell(note) == "first", "data as they were", timeout_s=120)
    assert box.shell(f"test -e {STATE}/fresh || echo gone") == "gone\n"

    assert "activated" in call(box, "Mark ss active other")
    box.machine.kill()  # the owner pulls the plug: that is as good as a restart
    mark = len(box.said())
    box = boot(*disk)
    assert box.wait(STARTED, since=mark)["slot"] == "B"
    assert facts(box)["is_trial"]
    assert "good" in call(box, "Mark ss good booted")
    assert first_in_order(box) == "omamori-B"

    box.shell("mkdir /run/other; mount -t erofs -o ro /dev/omamori/root_a /run/other")
    block = int(box.shell(f"python3 -c '{FLIP}'"))
    box.shell(f"umount /run/other; python3 -c '{SPOIL}' /dev/omamori/root_a {block}")
    assert "activated" in call(box, "Mark ss active other")
    box.machine.kill()
    mark = len(box.said())
    box = boot(*disk)
    assert box.wait(STARTED, since=mark)["slot"] == "A"
    box.wait(rf"verity: .* data block {block} is corrupted", since=mark)
    assert box.wait(r"omamori: release version=\S+ flavour=dev slot=B", since=mark)
    told = facts(box)
    assert (told["committed"], told["is_trial"]) == ("B", False)
    assert told["attempt"] == {"slot": "A", "end": "interrupted"}
    assert told["other"] == {"slot": "A", "state": "good"}
