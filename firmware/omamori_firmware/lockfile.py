"""Locked Debian packages: which versions, and which bytes, an image is made of.

A lock file is text, one package per line, sorted. This module parses, writes and compares; it installs nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from omamori_firmware.errors import SetupError

_LINE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]+) (?P<version>[A-Za-z0-9.+~:-]+) (?P<arch>[a-z0-9-]+) (?P<sha256>[0-9a-f]{64})"
)
_HEADER = "# Debian packages by name, version, architecture and SHA-256. Renew with: omamori-image lock\n"


@dataclass(frozen=True, order=True)
class Package:
    """One binary package, identified down to its bytes."""

    name: str
    version: str
    arch: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Name under which apt stores the package file."""
        return f"{self.name}_{quote(self.version, safe='+~.-')}_{self.arch}.deb".replace("%3A", "%3a")


def load_lock(path: Path) -> tuple[Package, ...] | None:
    """Read a lock file; None when there is none yet.

    Raises:
        SetupError: A line is malformed or names a package twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return parse_lock(text, where=path.name)


def parse_lock(text: str, *, where: str) -> tuple[Package, ...]:
    """Turn the text of a lock file into packages.

    Raises:
        SetupError: A line is malformed or names a package twice.
    """
    packages: dict[str, Package] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if not match or match["name"] in packages:
            raise SetupError(f"{where}:{number}: not a locked package", hint="renew it: omamori-image lock")
        packages[match["name"]] = Package(**match.groupdict())
    return tuple(sorted(packages.values()))


def render_lock(packages: Iterable[Package]) -> str:
    """Return the text of a lock file."""
    lines = [f"{item.name} {item.version} {item.arch} {item.sha256}\n" for item in sorted(packages)]
    return _HEADER + "".join(lines)


def render_preferences(locked: Iterable[Package], from_backports: Iterable[str], suite: str) -> str:
    """Return apt preferences that ask for exactly the locked versions.

    Priority 1001 even allows a downgrade; a version the mirror no longer has matches nothing, and apt takes its
    normal candidate, so that the difference can be shown instead of a dead end.

    Args:
        locked: Packages with wanted versions.
        from_backports: Names that come from backports while they are not locked.
        suite: Debian release, for example `trixie`.
    """
    records = [f"Package: {item.name}\nPin: version {item.version}\nPin-Priority: 1001\n" for item in locked]
    records += [f"Package: {name}\nPin: release n={suite}-backports\nPin-Priority: 600\n" for name in from_backports]
    return "\n".join(records)


def compare(locked: Iterable[Package], present: Iterable[Package]) -> list[str]:
    """Describe each package that is not as locked; an empty list means equal."""
    wanted = {item.name: item for item in locked}
    found = {item.name: item for item in present}
    differences = []
    for name in sorted(wanted.keys() | found.keys()):
        want, have = wanted.get(name), found.get(name)
        if have is None:
            differences.append(f"{name}: locked {want.version if want else '?'}, not installed")
        elif want is None:
            differences.append(f"{name}: {have.version} installed, not locked")
        elif (want.version, want.arch) != (have.version, have.arch):
            differences.append(f"{name}: locked {want.version}, got {have.version}")
        elif want.sha256 != have.sha256:
            differences.append(f"{name}: {have.version} has other bytes than the locked ones")
    return differences


def parse_status(text: str) -> list[tuple[str, str, str]]:
    """List name, version and architecture of the installed packages in a dpkg status file."""
    installed = []
    for paragraph in text.split("\n\n"):
        values = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", paragraph, re.MULTILINE))
        if values.get("Status") == "install ok installed":
            installed.append((values["Package"], values["Version"], values["Architecture"]))
    return sorted(installed)
