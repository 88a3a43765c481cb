"""Keeps the copies of sources that are in use, and where each came from.

    STORE/<source>/current          the copy, as it was published
    STORE/<source>/current.json     its provenance
    STORE/<source>/refused          the last copy that was not believed, for people to look at
    STORE/<source>/refused.json     why

A copy comes into use by its provenance being written, after the copy itself: what the provenance names by digest is
what counts, and a copy that a power cut separated from its provenance is as good as none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from omamori_protocol.durable import sync_directory, write_atomic

from .download import Validators
from .errors import SourceError
from .files import read_bounded
from .guard import Counts

_MAX_RECORD_BYTES = 64 * 1024
_CHUNK = 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a copy came from; times are RFC 3339 in UTC.

    Attributes:
        source: Name of the source.
        origin: URL or file that it was taken from.
        fetched: When these bytes came.
        checked: When they were last confirmed to be the present ones.
        sha256: Of the copy, in hexadecimal.
        size: Of the copy in bytes.
        used: Indicators or active rules in it.
        bad: Bad lines in it.
        skipped: Lines that say nothing to a box.
        etag: As the server gave it.
        last_modified: As the server gave it.
    """

    source: str
    origin: str
    fetched: str
    checked: str
    sha256: str
    size: int
    used: int
    bad: int
    skipped: int
    etag: str = ""
    last_modified: str = ""

    @property
    def counts(self) -> Counts:
        """What the guard compares."""
        return Counts(used=self.used, bad=self.bad)

    @property
    def validators(self) -> Validators:
        """What a server recognises the copy by."""
        return Validators(etag=self.etag, last_modified=self.last_modified)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a copy was not taken, and when."""

    source: str
    at: str
    sha256: str
    reason: str


class SourceStore:
    """The copies below one directory. One process at a time uses it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def incoming(self, name: str) -> Path:
        """Return where a new copy of a source is put together."""
        folder = self._directory / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / ".incoming"

    def current(self, name: str) -> Path:
        """Return the path of the copy in use, whether it is there or not."""
        return self._directory / name / "current"

    def provenance(self, name: str) -> Provenance | None:
        """Return the provenance of the copy in use, or None if there is none or it is not intact.

        Raises:
            SourceError: The record cannot be read.
        """
        body = self._record(name, "current.json")
        path = self.current(name)
        if body is None or not path.is_file():
            return None
        try:
            found = Provenance(**body)
        except TypeError:
            return None
        return found if path.stat().st_size == found.size and digest_of(path) == found.sha256 else None

    def refusal(self, name: str) -> Refusal | None:
        """Return why the last copy of a source was refused, if it has not been taken since."""
        body = self._record(name, "refused.json")
        try:
            return Refusal(**body) if body is not None else None
        except TypeError:
            return None

    def take(self, provenance: Provenance) -> None:
        """Make the incoming copy the one in use."""
        folder = self._directory / provenance.source
        _sync(self.incoming(provenance.source))
        self.incoming(provenance.source).replace(folder / "current")
        sync_directory(folder)
        self._write(provenance.source, "current.json", provenance)
        for name in ("refused", "refused.json"):
            (folder / name).unlink(missing_ok=True)

    def confirm(self, provenance: Provenance) -> None:
        """Write down that the copy in use is still the present one."""
        self._write(provenance.source, "current.json", provenance)

    def refuse(self, refusal: Refusal) -> None:
        """Put the incoming copy aside."""
        self.incoming(refusal.source).replace(self._directory / refusal.source / "refused")
        self._write(refusal.source, "refused.json", refusal)

    def take_back(self, name: str) -> bool:
        """Make the refused copy the incoming one again; return whether there was one."""
        refused = self._directory / name / "refused"
        if not refused.is_file():
            return False
        refused.replace(self.incoming(name))
        return True

    def discard(self, name: str) -> None:
        """Remove what is incoming."""
        self.incoming(name).unlink(missing_ok=True)

    def _record(self, name: str, file: str) -> dict[str, Any] | None:
        path = self._directory / name / file
        if not path.is_file():
            return None
        try:
            body = json.loads(read_bounded(path, _MAX_RECORD_BYTES))
        except (ValueError, RecursionError):
            return None
        return body if isinstance(body, dict) else None

    def _write(self, name: str, file: str, record: Provenance | Refusal) -> None:
        data = json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        write_atomic(self._directory / name / file, data.encode())


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        SourceError: It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as err:
        raise SourceError(f"cannot read {path}: {err.strerror}") from err
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
