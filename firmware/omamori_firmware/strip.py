"""What is taken out of the root file system at the end.

The lists are data (`recipe/strip.toml`) with their reasons; this module applies them. A pattern that matches
nothing is fine: Debian releases differ.
"""

import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from omamori_firmware.errors import SetupError

_UNIT_DIRECTORIES = ("usr/lib/systemd/system", "etc/systemd/system")


@dataclass(frozen=True)
class StripList:
    """Patterns of what leaves the tree; see the comments in `strip.toml`."""

    packages: tuple[str, ...]
    release_packages: tuple[str, ...]
    paths: tuple[str, ...]
    doors: tuple[str, ...]
    units: tuple[str, ...]


def load_strip_list(path: Path) -> StripList:
    """Read the list.

    Raises:
        SetupError: It is absent or malformed, or a path leads out of the tree.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        if set(values) != {field.name for field in fields(StripList)}:
            raise SetupError(f"{path}: needs exactly the keys {[field.name for field in fields(StripList)]}")
        lists = {key: tuple(str(item) for item in row) for key, row in values.items()}
    except (OSError, TypeError, tomllib.TOMLDecodeError) as err:
        raise SetupError(f"{path} is not a strip list ({err})") from err
    if any(item.startswith("/") or ".." in item for row in lists.values() for item in row):
        raise SetupError(f"{path}: a path leads out of the tree")
    return StripList(**lists)


def strip(root: Path, wanted: StripList, *, release: bool) -> set[str]:
    """Take everything out of a tree that the list names.

    Args:
        root: The tree, with its dpkg database still in it.
        wanted: What to take out.
        release: Also take out what only a developer may have.

    Returns:
        Names of the packages whose files were removed.
    """
    packages = {*wanted.packages, *(wanted.release_packages if release else ())}
    removed = {name for name in packages if _remove_package(root, name)}
    for pattern in (*wanted.paths, *wanted.doors):
        for path in sorted(root.glob(pattern)):
            remove(path)
    for directory in _UNIT_DIRECTORIES:
        for pattern in wanted.units:
            for place in (pattern, f"*/{pattern}"):
                for path in sorted((root / directory).glob(place)):
                    remove(path)
    remove_orphan_scripts(root, ("usr/bin", "usr/sbin", "usr/libexec", "usr/lib", "usr/share", "etc"))
    remove_dangling_links(
        root, ("usr/bin", "usr/sbin", "usr/lib/systemd/system", "etc/systemd/system", "etc/alternatives")
    )
    return removed


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory; nothing happens if it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_dangling_links(root: Path, directories: Iterable[str]) -> None:
    """Remove links whose target left the tree, until none is left."""
    again = True
    while again:
        again = False
        for directory in directories:
            for link in sorted((root / directory).rglob("*")):
                if link.is_symlink() and not _exists_inside(root, link):
                    link.unlink()
                    again = True


def remove_orphan_scripts(root: Path, directories: Iterable[str]) -> None:
    """Remove executable scripts whose interpreter left the tree."""
    for directory in directories:
        for path in sorted((root / directory).rglob("*")):
            if path.is_symlink() or not path.is_file() or not path.stat().st_mode & 0o111:
                continue
            with path.open("rb") as stream:
                first = stream.readline(256)
            words = first.removeprefix(b"#!").split()
            if first.startswith(b"#!") and words and not _interpreter_exists(root, words):
                path.unlink()


def _interpreter_exists(root: Path, words: list[bytes]) -> bool:
    names = [word.decode(errors="replace") for word in words]
    if names[0].endswith("/env") and len(names) > 1:
        return any(_exists_inside(root, root / place / names[1]) for place in ("usr/bin", "usr/sbin"))
    return _exists_inside(root, root / names[0].lstrip("/"))


def _exists_inside(root: Path, link: Path) -> bool:
    for _ in range(16):
        if not link.is_symlink():
            return link.exists()
        target = link.readlink()
        if str(target) == "/dev/null" or target.is_relative_to("/proc") or target.is_relative_to("/run"):
            return True
        link = root / target.relative_to("/") if target.is_absolute() else link.parent / target
    return False


def _remove_package(root: Path, name: str) -> bool:
    info = root / "var/lib/dpkg/info"
    listings = [*info.glob(f"{name}.list"), *info.glob(f"{name}:*.list")]
    for listing in listings:
        for line in listing.read_text(encoding="utf-8").splitlines():
            path = root / line.lstrip("/")
            if path.is_symlink() or path.is_file():
                path.unlink()
    return bool(listings)
