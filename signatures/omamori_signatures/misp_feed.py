"""Fetches a MISP feed as it is published: a directory on a web server with ``manifest.json`` and a file for each event.

The manifest names events by UUID, each with the time of its last change; what has not changed since our copy is taken
from there. The result is one archive of manifest and events, in the order of their names, that depends on nothing else.

Bounded are the manifest's bytes, the number of events, the bytes of one and of all, and the time of everything. An
event that the server does not have (it publishes while we read) is kept as an empty file: the reader counts it as one
that is bad, and the next time it is asked for again. Whatever else goes wrong, the feed is not taken.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

from .archive import MAX_MEMBERS
from .document_formats import MANIFEST_NAME, MAX_DOCUMENT_BYTES, is_event_id
from .download import Download, Session, Validators
from .errors import FetchError, NotThereError

MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_EVENTS = MAX_MEMBERS - 1


def fetch_misp_feed(
    session: Session, url: str, target: Path, *, max_bytes: int, known: Validators, previous: Path | None
) -> Download:
    """Write a feed as one archive.

    Args:
        session: Of downloads; its deadline is that of everything here.
        url: The feed's directory.
        target: Archive to write; after an error what is in it is undefined.
        max_bytes: Of manifest and events together.
        known: Of the copy that we have.
        previous: That copy; None if there is none, or one from elsewhere.

    Raises:
        FetchError: The manifest is not one, names too many events, or something did not come or is too large.
    """
    base = url if url.endswith("/") else f"{url}/"
    manifest = io.BytesIO()
    found = session.fetch(
        urljoin(base, MANIFEST_NAME), manifest, max_bytes=min(max_bytes, MAX_MANIFEST_BYTES), known=known
    )
    if found.is_unchanged:
        return found
    wanted = _events(manifest.getvalue(), base)
    left = max_bytes - len(manifest.getvalue())
    is_whole = True
    with _Copy(previous) as copy, tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, MANIFEST_NAME, manifest.getvalue())
        for event, time in wanted:
            data = copy.event(event, time)
            if not data:
                data = _download(session, urljoin(base, f"{event}.json"), min(left, MAX_DOCUMENT_BYTES))
            left -= len(data)
            if left < 0:
                raise FetchError(f"{base}: more than {max_bytes} bytes")
            is_whole = is_whole and bool(data)
            _add(archive, f"{event}.json", data)
    return Download(is_unchanged=False, validators=found.validators if is_whole else Validators())


def _download(session: Session, url: str, max_bytes: int) -> bytes:
    """Return an event; nothing if the server does not have it."""
    target = io.BytesIO()
    try:
        session.fetch(url, target, max_bytes=max_bytes, known=Validators())
    except NotThereError:
        return b""
    return target.getvalue()


def _events(manifest: bytes, where: str) -> list[tuple[str, str]]:
    """Return the ids of events with the time of their last change, in order; what is no id the reader tells."""
    try:
        body = json.loads(manifest)
    except (ValueError, RecursionError) as err:
        raise FetchError(f"{where}{MANIFEST_NAME}: {str(err)[:80]}") from err
    if not isinstance(body, dict) or len(body) > MAX_EVENTS:
        raise FetchError(f"{where}{MANIFEST_NAME}: not an object with at most {MAX_EVENTS} events")
    return sorted((name, _time(about)) for name, about in body.items() if is_event_id(name))


def _time(about: Any) -> str:
    """Return when an event was changed last; empty if the manifest does not say."""
    found = about.get("timestamp") if isinstance(about, dict) else None
    return str(found)[:20] if isinstance(found, str | int) and re.fullmatch(r"[0-9]{1,20}", str(found)) else ""


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    item = tarfile.TarInfo(name)
    item.size = len(data)
    archive.addfile(item, io.BytesIO(data))


class _Copy:
    """The events of the copy in use. Whatever is wrong with it, it has none."""

    def __init__(self, path: Path | None) -> None:
        self._archive: tarfile.TarFile | None = None
        self._times: dict[str, str] = {}
        if path is None:
            return
        try:
            self._archive = tarfile.open(path, "r:")  # noqa: SIM115 - closed by `__exit__`
            self._times = dict(_events(b"".join(self._read(MANIFEST_NAME)), ""))
        except (OSError, tarfile.TarError, KeyError, FetchError):
            self._times = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._archive is not None:
            self._archive.close()

    def event(self, name: str, time: str) -> bytes:
        """Return an event if it is there and was not changed since; else nothing."""
        if not time or self._times.get(name) != time:
            return b""
        try:
            return b"".join(self._read(f"{name}.json"))
        except (OSError, tarfile.TarError, KeyError):
            return b""

    def _read(self, name: str) -> Iterator[bytes]:
        assert self._archive is not None
        stream = self._archive.extractfile(name)
        if stream is not None:
            yield stream.read(MAX_DOCUMENT_BYTES)
