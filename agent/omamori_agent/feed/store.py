"""Packs on the data partition: unpacked whole or not at all, one of them current.

* A pack is unpacked into ``store/.new``, synced, and renamed to ``store/<serial>``: a directory with a number is
  complete. One that increments lead to is made there too; what did not change is linked, not copied.
* ``current`` is a link that is replaced in one step. The engine reads nothing but what it points at.
* The previous pack stays, so that going back needs no download.
* Whatever moment the power is cut at, `current` points at a complete feed afterwards; `recover` removes the rest,
  and where the link itself is lost or points at nothing, falls back to the newest complete pack, then to the image's
  empty feed.

Whether a pack may become current is not decided here.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from omamori_agent.config import Paths
from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded, replace_link, sync_directory
from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_chain import apply_chain
from omamori_protocol.feed_manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, FeedManifest, parse_manifest
from omamori_protocol.feed_offer import FeedOffer
from omamori_protocol.feed_pack import unpack

from .engine_files import DATASETS_NAME, ENGINE_DIRECTORY, rule_sources, write_engine_files
from .errors import FeedPostponedError, PackRefusedError
from .exclusion import load_left_out, save_left_out, write_rules
from .record import Record, load_record, save_record
from .stored import EMPTY, StoredFeed

logger = logging.getLogger(__name__)

_NEW = ".new"
_OLD = ".old"
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_MIB = 1024 * 1024
_SIZE_FACTOR = 2.5  # of the unpacked lists: their text and the engine's form of it


class FeedStore:
    """All packs of this box; one thread uses it.

    Args:
        paths: Where things are.
        reserve_bytes: What must stay free on the data partition.
        free_bytes: How much is free where a path is; a parameter for tests.
    """

    def __init__(self, paths: Paths, *, reserve_bytes: int, free_bytes: Callable[[Path], int] | None = None) -> None:
        self._paths = paths
        self._store = paths.feed_store
        self._reserve_bytes = reserve_bytes
        self._free_bytes = free_bytes or _free_bytes
        self._record_path = paths.feed / "state.json"
        self._record: Record | None = None

    @property
    def download_path(self) -> Path:
        """Where a pack is downloaded to."""
        return self._paths.feed / "download" / "pack.tar.gz"

    def increment_path(self, number: int) -> Path:
        """Where the increment of that place in a chain is downloaded to."""
        return self.download_path.with_name(f"{number}.increment")

    @property
    def record(self) -> Record:
        """What is remembered."""
        if self._record is None:
            self._record = load_record(self._record_path)
        return self._record

    def remember(self, record: Record) -> None:
        """Replace what is remembered, durably.

        Raises:
            OSError: It could not be written; nothing changed.
        """
        if record != self.record:
            save_record(self._record_path, record)
            self._record = record

    def recover(self) -> StoredFeed:
        """Make the directories, remove what a power cut left, repair the link; return the current feed.

        Raises:
            SetupError: The data partition cannot be used.
        """
        try:
            self._store.mkdir(mode=0o755, exist_ok=True)
            self.download_path.parent.mkdir(mode=0o700, exist_ok=True)
            self._remove(self._store / _NEW)
            self._remove(self._store / _OLD)
            for leftover in self.download_path.parent.iterdir():
                if leftover.is_dir():
                    self._remove(leftover)
                else:
                    leftover.unlink()
            return self._repair()
        except OSError as err:
            raise SetupError(f"feed store: {err}", hint="is the data partition writable?") from err

    def _repair(self) -> StoredFeed:
        current = self._current()
        if current is not None:
            return current
        for serial in sorted(self._serials(), reverse=True):
            feed = self.get(serial)
            if feed is not None and self.record.quarantine_reason(serial) is None:
                logger.warning("no usable current feed; going back to serial %d", serial)
                break
        else:
            feed = StoredFeed(EMPTY, self._paths.empty_feed)
            logger.warning("no usable current feed; going back to the empty one")
        self.switch(feed)
        return feed

    def current(self) -> StoredFeed:
        """Return the feed that `current` points at; the empty one if it points at nothing usable."""
        return self._current() or StoredFeed(EMPTY, self._paths.empty_feed)

    def _current(self) -> StoredFeed | None:
        try:
            name = self._paths.feed_current.readlink().name
        except OSError:
            return None
        if not self._paths.feed_current.is_dir():
            return None
        if name == self._paths.empty_feed.name:
            return StoredFeed(EMPTY, self._paths.empty_feed)
        return self.get(int(name)) if _NUMBER.fullmatch(name) else None

    def get(self, serial: int) -> StoredFeed | None:
        """Return a stored feed, or None if it is not there whole."""
        if serial == 0:
            return StoredFeed(EMPTY, self._paths.empty_feed)
        directory = self._store / str(serial)
        try:
            manifest = parse_manifest(read_bounded(directory / MANIFEST_NAME, MAX_MANIFEST_BYTES))
        except (FileNotFoundError, SetupError, ProtocolError) as err:
            logger.debug("serial %d is not usable: %s", serial, err)
            return None
        if manifest.serial != serial or not (directory / ENGINE_DIRECTORY / DATASETS_NAME).is_file():
            return None
        return StoredFeed(manifest, directory, load_left_out(directory / ENGINE_DIRECTORY))

    def leave_out(self, feed: StoredFeed, rule_ids: frozenset[int]) -> StoredFeed:
        """Write the rules of a stored feed anew, without some of them.

        What they lack is not sure before `confirm_left_out`: after a cut, the work is done again.

        Raises:
            OSError: The rules are as they were, or as they shall be.
        """
        engine = feed.directory / ENGINE_DIRECTORY
        save_left_out(engine, dataclasses.replace(feed.left_out, is_sure=False))
        sources = rule_sources(feed.manifest, feed.directory)
        return dataclasses.replace(feed, left_out=write_rules(engine, sources, rule_ids))

    def confirm_left_out(self, feed: StoredFeed) -> None:
        """Write down that the engine has loaded what `leave_out` returned; raises `OSError`."""
        save_left_out(feed.directory / ENGINE_DIRECTORY, feed.left_out)

    def check_space(self, needed_bytes: int) -> None:
        """Raise `FeedPostponedError` unless so many bytes and the reserve are free."""
        free = self._free_bytes(self._paths.feed)
        if free < needed_bytes + self._reserve_bytes:
            raise FeedPostponedError(f"not enough space on the data partition for {needed_bytes // _MIB + 1} MiB")

    def add(
        self, serial: int, check: Callable[[FeedManifest], None], rule_ids: frozenset[int] = frozenset()
    ) -> StoredFeed:
        """Unpack what was downloaded and make it a stored feed (not the current one).

        Args:
            serial: What the repository's signed metadata calls it.
            check: Raises if the manifest does not suit this box; called before anything is written.
            rule_ids: Rules that are left out of what the engine will load.

        Raises:
            PackRefusedError: The pack is bad; nothing of it is left on disk.
            FeedPostponedError: There is no space.
        """

        def fill(new: Path) -> FeedManifest:
            with self.download_path.open("rb") as source:
                return unpack(source, new, admit=lambda found: self._admit(found, serial, check, None))

        return self._build(serial, fill, rule_ids, None)

    def add_increments(
        self,
        base: StoredFeed,
        count: int,
        target: FeedOffer,
        check: Callable[[FeedManifest], None],
        rule_ids: frozenset[int] = frozenset(),
    ) -> StoredFeed:
        """Apply the first `count` downloaded increments to `base` and make the result a stored feed.

        Args:
            base: What they begin with; it stays as it is.
            count: How many.
            target: Serial and digest of the manifest that must come out, as signed.
            check: Raises if the manifest does not suit this box.
            rule_ids: Rules that are left out of what the engine will load.

        Raises:
            PackRefusedError: They do not lead there; nothing is left on disk.
            FeedPostponedError: There is no space.
        """
        paths: Sequence[Path] = [self.increment_path(number) for number in range(count)]

        def fill(new: Path) -> FeedManifest:
            return apply_chain(
                base.directory,
                paths,
                new,
                manifest_sha256=target.manifest_sha256,
                admit=lambda found: self._admit(found, target.serial, check, base.manifest),
            )

        return self._build(target.serial, fill, rule_ids, base)

    def _build(
        self, serial: int, fill: Callable[[Path], FeedManifest], rule_ids: frozenset[int], base: StoredFeed | None
    ) -> StoredFeed:
        """Let `fill` make a pack's files in a new directory, add what the engine loads, and put it in its place."""
        new = self._store / _NEW
        self._remove(new)
        try:
            new.mkdir(mode=0o700)
            manifest = fill(new)
            left_out = write_engine_files(manifest, new, rule_ids, base)
            _seal(new)
            directory = self._store / str(serial)
            self._remove(directory)
            new.rename(directory)
            sync_directory(self._store)
        except ProtocolError as err:
            raise PackRefusedError(f"bad pack: {err}") from err
        except OSError as err:
            raise FeedPostponedError(f"feed store: {err.strerror or err}") from err
        finally:
            self._remove(new)
        return StoredFeed(manifest, directory, left_out)

    def _admit(
        self, manifest: FeedManifest, serial: int, check: Callable[[FeedManifest], None], base: FeedManifest | None
    ) -> None:
        if manifest.serial != serial:
            raise PackRefusedError(f"the pack calls itself serial {manifest.serial}")
        check(manifest)
        known = set(base.files) if base is not None else set()
        self.check_space(int(sum(item.size for item in manifest.files if item not in known) * _SIZE_FACTOR))

    def switch(self, feed: StoredFeed) -> None:
        """Let `current` point at a stored feed, durably and in one step.

        Raises:
            OSError: The link is as it was.
        """
        is_stored = feed.directory.parent == self._store
        target = Path(self._store.name) / feed.directory.name if is_stored else feed.directory
        replace_link(self._paths.feed_current, target)

    def prune(self) -> None:
        """Remove every pack but the current one, the previous one and those of a change that has not ended."""
        record = self.record
        transition = record.transition
        keep = {self.current().serial, record.previous}
        if transition is not None:
            keep |= {transition.origin, transition.goal}
        for serial in self._serials():
            if serial not in keep:
                self._remove(self._store / str(serial))

    def discard_download(self) -> None:
        """Remove the downloaded pack and increments."""
        self.download_path.unlink(missing_ok=True)
        for path in self.download_path.parent.glob("*.increment"):
            path.unlink()

    def _serials(self) -> list[int]:
        return [int(path.name) for path in self._store.iterdir() if _NUMBER.fullmatch(path.name)]

    def _remove(self, directory: Path) -> None:
        """Remove a directory tree; what cannot be removed is told and left."""
        try:
            if _NUMBER.fullmatch(directory.name) and directory.is_dir():
                # Renamed first: half a removed pack must not look like a whole one.
                self._remove(self._store / _OLD)
                directory = directory.rename(self._store / _OLD)
            shutil.rmtree(directory)
        except FileNotFoundError:
            pass
        except OSError as err:
            logger.warning("%s not removed: %s", directory, err)


def _free_bytes(path: Path) -> int:
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


def _seal(directory: Path) -> None:
    """Give everything its final permissions and make it durable."""
    for folder, _names, files in os.walk(directory):
        for name in files:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        Path(folder).chmod(0o755)
        sync_directory(Path(folder))
