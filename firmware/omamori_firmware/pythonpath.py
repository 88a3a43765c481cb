"""The device's Python code: locked wheels and exactly our three packages.

Wheels are made for the device's interpreter, not for ours, and only ready-made ones are taken: nothing is compiled
and no code of a package runs while the image is built.
"""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from omamori_firmware.errors import SetupError
from omamori_firmware.files import copy_tree
from omamori_firmware.run import run
from omamori_firmware.tools import ToolsTree

PLACE = "usr/lib/omamori/python"
_PYTHON = "3.13"
_COMPILE = "import compileall, sys; sys.pycache_prefix = None; sys.exit(not compileall.main())"
_GLIBC = ("2_34", "2_28", "2_17", "2_12", "2_5")


def fetch_wheels(lock: Path, target: Path, *, arch: str) -> None:
    """Unpack the locked wheels into a directory.

    Args:
        lock: Requirements with hashes of everything, dependencies included.
        target: Directory to fill.
        arch: Processor of the device.

    Raises:
        ToolError: A wheel is not available or is not the locked one.
    """
    line: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    line += ["--target", target, "--no-compile", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    line += ["--implementation", "cp", "--python-version", _PYTHON, "--no-cache-dir"]
    line += [f"--abi={abi}" for abi in ("cp" + _PYTHON.replace(".", ""), "abi3", "none")]
    line += [f"--platform=manylinux_{version}_{arch}" for version in _GLIBC]
    line += [f"--platform={name}_{arch}" for name in ("manylinux2014", "manylinux2010", "manylinux1")]
    run([*line, "-r", lock], timeout_s=900, hint="the lock names wheels for Debian 13; renew it: tools/lock.sh")
    shutil.rmtree(target / "bin", ignore_errors=True)
    # The installer's own notes: it lists hashes of the programs just removed, which name this machine's interpreter.
    for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
        for note in target.glob(f"*.dist-info/{name}"):
            note.unlink()
    for name in ("test", "tests", "test_data", "testing"):
        for directory in sorted(target.glob(f"**/{name}")):
            shutil.rmtree(directory, ignore_errors=True)


def install(root: Path, wheels: Path, packages: Iterable[Path]) -> None:
    """Put wheels and our packages into a root file system and make its Python find them.

    Args:
        root: The tree.
        wheels: What `fetch_wheels` made.
        packages: Our package directories; an absent one is an unfinished part and left out.
    """
    place = root / PLACE
    copy_tree(wheels, place)
    for package in packages:
        copy_tree(package, place / package.name)
    search = root / "usr/lib/python3/dist-packages"
    search.mkdir(parents=True, exist_ok=True)
    (search / "omamori.pth").write_text(f"/{PLACE}\n")


def compile_all(root: Path, tools: ToolsTree) -> None:
    """Compile every module of a tree.

    The compiled files carry no time and are never checked against their source, which cannot change on the box. They
    are without docstrings and assertions (``-OO``), as every program on the box is started: that is more than a MiB
    less in each of them. Others are not made.

    Args:
        root: The tree.
        tools: Supplies the interpreter: one of the same Debian release, which can also run where the tree's own cannot
            (what it writes is the same for every processor).

    Raises:
        SetupError: The interpreters' versions differ, and with them what they write.
    """
    if not (root / "usr/bin" / f"python{_PYTHON}").exists() or not tools.path(f"/usr/bin/python{_PYTHON}").exists():
        raise SetupError(f"the image and the tools do not both have Python {_PYTHON}", hint="omamori-image lock")
    for cache in root.glob("usr/lib/python3*/**/__pycache__"):
        shutil.rmtree(cache)
    places = [root / "usr/lib/python3.13", root / "usr/lib/python3", root / PLACE]
    # One process in a fixed order: which strings of a module are shared with those before it shows in its bytes.
    # For the same reason the interpreter's own modules are read as sources, never as somebody's compiled files.
    line: list[str | Path] = ["env", "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1", "PYTHONPYCACHEPREFIX=/nowhere"]
    line += ["python3", "-c", _COMPILE, "-q", "-o", "2"]
    line += ["--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/", *places]
    tools.run(line, binds=[root], timeout_s=900)
