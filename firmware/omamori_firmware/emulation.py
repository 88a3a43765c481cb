"""Programs of another processor on this machine: the kernel is told to start them with an emulator.

Packages bring scripts and programs that run once when they are installed. The emulator comes from the cross tree and is
opened by the kernel when it is registered (flag F), so it also works in other root directories and nothing of it has to
lie there. The registration lasts as long as somebody needs it; one that a killed build left behind is used again.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from omamori_firmware.architecture import Architecture
from omamori_firmware.cache import Cache
from omamori_firmware.errors import SetupError, ToolError
from omamori_firmware.run import run
from omamori_firmware.tools import ToolsTree

_FILESYSTEM = "binfmt_misc"
_MAX_LINE = 1920  # MAX_REGISTER_LENGTH in the kernel's fs/binfmt_misc.c
_HINT = "it needs root and a kernel with CONFIG_BINFMT_MISC; boards of this machine's own processor need neither"


@contextlib.contextmanager
def emulation(arch: Architecture, cross: ToolsTree | None, cache: Cache) -> Iterator[None]:
    """Let this machine run the programs of a processor while the context lasts.

    Args:
        arch: The processor.
        cross: Tree that holds the emulator; not looked at where none is needed.
        cache: Where builds meet: the last one removes the registration.

    Raises:
        SetupError: The kernel cannot do it.
    """
    if arch.emulator is None or cross is None:
        yield
        return
    emulator = cross.path(arch.emulator)
    lock = cache.lock_file(f"emulation-{arch.name}")
    with cache.workspace("emulation") as work, lock.open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with _mounted(work / "formats") as formats:
            entry = formats / f"omamori-{arch.name}"
            _register(formats, entry, registration(entry.name, arch.elf_machine, emulator))
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    # Only the last user gets it; whoever comes now waits until the entry is gone, and makes it anew.
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    entry.write_text("-1")


def registration(name: str, elf_machine: int, emulator: Path) -> bytes:
    """Return the line that the kernel takes: 64-bit little-endian programs of a processor, fixed or movable.

    Raises:
        SetupError: The emulator's path does not fit the line.
    """
    header = bytearray(20)
    header[:7] = b"\x7fELF\x02\x01\x01"
    header[16], header[18] = 2, elf_machine
    mask = bytearray(b"\xff" * 20)
    mask[7:9] = b"\0\0"  # which system, and its version
    mask[16] = 0xFE  # 2 is a fixed program, 3 a movable one
    text = "".join(
        f":{part}" for part in (name, "M", "", _escaped(bytes(header)), _escaped(bytes(mask)), emulator, "F")
    )
    line = text.encode()
    if ":" in str(emulator) or len(line) > _MAX_LINE:
        raise SetupError(f"the kernel takes no emulator at {emulator}", hint="choose another $OMAMORI_CACHE")
    return line


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{value:02x}" for value in data)


def _register(formats: Path, entry: Path, line: bytes) -> None:
    if entry.exists():
        state = entry.read_text().splitlines()
        if "enabled" in state[:1] and any(row.startswith("flags:") and "F" in row for row in state):
            return
        entry.write_text("-1")
    try:
        (formats / "register").write_bytes(line)
    except FileExistsError:
        return  # somebody else was quicker
    except OSError as err:
        raise SetupError(f"the kernel did not take the emulator ({err.strerror})", hint=_HINT) from err


@contextlib.contextmanager
def _mounted(place: Path) -> Iterator[Path]:
    """Mount the kernel's table of formats at a place of ours; it is the same table wherever it is mounted."""
    place.mkdir()
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines() if line}
    try:
        run(["mount", "-t", _FILESYSTEM, _FILESYSTEM, place], timeout_s=30)
    except ToolError as err:
        what = "cannot be mounted" if _FILESYSTEM in known else "is unknown to this kernel"
        raise SetupError(f"{_FILESYSTEM} {what}: programs of another processor cannot be run", hint=_HINT) from err
    try:
        yield place
    finally:
        run(["umount", place], timeout_s=30)
