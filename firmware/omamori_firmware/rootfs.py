"""The device's root file system: Debian's packages, our files, and everything taken out again.

It turns a tar of packages into the tree that becomes the read-only image. What goes in comes from data (recipes,
overlays, units of other parts); this module only knows the places. A part that is not finished yet leaves its
place empty, and the build says so.
"""

import json
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware import enter, installer, pythonpath
from omamori_firmware.errors import SetupError
from omamori_firmware.files import copy_file, copy_tree
from omamori_firmware.initrd import SHELL_CONSOLE
from omamori_firmware.kernel import Kernel
from omamori_firmware.recipe import SourceTree
from omamori_firmware.run import run
from omamori_firmware.strip import load_strip_list, remove, strip
from omamori_firmware.tools import ToolsTree
from omamori_hw.board import Board

_UNITS = "usr/lib/systemd/system"
_HOME = "usr/lib/omamori"
# Changes of Secure Boot's keys, as the operator has signed them; there need not be any.
KEY_CHANGES = ("secureboot/db-append.auth", "secureboot/dbx-append.auth")
TRUSTED = ("root.json", "service-ca.pem", "desired.pem", installer.BUNDLE_CA)
_UNIT_SUFFIXES = (".service", ".socket", ".timer", ".mount", ".path", ".target", ".slice")


@dataclass(frozen=True)
class Release:
    """What an image is, as it says itself.

    Attributes:
        version: Product version.
        flavour: `release` or `dev`.
        board: The board it is for.
        build_time: Newest time the content is known to be of (epoch seconds).
        security_epoch: A box that has run it takes nothing of a lower epoch any more.
        data_version: Version of the box's data that it works with.
    """

    version: str
    flavour: str
    board: Board
    build_time: int
    security_epoch: int
    data_version: int

    @property
    def is_release(self) -> bool:
        """Say whether this is what customers get."""
        return self.flavour == "release"


@dataclass(frozen=True)
class Parts:
    """Everything that goes into a root file system.

    Attributes:
        tree: This repository.
        packages: Tar of Debian packages.
        kernel: Supplies modules.
        wheels: The device's Python wheels.
        gate: Directory with the gate and its loader.
        slots: Directory with the boot chooser.
        trust: Directory with the public keys.
        tools: Supplies the interpreter that compiles Python.
    """

    tree: SourceTree
    packages: Path
    kernel: Kernel
    wheels: Path
    gate: Path
    slots: Path
    trust: Path
    tools: ToolsTree


def assemble(root: Path, parts: Parts, release: Release, warn: Callable[[str], None]) -> set[str]:
    """Fill an empty directory with the root file system.

    Args:
        root: The directory.
        parts: What goes in.
        release: What it calls itself.
        warn: Told about parts that are missing.

    Returns:
        Names of Debian packages whose files were taken out.

    Raises:
        SetupError: A required part is missing or malformed.
    """
    # Device nodes are made by the kernel; a tree without them can also be made where making them is forbidden.
    run(
        ["tar", "-C", root, "--xattrs", "--xattrs-include=*", "--exclude=./dev/*", "-xpf", parts.packages],
        timeout_s=600,
    )
    copy_tree(parts.kernel.modules("root"), root / "usr/lib/modules" / parts.kernel.release)
    copy_tree(parts.tree.recipe / "overlay" / "common", root)
    copy_tree(parts.tree.recipe / "overlay" / release.flavour, root)
    _install_data_plane(root, parts, warn)
    units = _install_units(root, parts, warn)
    _name_console(units, release.board)
    pythonpath.install(root, parts.wheels, parts.tree.device_packages)
    _install_trust(root, parts.trust)
    _write_settings(root, release, parts.kernel)
    _install_installer(root, parts, release)
    run(enter.command(root, "root", [], ["systemd-sysusers"]), timeout_s=120)
    removed = strip(root, load_strip_list(parts.tree.recipe / "strip.toml"), release=release.is_release)
    pythonpath.compile_all(root, parts.tools)
    _enable(root, units)
    _finish(root)
    return removed


def install_sections(text: str) -> list[tuple[str, str]]:
    """Return what a unit file wants to be enabled for: `wants` or `requires`, and the target's name."""
    found = []
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip()
        match = re.fullmatch(r"(WantedBy|RequiredBy)\s*=\s*(.*)", line.strip())
        if match and section == "[Install]":
            kind = "wants" if match[1] == "WantedBy" else "requires"
            found += [(kind, target) for target in match[2].split()]
    return found


def _install_data_plane(root: Path, parts: Parts, warn: Callable[[str], None]) -> None:
    for name, source in (("wire", parts.tree.wire), ("engine", parts.tree.engine), ("wifi", parts.tree.wifi)):
        if not source.is_dir():
            warn(f"{source} is not there: the image has no {name}")
        copy_tree(source, root / _HOME / name)
    empty_feed = root / _HOME / "engine" / "feed-empty"
    if empty_feed.is_dir():
        empty_feed.rename(root / _HOME / "feed-empty")
    copy_tree(parts.gate, root / _HOME / "gate")


def _install_units(root: Path, parts: Parts, warn: Callable[[str], None]) -> list[Path]:
    """Move the units of all parts to where systemd looks; return those that are ours."""
    place = root / _UNITS
    ours = [
        place / path.name for path in parts.tree.recipe.glob(f"overlay/*/{_UNITS}/*") if (place / path.name).is_file()
    ]
    for part in ("wire", "engine", "wifi"):
        units = [path for path in sorted((root / _HOME / part).glob("*")) if path.suffix in _UNIT_SUFFIXES]
        ours += [unit.rename(place / unit.name) for unit in units]
    for unit in sorted(parts.tree.units.glob("*")):
        if unit.suffix in _UNIT_SUFFIXES:
            ours.append(copy_file(unit, place / unit.name))
        elif unit.suffix == ".conf":
            copy_file(unit, root / "usr/lib/tmpfiles.d" / unit.name)
    for name in ("omamori-wire", "omamori-engine", "omamori-agent"):
        if not (place / f"{name}.service").is_file():
            warn(f"{name}.service is not there yet: the image starts without it")
    return ours


def _name_console(units: list[Path], board: Board) -> None:
    """Tell the units the name of the board's root console, which only development images have."""
    for unit in units:
        text = unit.read_bytes()
        if SHELL_CONSOLE in text:
            unit.write_bytes(text.replace(SHELL_CONSOLE, board.platform.shell_device.encode()))


def _install_trust(root: Path, trust: Path) -> None:
    place = root / _HOME / "trust"
    place.mkdir(parents=True, exist_ok=True)
    for name in TRUSTED:
        if not (trust / name).is_file():
            raise SetupError(f"{trust / name} is not there", hint="omamori-ota keys init DIR, or keys complete DIR")
        copy_file(trust / name, place / name)
    for name in KEY_CHANGES:
        if (trust / name).is_file():
            (root / _HOME / name).parent.mkdir(exist_ok=True)
            copy_file(trust / name, root / _HOME / name)


def _install_installer(root: Path, parts: Parts, release: Release) -> None:
    copy_tree(parts.slots, root / _HOME / "slots")
    _write(root / _HOME / "slots" / "partitions", installer.partition_file())
    _write(root / installer.CONFIG_PATH.lstrip("/"), installer.rauc_config(release.board, release.version))
    _write(root / _HOME / "data-version", f"{release.data_version}\n")


def _write_settings(root: Path, release: Release, kernel: Kernel) -> None:
    board = release.board
    facts = {
        "version": release.version,
        "flavour": release.flavour,
        "board": board.name,
        "model": board.model,
        "build_time": release.build_time,
        "kernel": kernel.release,
        "radio": board.radio.expected,
        "security_epoch": release.security_epoch,
        "data_version": release.data_version,
    }
    _write(root / _HOME / "release.json", json.dumps(facts, sort_keys=True) + "\n")
    _write(root / _HOME / "board.env", board_environment(board))
    settings = root / "usr/lib/systemd/system.conf.d/omamori.conf"
    _write(
        settings,
        "[Manager]\n"
        f"RuntimeWatchdogSec={board.watchdog.runtime_s}\n"
        f"RebootWatchdogSec={board.watchdog.reboot_s}\n"
        "DefaultTimeoutStopSec=20\n"
        "StatusUnitFormat=name\n",
    )
    with (root / "usr/lib/os-release").open("a", encoding="utf-8") as stream:
        stream.write(f"IMAGE_ID=omamori\nIMAGE_VERSION={release.version}\nVARIANT_ID={release.flavour}\n")
    _write(root / "etc/hostname", "omamori\n")
    _write(root / "etc/hosts", "127.0.0.1 localhost omamori\n::1 localhost\n")
    _write(root / "etc/fstab", "")
    _write(root / "etc/machine-id", "")
    resolv = root / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    resolv.symlink_to("../run/systemd/resolve/stub-resolv.conf")


def board_environment(board: Board) -> str:
    """Return what units need to know of the board, as an environment file."""
    button, chip = board.button, board.supervisor
    supervisor = f"SUPERVISOR={chip.device if chip else ''}\n"
    if chip is not None:
        supervisor += (
            f"SUPERVISOR_LEASE_MS={chip.lease_ms}\nSUPERVISOR_BOOT_S={chip.boot_s}\n"
            f"SUPERVISOR_SILENCE_S={chip.silence_s}\nSUPERVISOR_RESETS={chip.resets}\n"
        )
    return (
        f"RADIO={board.radio.interface}\n"
        f'BUTTON="{button.expected or ""}"\n'
        f"BUTTON_HOLD_MS={button.hold_ms}\n"
        f'BUTTON_MODULES="{" ".join(button.modules)}"\n'
        f"{supervisor}"
    )


def _enable(root: Path, units: list[Path]) -> None:
    place = root / _UNITS
    (place / "default.target").symlink_to("multi-user.target")
    for unit in units:
        for kind, target in install_sections(unit.read_text(encoding="utf-8")):
            link = place / f"{target}.{kind}" / unit.name
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(f"../{unit.name}")
    for name in ("systemd-networkd.service", "systemd-resolved.service"):
        link = place / "multi-user.target.wants" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"../{name}")
    _write(root / "usr/lib/systemd/system-preset/00-omamori.preset", "disable *\n")


def _finish(root: Path) -> None:
    """Lock every account and leave only mount points where the box writes."""
    shadow = root / "etc/shadow"
    lines = (line.split(":") for line in shadow.read_text(encoding="utf-8").splitlines())
    # Without the day of the last change, which would be the day of the build.
    _write(shadow, "".join(f"{row[0]}:!*:::::::\n" for row in lines), mode=0o640)
    accounts = root / "etc/passwd"
    lines = (line.split(":") for line in accounts.read_text(encoding="utf-8").splitlines())
    _write(accounts, "".join(":".join([*row[:6], "/usr/sbin/nologin"]) + "\n" for row in lines))
    for name in ("var", "run", "tmp", "dev", "proc", "sys", "root"):
        path = root / name
        remove(path)
        path.mkdir(mode=0o755)
    (root / "tmp").chmod(0o777 | stat.S_ISVTX)
    (root / "root").chmod(0o700)


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
