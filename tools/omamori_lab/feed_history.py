"""What consecutive versions of real lists cost on the wire, as increments, with the product's own writer.

A directory of the user's holds archives (`.tar`, `.tar.zst`); two forms are understood, others are passed over:

* dated versions of one list, one member each: ``2026-07-22__ips.txt``;
* dated differences, ``2026-08-18/dom.diff`` with lines ``+name`` and ``-name``, beside an archive whose name contains
  ``static`` with the newest version: its text files hold one indicator a line.

Nothing is fetched and nothing of it is kept.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
import statistics
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from omamori_protocol.feed_increment import IncrementHead, IncrementWriter

from .errors import SetupError
from .run import run

MAX_MEMBER_BYTES = 64 << 20
MAX_MEMBERS = 20_000
_VERSION = re.compile(r"(?:.*/)?(\d{4}-\d\d-\d\d)__([a-zA-Z0-9._-]+)")
_DIFFERENCE = re.compile(r"(?:.*/)?(\d{4}-\d\d-\d\d)/dom\.diff")
_NAME = re.compile(rb"(?=.{4,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{1,61}")
_ADDRESS = re.compile(rb"\d{1,3}(?:\.\d{1,3}){3}")
# Stands for a manifest of a few lists and rules, which every increment carries; it is compressed with the rest.
_MANIFEST = b'{"channel":"demo","created":"2026-11-22T00:00:00Z","engine_min":"8.0.0","files":[],"format":1}\n'


@dataclasses.dataclass(frozen=True)
class Step:
    """From one version of a list to the next: lines, lines added and removed, bytes of the increment."""

    lines: int
    added: int
    removed: int
    size: int


@dataclasses.dataclass(frozen=True)
class History:
    """Consecutive versions of one list."""

    name: str
    steps: tuple[Step, ...]

    @property
    def mean_bytes(self) -> float:
        """Bytes of an increment on average."""
        return statistics.mean(step.size for step in self.steps)


def read_names(directory: Path) -> list[bytes]:
    """Return every domain of the archives called ``static``, in order and once.

    Raises:
        SetupError: There is none.
    """
    names: set[bytes] = set()
    for archive in _archives(directory):
        if "static" not in archive.name:
            continue
        for _name, data in _members(archive, ".txt"):
            lines = (line.split(b"#")[0].strip().lower() for line in data.split(b"\n"))
            names.update(line for line in lines if _NAME.fullmatch(line))
    if not names:
        raise SetupError(f"no list of names in {directory}", hint="an archive *static*.tar.zst with *.txt files")
    return sorted(names)


def read_histories(directory: Path) -> list[History]:
    """Return what the lists of a directory cost from version to version."""
    found = []
    differences: dict[str, bytes] = {}
    for archive in _archives(directory):
        versions: dict[str, set[bytes]] = {}
        for name, data in _members(archive, ".txt", ".diff"):
            if match := _DIFFERENCE.fullmatch(name):
                differences[match[1]] = data
            elif match := _VERSION.fullmatch(name):
                versions[match[1]] = {line for line in data.split() if _ADDRESS.fullmatch(line)}
        if len(versions) > 1:
            lists = [sorted(lines) for _date, lines in sorted(versions.items())]
            steps = tuple(_step(old, new) for old, new in itertools.pairwise(lists))
            found.append(History(archive.name.partition(".")[0], steps))
    if differences:
        found.append(History("names of the static list", tuple(_walk_back(read_names(directory), differences))))
    return found


def _walk_back(newest: list[bytes], differences: dict[str, bytes]) -> Iterator[Step]:
    present = newest
    for _date, data in sorted(differences.items(), reverse=True):
        lines = data.split(b"\n")
        added = {line[1:] for line in lines if line[:1] == b"+" and _NAME.fullmatch(line[1:])}
        removed = {line[1:] for line in lines if line[:1] == b"-" and _NAME.fullmatch(line[1:])}
        before = sorted((set(present) - added) | removed)
        yield _step(before, present)
        present = before


def _step(old: list[bytes], new: list[bytes]) -> Step:
    kept, wanted = set(old), set(new)
    removals = [place for place, line in enumerate(old) if line not in wanted]
    additions = [line for line in new if line not in kept]
    out = io.BytesIO()
    head = IncrementHead(start=1, goal=2, base_sha256=bytes(32), manifest=_MANIFEST)
    writer = IncrementWriter(out, head)
    writer.changes(0, removals, additions)
    writer.close()
    return Step(len(new), len(additions), len(removals), len(out.getvalue()))


def _archives(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise SetupError(f"{directory} is no directory", hint="give a directory with archives of lists")
    return sorted(path for path in directory.rglob("*") if path.name.endswith((".tar", ".tar.zst")))


def _members(archive: Path, *suffixes: str) -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory(prefix="omamori-lists-") as scratch:
        plain = archive
        if archive.suffix == ".zst":
            plain = Path(scratch) / "archive.tar"
            run(["zstd", "-q", "-d", "--long=27", archive.resolve(), "-o", plain], timeout_s=300)
        with tarfile.open(plain) as opened:
            for count, member in enumerate(opened):
                if count > MAX_MEMBERS:
                    raise SetupError(f"{archive.name} holds more than {MAX_MEMBERS} files")
                if not member.isfile() or not member.name.endswith(suffixes):
                    continue
                stream = opened.extractfile(member)
                data = stream.read(MAX_MEMBER_BYTES + 1) if stream else b""
                if len(data) > MAX_MEMBER_BYTES:
                    raise SetupError(f"{archive.name}: {member.name} is larger than {MAX_MEMBER_BYTES} bytes")
                yield member.name.removeprefix("./"), data
