"""Where Debian packages come from: this machine's own apt configuration, read as data.

The image is of a newer Debian release than the developer's machine, but it comes from the same mirrors. Nothing in
this repository names a host. This module does not contact anything.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware.errors import SetupError

_APT = Path("/etc/apt")
_OS_RELEASE = Path("/etc/os-release")
_OPTIONS = re.compile(r"\[[^\]]*\]")
# Settings of the machine's apt that must hold for its mirrors too: a frozen mirror's index is past its date, a
# proxy is the only way out.
_FORWARDED = re.compile(r"Acquire::(Check-Valid-Until|Check-Date|Retries|https?::(Proxy|Timeout)(::.*)?)")
_DUMP_LINE = re.compile(r'(?P<key>[A-Za-z0-9:._/-]+) "(?P<value>[^"]*)";')


@dataclass(frozen=True)
class Source:
    """One suite at one address."""

    uri: str
    suite: str
    components: tuple[str, ...]


@dataclass(frozen=True)
class Mirrors:
    """Addresses of the two Debian archives."""

    debian: str
    security: str

    def sources_list(self, suite: str) -> str:
        """Return the one-line sources of a Debian release with its updates, backports and security fixes."""
        lines = [
            f"deb {self.debian} {suite} main",
            f"deb {self.debian} {suite}-updates main",
            f"deb {self.debian} {suite}-backports main",
            f"deb {self.security} {suite}-security main",
        ]
        return "\n".join(lines) + "\n"


def host_mirrors(apt: Path = _APT, os_release: Path = _OS_RELEASE) -> Mirrors:
    """Find the Debian archive and the security archive in this machine's apt configuration.

    Args:
        apt: apt's configuration directory.
        os_release: File that names the machine's own Debian release.

    Raises:
        SetupError: The release is unknown or one of the archives is not configured.
    """
    codename = _codename(os_release)
    sources = list(read_sources(apt))
    return Mirrors(
        debian=_find(sources, codename, apt),
        security=_find(sources, f"{codename}-security", apt),
    )


def read_sources(apt: Path) -> Iterator[Source]:
    """Yield every enabled binary source of an apt configuration, both of its file formats."""
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for path in files:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".list":
            yield from parse_one_line(text)
        elif path.suffix == ".sources":
            yield from parse_deb822(text)


def parse_one_line(text: str) -> Iterator[Source]:
    """Yield the sources of a `sources.list`."""
    for line in text.splitlines():
        words = shlex.split(_OPTIONS.sub(" ", line.split("#", 1)[0]))
        if len(words) >= 4 and words[0] == "deb":
            yield Source(words[1].rstrip("/"), words[2], tuple(words[3:]))


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the sources of a `.sources` file."""
    for paragraph in re.split(r"\n\s*\n", text):
        values = _fields(paragraph)
        if "deb" not in values.get("types", "").split() or values.get("enabled", "yes").lower() == "no":
            continue
        for uri in values.get("uris", "").split():
            for suite in values.get("suites", "").split():
                yield Source(uri.rstrip("/"), suite, tuple(values.get("components", "").split()))


def forwarded_options(dump: str) -> list[str]:
    """Pick the settings out of `apt-config dump` that the build's own apt has to share.

    Returns:
        Lines of apt configuration.
    """
    found = (_DUMP_LINE.fullmatch(line) for line in dump.splitlines())
    return [
        f'{match["key"]} "{match["value"]}"'
        for match in found
        if match and match["value"] and _FORWARDED.fullmatch(match["key"])
    ]


def _fields(paragraph: str) -> Mapping[str, str]:
    values: dict[str, str] = {}
    key = ""
    for line in paragraph.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace() and key:
            values[key] += " " + line.strip()
        elif ":" in line:
            key, _, value = line.partition(":")
            key = key.strip().lower()
            values[key] = value.strip()
    return values


def _codename(os_release: Path) -> str:
    try:
        text = os_release.read_text(encoding="utf-8")
    except OSError:
        text = ""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', text, re.MULTILINE)
    if not match:
        raise SetupError("this machine's Debian release is unknown", hint=f"{os_release} has no VERSION_CODENAME")
    return match[1]


def _find(sources: list[Source], suite: str, apt: Path) -> str:
    for source in sources:
        if source.suite.rstrip("/") in {suite, suite.replace("-", "/")} and "main" in source.components:
            return source.uri
    raise SetupError(
        f"no mirror for {suite} main in {apt}",
        hint="packages of the image come from the mirrors this machine itself uses; add them to its apt sources",
    )
