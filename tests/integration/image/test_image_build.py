"""What a built image consists of, read back with other tools than those that wrote it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import struct
from pathlib import Path

import pytest

from omamori_firmware import disk, elf, enter, factory, gpt, run
from omamori_firmware.architecture import X86_64
from omamori_firmware.cache import Cache
from omamori_firmware.recipe import source_tree
from omamori_firmware.tools import ToolsTree
from omamori_hw.board import load_board

pytestmark = [pytest.mark.image, pytest.mark.root, pytest.mark.timeout(900)]
SIZES = load_board(source_tree().boards / "x86_64-uefi").disk
SHELLS = {"sh", "bash", "dash", "rbash", "ash", "zsh", "ksh", "csh", "tcsh", "fish", "mksh", "busybox"}
DOORS = {"agetty", "getty", "login", "sulogin", "su", "sudo", "sshd", "dropbear", "telnetd", "runuser", "mingetty"}


def manifest(artifacts: Path) -> dict[str, object]:
    return dict(json.loads((artifacts / "manifest.json").read_text()))


def files(tree: Path) -> list[Path]:
    return [path for path in tree.rglob("*") if path.is_symlink() or path.is_file()]


def test_the_release_contains_no_shell_and_no_way_to_log_in(release_tree: Path) -> None:
    found = [path for path in files(release_tree) if path.name in SHELLS | DOORS]
    # Directories of settings for programs are no programs; files of settings are not executable.
    assert [path for path in found if path.is_symlink() or path.stat().st_mode & 0o111] == []
    units = [path.name for path in files(release_tree / "usr/lib/systemd") if "getty" in path.name]
    assert units == []
    assert not (release_tree / "usr/lib/systemd/system/omamori-console.service").exists()
    assert not list((release_tree / "usr/lib/systemd/system-generators").glob("*"))


def test_no_unit_of_the_release_needs_a_shell(release_tree: Path) -> None:
    for unit in (release_tree / "usr/lib/systemd/system").rglob("*.service"):
        if unit.is_file():
            assert not re.search(r"^Exec\w+=[-+!@:]*/(usr/)?bin/(sh|bash)\b", unit.read_text(), re.MULTILINE), unit


def test_every_account_of_the_release_is_locked(release_tree: Path) -> None:
    for line in (release_tree / "etc/shadow").read_text().splitlines():
        assert line.split(":")[1].startswith(("!", "*"))
    for line in (release_tree / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        assert fields[1] in {"x", "*", "!"}
        assert fields[6].endswith("/nologin")


def test_nothing_of_the_release_gives_its_caller_other_rights(release_tree: Path) -> None:
    special = [path for path in files(release_tree) if path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert {path.name for path in special} <= {"dbus-daemon-launch-helper", "unix_chkpwd", "mount", "umount"}


def test_every_script_of_the_release_has_its_interpreter(release_tree: Path) -> None:
    for path in files(release_tree):
        if path.is_symlink() or not path.stat().st_mode & 0o111:
            continue
        with path.open("rb") as stream:
            first = stream.readline(128)
        if first.startswith(b"#!"):
            assert b"python3" in first, path


def test_the_image_carries_what_the_contract_names(release_tree: Path) -> None:
    home = release_tree / "usr/lib/omamori"
    for name in (
        "release.json",
        "trust/root.json",
        "trust/service-ca.pem",
        "trust/desired.pem",
        "trust/bundle-ca.pem",
        "rauc.conf",
        "slots/omamori-slots",
        "slots/omamori-secureboot",
        "gate/gate.bpf.o",
        "engine/suricata.yaml",
        "feed-empty/engine/datasets.yaml",
        "python/omamori_agent/cli.py",
        "python/omamori_protocol/__init__.py",
        "python/omamori_hw/board.py",
    ):
        assert (home / name).is_file(), name
    ours = {path.name for path in (home / "python").glob("omamori_*")}
    assert ours == {"omamori_agent", "omamori_protocol", "omamori_hw"}
    facts = json.loads((home / "release.json").read_text())
    known = {"version", "flavour", "board", "model", "build_time", "kernel", "radio", "security_epoch", "data_version"}
    assert set(facts) == known
    assert (facts["flavour"], facts["board"], facts["model"]) == ("release", "x86_64-uefi", "ZA-SA3500N")
    enabled = release_tree / "usr/lib/systemd/system"
    assert (enabled / "sysinit.target.wants/omamori-wire.service").is_symlink()
    for name in ("omamori-engine", "omamori-agent", "systemd-networkd", "systemd-resolved"):
        assert (enabled / f"multi-user.target.wants/{name}.service").is_symlink(), name
    assert not list((release_tree / "var").iterdir())


def test_the_release_can_be_an_access_point_and_nothing_plays_a_station(release_tree: Path) -> None:
    for name in ("usr/sbin/hostapd", "usr/sbin/iw", "usr/lib/systemd/system/omamori-wifi.service"):
        assert (release_tree / name).is_file(), name
    assert (release_tree / "usr/lib/systemd/system/multi-user.target.wants/omamori-wifi.path").is_symlink()
    assert "RADIO=wlan0" in (release_tree / "usr/lib/omamori/board.env").read_text().splitlines()
    names = {path.name for path in files(release_tree)}
    assert not names & {"wpa_supplicant", "wpa_cli", "omamori-simulated-radio.service", "hostapd.service"}


def test_the_device_knows_the_channels_of_a_country(release_tree: Path) -> None:
    code = (
        "from omamori_agent.config import Paths\n"
        "from omamori_agent.wifi.regulatory import load_database\n"
        "database = load_database(Paths().regulatory_database)\n"
        "print(len(database.countries) > 100, *(database.channels(country)[-1] for country in ('JP', 'DE', 'US')))\n"
    )
    output = run.run(enter.command(release_tree, "root", [], ["python3", "-IB", "-c", code]), timeout_s=120)
    assert output.decode().split() == ["True", "13", "13", "11"]


def test_the_devices_python_knows_time_zones(release_tree: Path) -> None:
    code = (
        "import datetime, zoneinfo\n"
        "for zone in ('Asia/Tokyo', 'Europe/Berlin', 'America/New_York', 'UTC'):\n"
        "    print(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo(zone)).utcoffset().total_seconds())\n"
    )
    output = run.run(enter.command(release_tree, "root", [], ["python3", "-IB", "-c", code]), timeout_s=120)
    assert [float(line) for line in output.decode().split()] == [32400, 7200, -14400, 0]


def test_the_private_keys_stay_outside(release_tree: Path) -> None:
    for path in files(release_tree / "usr/lib/omamori"):
        assert path.suffix != ".key"
        assert b"PRIVATE " + b"KEY-----" not in path.read_bytes() or "python" in path.parts


def test_the_devices_python_loads_every_module_of_ours_compiled(release_tree: Path) -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "sys.dont_write_bytecode = True\n"
        "import omamori_agent, omamori_protocol, omamori_hw\n"
        "for package in (omamori_agent, omamori_protocol, omamori_hw):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            loaded = importlib.import_module(module.name)\n"
        "            if not loaded.__file__.startswith('/usr/lib/omamori/python/'):\n"
        "                sys.exit(str(loaded))\n"
        "            if not importlib.util.find_spec(module.name).cached.endswith('.opt-2.pyc'):\n"
        "                sys.exit(module.name)\n"
        "print('ok')\n"
    )
    output = run.run(enter.command(release_tree, "root", [], ["python3", "-IOO", "-c", code]), timeout_s=120)
    assert output.decode().strip() == "ok"
    sources = list((release_tree / "usr/lib/omamori/python/omamori_agent").rglob("*.py"))
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-313.opt-2.pyc"
        flags = struct.unpack_from("<I", compiled.read_bytes(), 4)[0]
        assert flags == 0b01, "compiled files are by hash and unchecked"
    others = [path for path in release_tree.rglob("*.pyc") if not path.name.endswith(".opt-2.pyc")]
    assert not others, "every program starts Python with -OO"


def test_every_python_program_uses_the_compiled_files(release_tree: Path) -> None:
    for path in (release_tree / "usr/bin").glob("omamori-*"):
        first = path.read_bytes().split(b"\n", 1)[0]
        assert first == b"#!/usr/bin/python3 -IOO" or not first.startswith(b"#!"), path


def test_the_hash_tree_fits_the_root_file_system(release: Path, tools: ToolsTree) -> None:
    roothash = (release / "roothash").read_text().strip()
    assert roothash == manifest(release)["roothash"]
    line = ["veritysetup", "verify", release / "root.erofs", release / "root.verity", roothash]
    tools.run(line, binds=[release])


def test_one_signature_covers_the_root_hash(release: Path, keys: Path, tools: ToolsTree) -> None:
    binds = [release, keys / "trust"]
    tools.run(["sbverify", "--cert", keys / "trust" / "db.crt", release / "omamori.efi"], binds=binds)
    code = (
        "import pefile, sys\n"
        "image = pefile.PE(sys.argv[1])\n"
        "found = next(part for part in image.sections if part.Name.rstrip(bytes(1)) == b'.cmdline')\n"
        "sys.stdout.buffer.write(found.get_data(length=found.Misc_VirtualSize))\n"
    )
    words = tools.run(["python3", "-c", code, release / "omamori.efi"], binds=binds).decode().split()
    assert f"roothash={manifest(release)['roothash']}" in words


def test_a_tpm_is_reached_through_the_kernels_device_alone(release_tree: Path) -> None:
    library = Path("/usr/lib") / X86_64.triplet
    wanted = [str(library / name) for name in ("ossl-modules/tpm2.so", "libtss2-tcti-device.so.0")]
    assert elf.libraries(release_tree, wanted, machine=X86_64.elf_machine, triplet=X86_64.triplet)
    ways = (release_tree / library.relative_to("/")).glob("libtss2-tcti-*")
    assert {path.name.partition(".")[0] for path in ways} == {"libtss2-tcti-device"}
    assert [path for path in files(release_tree / "usr/lib/udev") if "tpm" in path.name] == []


def test_other_tools_read_the_disk(release: Path, tools: ToolsTree) -> None:
    table = json.loads(tools.run(["sfdisk", "--json", release / "disk.raw"], binds=[release]))["partitiontable"]
    names = [row["name"] for row in table["partitions"]]
    assert names == ["slot_a", "slot_b", "root_a", "verity_a", "root_b", "verity_b", "data"]
    assert b"No errors" in tools.run(["sfdisk", "--verify", release / "disk.raw"], binds=[release])
    for name, source in (("root_a", "root.erofs"), ("verity_a", "root.verity")):
        content = (release / source).read_bytes()
        with (release / "disk.raw").open("rb") as stream:
            stream.seek(disk.find(SIZES, name).start)
            assert stream.read(len(content)) == content
    offset = disk.find(SIZES, "slot_a").start
    listing = tools.run(["mdir", "-b", "-/", "-i", f"{release}/disk.raw@@{offset}", "::"], binds=[release])
    assert listing.decode().split() == ["::/EFI/", "::/EFI/BOOT/", "::/EFI/BOOT/BOOTX64.EFI"]


def test_a_release_fits_its_budget(release: Path, tools: ToolsTree) -> None:
    packed = tools.run(["zstd", "-q", "-3", "-T2", "-c", release / "root.erofs"], binds=[release])
    assert len(packed) + (release / "omamori.efi").stat().st_size < 160 << 20
    assert (release / "root.erofs").stat().st_size < SIZES.root_mib * gpt.MIB * 3 // 4, "leave room for later releases"


def test_the_firmware_trusts_our_keys_alone(release: Path, tools: ToolsTree) -> None:
    listing = tools.run(
        ["virt-fw-vars", "--input", release / "vars.fd", "--print", "--verbose"], binds=[release]
    ).decode()
    assert re.search(r"name=SecureBootEnable .*\n\s*bool: ON", listing)
    certificates = re.findall(r"subject (.*)", listing)
    assert sorted(certificates) == [f"CN=Omamori Secure Boot {name}" for name in ("KEK", "PK", "db")]


def test_a_second_build_only_writes_the_disk(build, release: Path) -> None:  # type: ignore[no-untyped-def]
    again, _, reporter = build("release")
    assert [item.name for item in reporter.times if not item.cached] == ["disk"]
    assert sum(item.seconds for item in reporter.times) < 15
    assert manifest(again)["files"] == manifest(release)["files"]


def test_a_second_machine_builds_the_same_bytes(  # type: ignore[no-untyped-def]
    build, release: Path, cache: Cache, tmp_path: Path
) -> None:
    """Everything is made anew but the package files and the tools."""
    fresh = Cache(tmp_path / "cache")
    for path in cache.debs.glob("*.deb"):
        shutil.copyfile(path, fresh.debs / path.name)
    tools_tree = max((cache.debs.parent / "objects").glob("tools-*"), key=lambda path: path.stat().st_mtime)
    (tmp_path / "cache" / "objects").mkdir()
    (tmp_path / "cache" / "objects" / tools_tree.name).symlink_to(tools_tree)
    again, _, reporter = build("release", own_cache=fresh)
    assert {item.name for item in reporter.times if item.cached} == {"tools tree"}
    assert manifest(again)["files"] == manifest(release)["files"]


def test_the_manifest_names_each_file_by_hash(release: Path) -> None:
    described = manifest(release)["files"]
    assert isinstance(described, dict)
    for name, facts in described.items():
        data = (release / name).read_bytes()
        assert facts == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    names = {row["name"] for row in json.loads((release / "packages.json").read_text())}
    assert {"suricata", "systemd", "nftables"} <= names
    assert not {"bash", "dash", "apt", "dpkg", "perl-base"} & names


def test_a_devices_disk_holds_its_provisioning(release: Path, tools: ToolsTree, cache: Cache, tmp_path: Path) -> None:
    provision = tmp_path / "provision.json"
    provision.write_text(json.dumps({"format": 1, "serial": "ZA35-000042", "claim": "A" * 26}))
    made = tmp_path / "box.raw"
    assert factory.personalise(release, provision, made, tools, cache) == "ZA35-000042"
    partition = disk.find(SIZES, "data")
    data = tmp_path / "data.ext4"
    with made.open("rb") as stream:
        stream.seek(partition.start)
        data.write_bytes(stream.read(partition.size))
    tools.run(["e2fsck", "-fn", data], binds=[tmp_path])
    inside = tools.run(["debugfs", "-R", "cat /lib/omamori/factory/provision.json", data], binds=[tmp_path])
    assert json.loads(inside) == json.loads(provision.read_text())
    owner = tools.run(["debugfs", "-R", "stat /lib/omamori/factory/provision.json", data], binds=[tmp_path]).decode()
    assert re.search(r"User:\s+0\s+Group:\s+960", owner)
    assert "Mode:  0640" in owner
    again = tmp_path / "again.raw"
    factory.personalise(release, provision, again, tools, cache)
    assert again.stat().st_blocks * 512 < 512 << 20, "a disk file is sparse"
