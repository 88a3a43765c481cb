"""Brings sources up to date, each for itself: a source in trouble keeps its copy and stops no other.

Of each source: get the new copy (from the web, or from a file of this machine), read it as the compiler will, let the
guard judge its numbers, and only then put it in the place of the old one.
"""

from __future__ import annotations

import dataclasses
import shutil
import tarfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from .archive import open_members
from .catalogue import Catalogue, Format, Source
from .download import Download, Downloader, Validators
from .errors import FeedError, FetchError, GuardError, SourceError
from .guard import Counts, judge
from .indicators import BadLine, DomainRules
from .misp_feed import fetch_misp_feed
from .source_reader import Tally, count_source
from .source_store import Provenance, Refusal, SourceStore, digest_of


class Outcome(StrEnum):
    """How it went with a source."""

    NEW = "new"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    KEPT = "kept"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchReport:
    """What happened to one source.

    Attributes:
        source: Its name.
        outcome: What became of the new copy; KEPT means that nobody asked for one (offline).
        reason: Why not, or empty.
        hint: What a person can do.
        has_copy: There is a copy to compile from.
        used: Entries of the copy in use.
        bad: Bad lines of it.
        bad_lines: The first of them, if it was read now.
    """

    source: str
    outcome: Outcome
    reason: str = ""
    hint: str = ""
    has_copy: bool = False
    used: int = 0
    bad: int = 0
    bad_lines: tuple[BadLine, ...] = ()


class Fetcher:
    """Fetches the sources of a catalogue into a store.

    Args:
        catalogue: Sources, and where their files are.
        store: Of copies.
        downloader: For those on the web; None means offline: they keep their copies.
        now: Returns the time, RFC 3339 in UTC.
    """

    def __init__(
        self, catalogue: Catalogue, store: SourceStore, downloader: Downloader | None, now: Callable[[], str]
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._downloader = downloader
        self._now = now
        self._domains = DomainRules()

    def fetch_all(self, sources: Sequence[Source]) -> list[FetchReport]:
        """Fetch sources one after the other.

        Raises:
            OSError: The store cannot be written.
        """
        return [self._fetch(source) for source in sources]

    def accept(self, source: Source) -> FetchReport:
        """Take the copy that was refused last, whatever its numbers are.

        Raises:
            SourceError: There is none, or it cannot be read.
        """
        previous = self._store.provenance(source.name)
        if not self._store.take_back(source.name):
            raise SourceError(f"source {source.name} has no refused copy")
        tally = count_source(source, self._store.incoming(source.name), self._domains)
        return self._take(source, tally, previous.validators if previous else Validators())

    def _fetch(self, source: Source) -> FetchReport:
        previous = self._store.provenance(source.name)
        try:
            if source.url and self._downloader is None:
                return _report(source, Outcome.KEPT, previous)
            validators = self._obtain(source, previous)
        except FeedError as err:
            self._store.discard(source.name)
            return _report(source, Outcome.UNAVAILABLE, previous, err)
        if validators is None:
            assert previous is not None
            self._store.discard(source.name)
            confirmed = dataclasses.replace(previous, checked=self._now())
            self._store.confirm(confirmed)
            return _report(source, Outcome.UNCHANGED, confirmed)
        try:
            tally = count_source(source, self._store.incoming(source.name), self._domains)
            judge(source, _counts(tally), previous.counts if previous else None)
        except (GuardError, SourceError) as err:
            sha256 = digest_of(self._store.incoming(source.name))
            self._store.refuse(Refusal(source=source.name, at=self._now(), sha256=sha256, reason=str(err)))
            return _report(source, Outcome.REFUSED, previous, err)
        return self._take(source, tally, validators)

    def _take(self, source: Source, tally: Tally, validators: Validators) -> FetchReport:
        path, now = self._store.incoming(source.name), self._now()
        provenance = Provenance(
            source=source.name,
            origin=source.url or source.file,
            fetched=now,
            checked=now,
            sha256=digest_of(path),
            size=path.stat().st_size,
            used=tally.used,
            bad=tally.bad,
            skipped=tally.skipped,
            etag=validators.etag,
            last_modified=validators.last_modified,
        )
        self._store.take(provenance)
        report = _report(source, Outcome.NEW, provenance)
        return dataclasses.replace(report, bad_lines=tuple(tally.bad_lines))

    def _obtain(self, source: Source, previous: Provenance | None) -> Validators | None:
        """Put a new copy together; return what it is recognised by, or None if the copy in use is the present one."""
        incoming = self._store.incoming(source.name)
        if source.file:
            _copy_local(self._catalogue.directory / source.file, incoming, source.max_bytes)
            validators = Validators()
        else:
            assert self._downloader is not None
            is_same_place = previous is not None and previous.origin == source.url
            known = previous.validators if previous is not None and is_same_place else Validators()
            result = self._download(source, incoming, known, previous if is_same_place else None)
            if result.is_unchanged:
                if previous is None or not is_same_place:
                    raise FetchError(f"{source.url}: says `not modified` of what we do not have")
                return None
            validators = result.validators
        is_same = previous is not None and digest_of(incoming) == previous.sha256
        return None if is_same else validators

    def _download(self, source: Source, incoming: Path, known: Validators, previous: Provenance | None) -> Download:
        assert self._downloader is not None
        with self._downloader.session() as session:
            if source.format is Format.MISP_FEED:
                copy = self._store.current(source.name) if previous is not None else None
                return fetch_misp_feed(
                    session, source.url, incoming, max_bytes=source.max_bytes, known=known, previous=copy
                )
            with incoming.open("wb") as target:
                return session.fetch(source.url, target, max_bytes=source.max_bytes, known=known)


def _counts(tally: Tally) -> Counts:
    return Counts(used=tally.used, bad=tally.bad)


def _copy_local(path: Path, target: Path, max_bytes: int) -> None:
    if path.is_symlink() or not path.exists():
        raise FetchError(f"{path} is not there")
    try:
        if path.is_dir():
            _pack_directory(path, target, max_bytes)
            return
        if path.stat().st_size > max_bytes:
            raise FetchError(f"{path} is larger than {max_bytes} bytes")
        shutil.copyfile(path, target)
    except OSError as err:
        raise FetchError(f"cannot read {path}: {err.strerror}") from err


def _pack_directory(path: Path, target: Path, max_bytes: int) -> None:
    """Copy a directory as one archive whose bytes depend on names and contents only."""
    with (
        tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive,
        open_members(path, max_unpacked=max_bytes) as members,
    ):
        for member in members:
            item = tarfile.TarInfo(member.name)
            item.size = (path / member.name).stat().st_size
            archive.addfile(item, member.stream)


def _report(
    source: Source, outcome: Outcome, provenance: Provenance | None, err: FeedError | None = None
) -> FetchReport:
    return FetchReport(
        source=source.name,
        outcome=outcome,
        reason=str(err) if err else "",
        hint=err.hint if err else "",
        has_copy=provenance is not None,
        used=provenance.used if provenance else 0,
        bad=provenance.bad if provenance else 0,
    )
