"""The initrd's archive and its one script."""

import re
import stat
import subprocess  # noqa: TID251 - asks the system's own cpio and sh
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from unittest.mock import ANY

import pytest

from omamori_firmware.architecture import X86_64
from omamori_firmware.initrd import APPLETS, Entry, Programs, archive, build_initrd
from omamori_firmware.kernel import Kernel
from omamori_firmware.recipe import source_tree
from omamori_firmware.tools import ToolsTree
from sim.elf_file import elf_file

SCRIPT = source_tree().recipe / "initrd" / "init"
ENTRIES = [
    Entry("usr/lib/x", stat.S_IFREG | 0o644, b"abc"),
    Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
    Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
]


def test_the_archive_does_not_depend_on_the_order_of_its_entries() -> None:
    assert archive(ENTRIES) == archive(list(reversed(ENTRIES)))


def test_other_tools_can_read_the_archive(tmp_path: Path) -> None:
    listing = subprocess.run(["cpio", "-tvn"], input=archive(ENTRIES), capture_output=True, check=True).stdout.decode()
    rows = [line.split() for line in listing.splitlines()]
    assert [row[-1] for row in rows] == ["bin", "busybox", "dev", "dev/console", "usr", "usr/lib", "usr/lib/x"]
    assert rows[1][-3:] == ["bin/sh", "->", "busybox"]
    assert rows[3][0] == "crw-------"
    assert rows[6][0] == "-rw-r--r--"


def test_the_script_is_correct_shell() -> None:
    subprocess.run(["sh", "-n", SCRIPT], check=True)


def test_the_script_forwards_before_it_looks_at_any_disk() -> None:
    text = SCRIPT.read_text()
    assert text.index('say "forwarding') < text.index("find_disk()")
    assert text.index('say "forwarding') < text.index("dmsetup create")
    assert text.index("dmsetup create") < text.index("mke2fs")


@pytest.mark.parametrize("applet", APPLETS)
def test_every_applet_is_used(applet: str) -> None:
    assert applet in SCRIPT.read_text()


class PlainTools:
    """Plays the tools tree; what it compresses stays as it is."""

    def __init__(self, top: Path) -> None:
        self._top = top

    def path(self, name: str) -> Path:
        path = self._top / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(elf_file(X86_64.elf_machine, [] if name.endswith("libc.so.6") else ["libc.so.6"]))
        return path

    @property
    def top(self) -> Path:
        self.path("/usr/lib/x86_64-linux-gnu/libc.so.6")
        return self._top

    def run(self, line: list[str | Path], *, binds: Sequence[Path] = ()) -> bytes:
        if line[0] == "zstd":
            source, target = Path(line[line.index("--rm") + 1]), Path(line[-1])
            target.write_bytes(source.read_bytes() + b"x")  # an odd length
            source.unlink()
            return b""
        raise AssertionError(line)


def build(top: Path, *, module: bytes = b"module", script: bytes = b"script") -> list[bytes]:
    """Return the archives of an initrd."""
    top.mkdir()
    (top / "init").write_bytes(script)
    (top / "omamori-slots").write_bytes(b"chooser")
    kernel = Kernel(top / "kernel", "6.12.0")
    kernel.modules("initrd").mkdir(parents=True)
    (kernel.modules("initrd") / "bridge.ko").write_bytes(module)
    tools = cast(ToolsTree, PlainTools(top / "tools"))
    build_initrd(
        top / "init",
        "slots",
        top / "omamori-slots",
        ("bridge",),
        kernel,
        Programs(tools, X86_64),
        tools,
        top / "initrd.zst",
        shell_console="ttyS1",
    )
    data = (top / "initrd.zst").read_bytes()
    assert len(data) % 4 == 0
    found = [match.start() for match in re.finditer(rb"TRAILER!!!.*?x\0{0,3}(?=070701|\Z)", data, re.DOTALL)]
    starts = [0, *(data.index(b"070701", end) for end in found[:-1])]
    assert all(start % 4 == 0 for start in starts)
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def test_a_new_kernel_or_a_change_of_ours_leaves_the_other_archives_as_they_were(tmp_path: Path) -> None:
    tools, modules, ours = build(tmp_path / "a")
    assert build(tmp_path / "b", module=b"another, longer module") == [tools, ANY, ours]
    assert build(tmp_path / "c", script=b"another script") == [tools, modules, ANY]
    assert b"bin/busybox" in tools
    assert b"usr/lib64/ld-linux-x86-64.so.2" in tools
    assert b"usr/lib/x86_64-linux-gnu/libc.so.6" in tools
    assert b"bridge.ko" in modules
    assert b"init\0" in ours
    assert b"omamori-slots" in ours
