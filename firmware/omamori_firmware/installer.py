"""What the image needs to install its successor: RAUC's settings, the boot chooser, and what a release declares.

A bundle is accepted by the image that runs, so all of this is fixed when that image is made and lies in its verified
root file system; nothing of it can be changed on the box.
"""

import re
import tomllib
from pathlib import Path

from omamori_firmware import disk
from omamori_firmware.compiler import Compiler
from omamori_firmware.errors import SetupError
from omamori_firmware.recipe import SourceTree
from omamori_hw.board import Board

CHOOSER = "omamori-slots"
KEY_CHANGER = "omamori-secureboot"
CHOOSER_PATH = f"/usr/lib/omamori/slots/{CHOOSER}"
CONFIG_PATH = "/usr/lib/omamori/rauc.conf"
BUNDLE_CA = "bundle-ca.pem"
SLOT_CLASSES = ("root", "verity", "boot")
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})(-dev\.(0|[1-9]\d{0,8}))?")
_STEP = re.compile(r"step_(\d{4})\.py")
_MAX_EPOCH = 1 << 31


def compatible(board: Board) -> str:
    """Return the name by which a bundle says which boards it is for."""
    return f"omamori-{board.name}"


def check_version(version: str) -> str:
    """Return a version if bundles and boxes can compare it.

    Raises:
        SetupError: It is not `major.minor.patch`, or that with `-dev.N` after it.
    """
    if not _VERSION.fullmatch(version):
        raise SetupError(f"{version!r} is no version", hint="give major.minor.patch, or major.minor.patch-dev.N")
    return version


def security_epoch(tree: SourceTree) -> int:
    """Read the epoch that a release declares.

    Raises:
        SetupError: The file is absent or malformed.
    """
    path = tree.recipe / "release.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as err:
        raise SetupError(f"{path} cannot be read ({err})") from err
    epoch = values.get("security_epoch")
    if set(values) != {"security_epoch"} or type(epoch) is not int or not 1 <= epoch <= _MAX_EPOCH:
        raise SetupError(f"{path} needs exactly security_epoch, a number from 1 on")
    return epoch


def data_version(tree: SourceTree) -> int:
    """Return the version of the box's data that the agent's migrations lead to; 1 without any."""
    numbers = [1]
    for path in (tree.top / "agent" / "omamori_agent" / "migration" / "steps").glob("step_*.py"):
        match = _STEP.fullmatch(path.name)
        if match is None:
            raise SetupError(f"{path.name} is not a migration's name", hint="call it step_0002.py and so on")
        numbers.append(int(match[1]))
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        raise SetupError("the agent's migrations are not numbered 2, 3, 4 and so on")
    return max(numbers)


def rauc_config(board: Board, version: str) -> str:
    """Return RAUC's settings for an image.

    An image takes no bundle of a lower version than its own: the way back is the old content as a higher version.
    """
    lines = [
        "[system]",
        f"compatible={compatible(board)}",
        "bootloader=custom",
        "bundle-formats=verity",
        f"min-bundle-version={check_version(version)}",
        "activate-installed=false",
        "data-directory=/var/lib/omamori/rauc",
        "mountprefix=/run/rauc/mnt",
        "",
        "[handlers]",
        f"bootloader-custom-backend={CHOOSER_PATH}",
        "",
        "[keyring]",
        f"path=/usr/lib/omamori/trust/{BUNDLE_CA}",
        "check-purpose=codesign",
        # A box that was stored long still takes what was signed in time; freshness is the repository's part.
        "use-bundle-signing-time=true",
    ]
    for index, letter in enumerate(sorted(disk.slot_guids())):
        for name in SLOT_CLASSES:
            lines += ["", f"[slot.{name}.{index}]", "type=raw"]
            partition = f"slot_{letter.lower()}" if name == "boot" else f"{name}_{letter.lower()}"
            lines.append(f"device=/dev/omamori/{partition}")
            lines.append(f"bootname={letter}" if name == "root" else f"parent=root.{index}")
    return "\n".join(lines) + "\n"


def partition_file() -> str:
    """Return the identifiers of the slots' boot partitions as the boot chooser and the initrd read them."""
    return "".join(f"SLOT_{letter}_GUID={guid.upper()}\n" for letter, guid in sorted(disk.slot_guids().items()))


def build_chooser(out: Path, *, source: Path, compiler: Compiler | None = None) -> None:
    """Compile the boot chooser, and what changes Secure Boot's keys, into a directory; both linked statically.

    Raises:
        SetupError: The compiler is not installed.
        ToolError: The source does not compile.
    """
    compiler = compiler or Compiler()
    defines = [f'BOOT_FILE="{compiler.arch.boot_file}"']
    for name in (CHOOSER, KEY_CHANGER):
        compiler.compile(source, f"{name.replace('-', '_')}.c", out / name, defines=defines)
