"""The tools tree: a Debian tree whose programs make the image and run it.

The developer's machine only has to be able to make this tree; everything version-sensitive (systemd's stub, erofs,
the signing tool, QEMU, its firmware) comes from inside. Programs run in a mount namespace of their own.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware import enter
from omamori_firmware.bootstrap import Request, bootstrap
from omamori_firmware.cache import Cache
from omamori_firmware.errors import SetupError
from omamori_firmware.lockfile import Package, load_lock, parse_lock, render_lock
from omamori_firmware.recipe import SourceTree
from omamori_firmware.run import run

STAGE = "tools"


@dataclass(frozen=True)
class ToolsTree:
    """A finished tools tree.

    Attributes:
        top: Its root directory.
        key: Identifies its content, for the keys of stages that use it.
        packages: What is in it.
    """

    top: Path
    key: str
    packages: tuple[Package, ...]

    def path(self, inside: str) -> Path:
        """Return where a file of the tree lies on this machine."""
        return self.top / inside.lstrip("/")

    def command(self, argv: Sequence[str | Path], *, binds: Sequence[Path] = ()) -> list[str]:
        """Return the command line that runs one of the tree's programs.

        Args:
            argv: Program and arguments.
            binds: Directories of this machine that the program sees under the same names.

        Raises:
            SetupError: Not root, who alone may enter another root directory.
        """
        if os.geteuid() != 0:
            raise SetupError("the programs of the tools tree can only be run by root", hint="run the command as root")
        return enter.command(self.top, "tools", binds, argv)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        binds: Sequence[Path] = (),
        timeout_s: float = 600,
        env: Mapping[str, str] | None = None,
    ) -> bytes:
        """Run one of the tree's programs to its end and return its standard output.

        Raises:
            ToolError: It failed or took too long.
        """
        return run(self.command(argv, binds=binds), timeout_s=timeout_s, env=env)


def obtain_tools(
    tree: SourceTree,
    cache: Cache,
    *,
    source_date_epoch: int,
    note: Callable[[str], None] = lambda _: None,
    name: str = STAGE,
    unpacked_for: str | None = None,
) -> tuple[ToolsTree, bool]:
    """Return the tools tree, made if it is not in the cache, and whether it was.

    Args:
        tree: This repository.
        cache: Where trees are kept.
        source_date_epoch: Time stamp of a fresh tree (seconds).
        note: Told what is going on.
        name: Package list of the tree; another one than the image's tools for other purposes.
        unpacked_for: Debian's name of another processor: its packages are only unpacked, and none of the tree's
            programs can be run.
    """
    wanted = tree.package_list(name)
    lock = load_lock(tree.lock(name))
    inputs = {"packages": repr(wanted), "lock": render_lock(lock) if lock else ""}

    def build(directory: Path) -> None:
        request = Request(wanted, lock, None, source_date_epoch, unpacked_for, unpacked=unpacked_for is not None)
        packages = bootstrap(request, directory / "tree", cache, note)
        (directory / "packages.lock").write_text(render_lock(packages))

    cached = cache.find(_stage(name), inputs) is not None
    return _open(cache.obtain(_stage(name), inputs, build)), cached


def find_tools(tree: SourceTree, cache: Cache, *, name: str = STAGE) -> ToolsTree:
    """Return the tools tree that is already in the cache.

    Args:
        tree: This repository.
        cache: Where trees are kept.
        name: Package list of the tree.

    Raises:
        SetupError: There is none.
    """
    wanted = tree.package_list(name)
    lock = load_lock(tree.lock(name))
    found = cache.find(_stage(name), {"packages": repr(wanted), "lock": render_lock(lock) if lock else ""})
    if found is None:
        raise SetupError(f"the tree {name} is not there yet", hint="make it with: omamori-image build")
    return _open(found)


def _stage(name: str) -> str:
    return STAGE if name == STAGE else f"tree_{name}"


def _open(directory: Path) -> ToolsTree:
    text = (directory / "packages.lock").read_text()
    return ToolsTree(directory / "tree", directory.name, parse_lock(text, where="packages.lock"))
