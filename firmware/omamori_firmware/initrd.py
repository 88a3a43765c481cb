"""The initrd: a small archive that brings up the bridge and opens the verified root file system.

It contains busybox, three disk tools with their libraries, the boot chooser, the board's modules and one script; no
udev and no systemd. Its bytes depend on nothing but its content: fixed order, owners, numbers and times. What comes
from the tools, from the kernel and from us are archives of their own, each compressed by itself: where one changes, the
others stay as they were, and the difference between two releases does not contain them.
"""

import io
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware import elf
from omamori_firmware.architecture import Architecture
from omamori_firmware.kernel import Kernel
from omamori_firmware.tools import ToolsTree

# Applets that the script uses; each is a link to busybox.
APPLETS = (
    "cat", "dd", "echo", "grep", "ip", "ln", "mkdir", "modprobe", "mount", "printf", "readlink", "sh", "sleep", "sort",
    "switch_root", "tail", "tr", "umount", "wc",
)  # fmt: skip
# Stands for the name of the board's console in the first program and in units.
SHELL_CONSOLE = b"@SHELL_CONSOLE@"
_TOOLS = ("/usr/sbin/dmsetup", "/usr/sbin/e2fsck", "/usr/sbin/mke2fs")


@dataclass(frozen=True)
class Entry:
    """One member of the archive; `data` is a link's target for links."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Programs:
    """Where the programs come from: a tree with those of the board's processor."""

    tree: ToolsTree
    arch: Architecture


def build_initrd(
    script: Path,
    slots: str,
    chooser: Path,
    load: tuple[str, ...],
    kernel: Kernel,
    programs: Programs,
    tools: ToolsTree,
    target: Path,
    *,
    shell_console: str,
) -> None:
    """Write a compressed initrd.

    Args:
        script: The first program.
        slots: The slots' boot partitions, as `installer.partition_file` gives them.
        chooser: The boot chooser.
        load: Modules to load first.
        kernel: Supplies the modules.
        programs: Supplies busybox and the disk tools.
        tools: Supplies the compressor.
        target: File to write.
        shell_console: Device of a development image's root console, which the first program names.
    """
    entries = [
        *(Entry(name, stat.S_IFDIR | 0o755) for name in ("dev", "proc", "sys", "run", "sysroot", "etc", "bin", "tmp")),
        Entry("sbin", stat.S_IFLNK | 0o777, b"bin"),
        Entry("lib", stat.S_IFLNK | 0o777, b"usr/lib"),
        Entry("lib64", stat.S_IFLNK | 0o777, b"usr/lib64"),
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry("etc/mtab", stat.S_IFLNK | 0o777, b"/proc/self/mounts"),
        Entry("bin/busybox", stat.S_IFREG | 0o755, programs.tree.path("/usr/bin/busybox").read_bytes()),
        *(Entry(f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox") for name in APPLETS),
        *_programs(programs),
    ]
    ours = [
        Entry("init", stat.S_IFREG | 0o755, script.read_bytes().replace(SHELL_CONSOLE, shell_console.encode())),
        Entry("etc/modules", stat.S_IFREG | 0o644, ("\n".join(load) + "\n").encode()),
        Entry("etc/slots", stat.S_IFREG | 0o644, slots.encode()),
        Entry(f"bin/{chooser.name}", stat.S_IFREG | 0o755, chooser.read_bytes()),
    ]
    packed = [_compress(archive(part), target, tools) for part in (entries, [*_modules(kernel)], ours)]
    # The kernel unpacks one after the other; each begins at a multiple of four.
    target.write_bytes(b"".join(data + b"\0" * (-len(data) % 4) for data in packed))


def _compress(data: bytes, target: Path, tools: ToolsTree) -> bytes:
    plain, packed = target.with_suffix(".part"), target.with_suffix(".packed")
    plain.write_bytes(data)
    tools.run(["zstd", "-q", "-19", "-T1", "--rm", plain, "-o", packed], binds=[target.parent])
    found = packed.read_bytes()
    packed.unlink()
    return found


def archive(entries: list[Entry]) -> bytes:
    """Return a cpio archive (`newc`) of the entries, with the directories they need, sorted by name."""
    members = {entry.name: entry for entry in entries}
    for entry in entries:
        for parent in Path(entry.name).parents:
            name = str(parent)
            if name != "." and name not in members:
                members[name] = Entry(name, stat.S_IFDIR | 0o755)
    output = io.BytesIO()
    for number, name in enumerate(sorted(members), 1):
        _write_member(output, members[name], number)
    _write_member(output, Entry("TRAILER!!!", 0), 0)
    output.write(b"\0" * (-output.tell() % 512))
    return output.getvalue()


def _write_member(output: io.BytesIO, entry: Entry, number: int) -> None:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = [number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0]
    output.write(b"070701" + b"".join(b"%08x" % value for value in fields) + name)
    output.write(b"\0" * (-output.tell() % 4) + entry.data)
    output.write(b"\0" * (-output.tell() % 4))


def _programs(programs: Programs) -> Iterator[Entry]:
    tree, arch = programs.tree, programs.arch
    for program in _TOOLS:
        yield Entry(f"bin/{Path(program).name}", stat.S_IFREG | 0o755, tree.path(program).read_bytes())
    found = elf.libraries(tree.top, _TOOLS, machine=arch.elf_machine, triplet=arch.triplet)
    for library in sorted({arch.loader, *found}):
        yield Entry(library.lstrip("/"), stat.S_IFREG | 0o755, tree.path(library).read_bytes())


def _modules(kernel: Kernel) -> Iterator[Entry]:
    top = kernel.modules("initrd")
    for path in sorted(top.rglob("*")):
        if path.is_file():
            name = f"usr/lib/modules/{kernel.release}/{path.relative_to(top)}"
            yield Entry(name, stat.S_IFREG | 0o644, path.read_bytes())
