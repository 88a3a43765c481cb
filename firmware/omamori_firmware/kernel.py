"""The kernel of the image: its file, and the modules a board lists with all they depend on.

Modules leave their compression behind: the little `modprobe` of the initrd cannot read it, and the file system's
own layer (or none) serves better. Their signatures stay, since Secure Boot locks the kernel down.
"""

import lzma
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware.errors import SetupError
from omamori_firmware.run import run
from omamori_firmware.tools import ToolsTree
from omamori_hw.board import Board

_KEPT_INDEXES = ("modules.builtin", "modules.builtin.modinfo", "modules.order")


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel: `directory` holds `vmlinuz`, `initrd/lib/modules` and `root/lib/modules`."""

    directory: Path
    release: str

    @property
    def image(self) -> Path:
        """The bootable kernel file."""
        return self.directory / "vmlinuz"

    def modules(self, place: str) -> Path:
        """Return the module directory for `initrd` or `root`."""
        return self.directory / place / "lib" / "modules" / self.release


def open_kernel(directory: Path) -> Kernel:
    """Return a kernel that `unpack_kernel` made earlier."""
    return Kernel(directory, (directory / "release").read_text().strip())


def unpack_kernel(package: Path, board: Board, tools: ToolsTree, target: Path, work: Path) -> None:
    """Unpack a kernel package and select a board's modules.

    Args:
        package: The Debian package file.
        board: Names the wanted modules.
        tools: Supplies depmod.
        target: Directory to fill.
        work: Scratch directory.

    Raises:
        SetupError: A listed module exists neither as a module nor inside the kernel.
        ToolError: The package cannot be unpacked.
    """
    run(["dpkg-deb", "-x", package, work], timeout_s=300)
    (image,) = (work / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    if not (work / "lib").exists():
        (work / "lib").symlink_to("usr/lib")
    tools.run(["depmod", "-b", work, release], binds=[work])
    source = work / "lib" / "modules" / release
    dependencies = parse_dependencies((source / "modules.dep").read_text())
    soft = parse_soft_dependencies((source / "modules.softdep").read_text())
    builtin = {module_name(line) for line in (source / "modules.builtin").read_text().splitlines()}
    for place, names in (("initrd", board.modules.initrd), ("root", (*board.modules.initrd, *board.modules.root))):
        paths = closure(names, dependencies, soft, builtin)
        _copy_modules(source, target / place / "lib" / "modules" / release, paths)
        tools.run(["depmod", "-b", target / place, release], binds=[target])
        for index in (target / place / "lib" / "modules" / release).glob("modules.*"):
            if not _needed_index(index.name, place):
                index.unlink()
    shutil.copyfile(image, target / "vmlinuz")
    (target / "release").write_text(release + "\n")


def module_name(path: str) -> str:
    """Return the name of a module from its file name; `-` and `_` are the same to the kernel."""
    return re.sub(r"\.ko(\.xz|\.zst|\.gz)?$", "", path.rsplit("/", 1)[-1].strip()).replace("-", "_")


def parse_dependencies(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Read `modules.dep`: module name to its path and the paths of everything it needs."""
    table = {}
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        table[module_name(path)] = (path, tuple(needed.split()))
    return table


def parse_soft_dependencies(text: str) -> dict[str, tuple[str, ...]]:
    """Read `modules.softdep`: module name to the modules it would like to have."""
    table: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 2 and words[0] == "softdep":
            wanted = tuple(module_name(word) for word in words[2:] if not word.endswith(":"))
            table[module_name(words[1])] = table.get(module_name(words[1]), ()) + wanted
    return table


def closure(
    names: Iterable[str],
    dependencies: Mapping[str, tuple[str, tuple[str, ...]]],
    soft: Mapping[str, tuple[str, ...]],
    builtin: set[str],
) -> set[str]:
    """Return the paths of the named modules and of everything they need or would like.

    Raises:
        SetupError: A name is unknown to this kernel.
    """
    paths: set[str] = set()
    todo = [name.replace("-", "_") for name in names]
    unknown = [name for name in todo if name not in dependencies and name not in builtin]
    if unknown:
        raise SetupError(f"this kernel has no module {', '.join(unknown)}", hint="correct the board's [modules]")
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += soft.get(name, ())
        if name in dependencies:
            path, needed = dependencies[name]
            paths.add(path)
            todo += [module_name(other) for other in needed]
    return paths


def _copy_modules(source: Path, target: Path, paths: Iterable[str]) -> None:
    for path in sorted(paths):
        plain = target / path.removesuffix(".xz")
        plain.parent.mkdir(parents=True, exist_ok=True)
        data = (source / path).read_bytes()
        plain.write_bytes(lzma.decompress(data) if path.endswith(".xz") else data)
    for name in _KEPT_INDEXES:
        shutil.copyfile(source / name, target / name)


def _needed_index(name: str, place: str) -> bool:
    if place == "initrd":  # busybox reads the texts
        return name in {"modules.dep", "modules.alias", "modules.symbols", "modules.softdep"}
    return name.endswith(".bin") or name in {"modules.softdep", "modules.order", "modules.builtin"}
