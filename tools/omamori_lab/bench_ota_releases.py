"""Images and releases for the measurement of updates: today's packages, and what the mirror still has of older ones.

The images are release images, made by the product's own build from a copy of what they are made from, in which only
the list of package versions differs; releases and differences by the operator's own commands.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from omamori_firmware import lockfile
from omamori_firmware.build import STAGES, Builder, BuildRequest
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.lockfile import Package
from omamori_firmware.progress import Reporter
from omamori_firmware.recipe import SourceTree, source_tree
from omamori_ota.firmware.release_directory import ReleaseDirectory

from . import products
from .errors import LabError, SetupError
from .older_packages import older_lock, read_records
from .progress import Progress

_BOARD = "x86_64-uefi"
_PARTS = ("firmware", "hw", "agent", "protocol", "requirements")
_KERNELS = r"^linux-image-[0-9.]+\+deb[0-9]+-amd64$"
_EPOCH = 1_800_000_000  # build times differ, as those of releases do; nothing else depends on them
_MONTH_S = 30 * 86400
_MAKE_TIMEOUT_S = 1800.0
_BASE_LEVEL = "3"  # of the older releases' full payload, which nobody fetches here
NEW = "1.1.0"


@dataclasses.dataclass(frozen=True)
class Base:
    """An older release: which of its packages are older."""

    version: str
    title: str
    kernel: bool
    userland: bool


BASES = (
    Base("1.0.0", "userland", kernel=False, userland=True),
    Base("1.0.1", "kernel", kernel=True, userland=False),
    Base("1.0.2", "kernel and userland", kernel=True, userland=True),
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """An update.

    Attributes:
        base: What runs.
        delta_bytes: What a box fetches.
        changed: Packages that differ, with both versions.
    """

    base: Base
    delta_bytes: int
    changed: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Releases:
    """All releases; `path` of each is its version below `directory`."""

    directory: Path
    bundle_bytes: int
    full_bytes: int
    differences: tuple[Difference, ...]

    def path(self, version: str) -> Path:
        """Return a release's directory."""
        return self.directory / version


def make_releases(keys: Path, scratch: Path, progress: Progress) -> Releases:
    """Build the images and make the releases.

    Args:
        keys: Key directory.
        scratch: Directory to fill; several GB.
        progress: Told what is being done.

    Raises:
        LabError: A difference is not in the release.
        SetupError: The repository's packages are not locked, or the mirror has nothing older.
        CommandError: A program failed.
    """
    original = source_tree()
    lock = lockfile.load_lock(original.lock("root"))
    if lock is None:
        raise SetupError("root.lock does not exist", hint="omamori-image lock")
    wanted = original.package_list("root")
    names = [item.name for item in lock if item.name not in wanted.from_backports]
    progress.step("older packages of the mirror")
    records = read_records(names, wanted.suite, _KERNELS)
    tree = _copy(original, scratch / "sources")
    releases = scratch / "releases"
    releases.mkdir()
    packages: dict[str, list[Package]] = {}
    with _build_time(_EPOCH - _MONTH_S):
        for base in BASES:
            older = older_lock(lock, records, kernel=base.kernel, userland=base.userland)
            packages[base.version] = older
            _make(tree, older, base.version, keys, scratch, progress, level=_BASE_LEVEL)
    with _build_time(_EPOCH):
        _make(tree, list(lock), NEW, keys, scratch, progress)
    differences = []
    for base in BASES:
        progress.step(f"difference: {base.title}")
        _ota("delta", "--from", releases / base.version, "--to", releases / NEW)
        delta = ReleaseDirectory(releases / NEW).release.delta_from(base.version)
        if delta is None:
            raise LabError(f"release {NEW} has no difference from {base.version}")
        changed = lockfile.compare(packages[base.version], lock)
        differences.append(Difference(base, delta.length, tuple(changed)))
    release = ReleaseDirectory(releases / NEW).release
    return Releases(releases, release.bundle.length, release.full.length, tuple(differences))


def _copy(original: SourceTree, target: Path) -> SourceTree:
    """Copy what images are made from, so that work on it meanwhile changes nothing."""
    for name in _PARTS:
        shutil.copytree(original.top / name, target / name, symlinks=True)
    return SourceTree(target)


def _make(
    tree: SourceTree,
    lock: list[Package],
    version: str,
    keys: Path,
    scratch: Path,
    progress: Progress,
    *,
    level: str | None = None,
) -> None:
    progress.step(f"image {version}")
    tree.lock("root").write_text(lockfile.render_lock(lock))
    image = scratch / "images" / version
    request = BuildRequest(
        board=_BOARD,
        flavour="release",
        trust=keys / "trust",
        signing_key=keys / "secureboot" / "db.key",
        out=image,
        version=version,
        allow_drift=True,
    )
    with Reporter(total=STAGES, quiet=True) as reporter:
        Builder(tree, Cache(default_directory()), reporter).build(request)
    progress.step(f"release {version}")
    notes: list[str | Path] = []
    for language, title in (("ja", "版"), ("en", "Version")):
        path = scratch / f"notes.{language}.md"
        path.write_text(f"# {title} {version}\n")
        notes += [f"--notes-{language}", path]
    out = scratch / "releases" / version
    _ota("bundle", "--image", image, "--keys", keys, "--out", out, *notes, *(("--level", level) if level else ()))
    shutil.rmtree(image)


def _ota(*words: str | Path) -> None:
    products.call("omamori-ota", *words, timeout_s=_MAKE_TIMEOUT_S)


@contextlib.contextmanager
def _build_time(seconds: int) -> Iterator[None]:
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = str(seconds)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
        else:
            os.environ["SOURCE_DATE_EPOCH"] = before
