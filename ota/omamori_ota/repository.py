"""The TUF repository on disk: made, published into, renewed, described.

    REPO/metadata/{<n>.<role>.json,timestamp.json}   REPO/targets/<path with the hash before the file name>

Any web server can serve both folders as they are. Rules:

* consistent snapshot: a file with a version or a hash in its name is never changed once written;
* order of writing: target, its role, snapshot, timestamp. Until the last rename nothing refers to the new files, so a
  client in the middle, or a power cut, sees the previous state whole. Files left by a cut are stepped over;
* what is there is checked against the keys before anything is signed on top of it;
* one publisher at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from omamori_protocol import topics
from omamori_protocol.errors import MalformedError
from omamori_protocol.feed_offer import FeedOffer, OfferedIncrement, increment_target, parse_offer
from omamori_protocol.feed_pack import MAX_PACK_BYTES

from .clock import Clock
from .errors import RejectedError, SetupError
from .files import exclusive, make_public_directory, new_directory, read_bounded, write_atomic
from .keys import KeyDirectory
from .metadata import check_signed_by, new_targets, parse, sign, sign_all, to_bytes
from .packs import ReadIncrement, VerifiedPack, prove
from .roles import DELEGATED, FEED, FIRMWARE, ROLES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Lifetimes

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)

MAX_METADATA_BYTES = 5 * 1000 * 1000
_MAX_ROOT_ROTATIONS = 256
_KEPT_FILES = 2  # of each kind and channel that nothing names any more, for clients that are in the middle
MAX_INCREMENTS = 30  # that a channel offers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What a change of the repository led to.

    Attributes:
        channel: Feed channel, or empty when no pack was published.
        serial: Serial of the pack, 0 when none was published.
        versions: Version of each role that was signed.
    """

    channel: str = ""
    serial: int = 0
    versions: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoleStatus:
    """State of one role; `expires` in UTC."""

    role: str
    version: int
    expires: datetime
    threshold: int
    keys: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedStatus:
    """The pack that a channel serves, and the increments to it."""

    channel: str
    serial: int
    length: int
    sha256: str
    increments: tuple[OfferedIncrement, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepositoryStatus:
    """What a repository offers, all signatures checked."""

    roles: tuple[RoleStatus, ...]
    feeds: tuple[FeedStatus, ...]


@dataclasses.dataclass
class Current:
    """All metadata that clients see, checked."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    delegated: dict[str, Metadata[Targets]]


class Repository:
    """A repository and the keys that sign it.

    Args:
        path: The repository's directory.
        keys: Where the keys are.
        clock: The present, for expiry dates.
        lifetimes: How long what is signed now stays valid.
    """

    def __init__(self, path: Path, keys: KeyDirectory, clock: Clock, lifetimes: Lifetimes | None = None) -> None:
        self._path = path
        self._metadata = path / "metadata"
        self._targets = path / "targets"
        self._keys = keys
        self._clock = clock
        self._lifetimes = lifetimes or Lifetimes()
        self._additional: dict[str, list[CryptoSigner]] = {}
        self._lost: frozenset[str] = frozenset()
        self._former_root: Metadata[Root] | None = None

    def init(self) -> Published:
        """Make the repository with version 1 of every role.

        Raises:
            SetupError: The directory is occupied.
        """
        now = self._clock()
        root = self._keys.trusted_root()
        targets = Metadata(new_targets(self._keys.public_keys(), now + self._lifetimes.of(TARGETS)))
        roles = {name: Metadata(Targets(version=1, expires=now + self._lifetimes.of(name))) for name in DELEGATED}
        meta = {f"{name}.json": MetaFile(1) for name in (TARGETS, *DELEGATED)}
        snapshot = Metadata(Snapshot(version=1, expires=now + self._lifetimes.of(SNAPSHOT), meta=meta))
        timestamp = Metadata(Timestamp(version=1, expires=now + self._lifetimes.of(TIMESTAMP)))
        with new_directory(self._path, mode=0o755) as work:
            folder = work / "metadata"
            make_public_directory(folder)
            make_public_directory(work / "targets")
            write_atomic(folder / "1.root.json", to_bytes(root))
            for name, metadata in ((TARGETS, targets), *roles.items()):
                sign(metadata, self._keys.signers(name))
                write_atomic(folder / f"1.{name}.json", to_bytes(metadata))
            sign(snapshot, self._keys.signers(SNAPSHOT))
            write_atomic(folder / "1.snapshot.json", to_bytes(snapshot))
            sign(timestamp, self._keys.signers(TIMESTAMP))
            write_atomic(folder / "timestamp.json", to_bytes(timestamp))
        return Published(versions=dict.fromkeys(ROLES, 1))

    def publish_feed(self, pack: VerifiedPack, channel: str, increment: ReadIncrement | None = None) -> Published:
        """Make `pack` the current one of `channel`.

        Args:
            pack: The pack.
            channel: Its channel.
            increment: What leads to it from the pack that is published now. Without one, boxes take the pack.

        Raises:
            RejectedError: The pack is of another channel, its serial is not greater than the published one, or the
                increment does not lead from the published pack to it.
            SetupError: The repository is not one, or not signed by these keys.
            TransientError: Another publisher is at work.
        """
        target_path = topics.feed_target(channel)
        if pack.manifest.channel != channel:
            raise RejectedError(
                f"the pack is for the channel {pack.manifest.channel!r}, not {channel!r}",
                hint=f"build it again: omamori-feed build --channel {channel}",
            )
        with self.changing() as current:
            targets = current.delegated[FEED].signed.targets
            before = targets.get(target_path)
            published = offer_of(before) if before is not None else FeedOffer(0)
            newest = max(published.serial, *published.withdrawn, 0)
            if pack.manifest.serial <= newest:
                raise RejectedError(
                    f"serial {pack.manifest.serial} is not greater than the published {newest}",
                    hint=f"build the pack again with --serial {newest + 1} or more; boxes refuse to go back",
                )
            increments: list[OfferedIncrement] = []
            if increment is not None:
                self.check_increment(increment, before, published.serial, pack)
                new = OfferedIncrement(increment.start, increment.goal, len(increment.data))
                increments = kept_increments([*published.increments, new], len(pack.data))
                if increments:  # one that is larger than the pack is of no use
                    self.put(targets, increment_target(channel, new.start, new.goal), increment.data, {"format": 1})
            for old in published.increments:
                if old not in increments:
                    targets.pop(increment_target(channel, old.start, old.goal), None)
            offer = FeedOffer(pack.manifest.serial, pack.manifest_sha256, tuple(increments))
            self.put(targets, target_path, pack.data, offer.to_custom())
            targets.pop(topics.candidate_target(channel), None)  # whatever was being tried is overtaken
            versions = self.sign_delegated(current, [FEED])
            self.prune_targets(current)
        return Published(channel=channel, serial=pack.manifest.serial, versions=versions)

    def put(self, targets: dict[str, TargetFile], path: str, data: bytes, custom: object) -> None:
        """Store a target's bytes and name it; nothing is signed."""
        target = TargetFile.from_data(path, data, ["sha256"])
        target.unrecognized_fields["custom"] = custom
        for name in target.get_prefixed_paths():
            place = self._targets / name
            make_public_directory(place.parent)
            write_atomic(place, data)
        targets[path] = target

    def check_increment(
        self, increment: ReadIncrement, before: TargetFile | None, published: int, pack: VerifiedPack
    ) -> None:
        """Raise `RejectedError` unless the increment really leads from the published pack to `pack`."""
        if before is None or (increment.start, increment.goal) != (published, pack.manifest.serial):
            raise RejectedError(
                f"the increment leads from serial {increment.start} to {increment.goal}, "
                f"not from {published} to {pack.manifest.serial}",
                hint="omamori-feed increment PUBLISHED_PACK NEW_PACK",
            )
        prove(read_bounded(self.place(before), MAX_PACK_BYTES), increment, pack)

    def refresh(self, *, is_offline_included: bool = False) -> Published:
        """Sign snapshot and timestamp again, and every other role that has lived half of its life.

        Args:
            is_offline_included: Also targets and firmware, whose keys are offline in production.

        Raises:
            SetupError: The repository is not one, or not signed by these keys.
            TransientError: Another publisher is at work.
        """
        with self.changing() as current:
            due = [FEED] if self._is_due(current.delegated[FEED], FEED) else []
            versions = {}
            if is_offline_included:
                due.append(FIRMWARE)
                self._renew_paths(current)
                versions[TARGETS] = self._sign_versioned(current, TARGETS, current.targets)
                current.snapshot.signed.meta[f"{TARGETS}.json"].version = versions[TARGETS]
            return Published(versions=versions | self.sign_delegated(current, due))

    @staticmethod
    def _renew_paths(current: Current) -> None:
        """Let the delegations be for the table's paths; a repository may be older than the table."""
        delegations = current.targets.signed.delegations
        for name, role in (delegations.roles if delegations and delegations.roles else {}).items():
            role.paths = list(ROLES[name].paths)

    def status(self) -> RepositoryStatus:
        """Return what clients see.

        Raises:
            SetupError: The repository is not one, or not signed by these keys.
        """
        current = self._load()
        signed: dict[str, Root | Targets | Snapshot | Timestamp] = {
            ROOT: current.root.signed,
            TARGETS: current.targets.signed,
            **{name: metadata.signed for name, metadata in current.delegated.items()},
            SNAPSHOT: current.snapshot.signed,
            TIMESTAMP: current.timestamp.signed,
        }
        return RepositoryStatus(
            roles=tuple(
                RoleStatus(
                    role=name,
                    version=value.version,
                    expires=value.expires,
                    threshold=ROLES[name].threshold,
                    keys=len(ROLES[name].keys),
                )
                for name, value in signed.items()
            ),
            feeds=tuple(
                FeedStatus(
                    channel=path.split("/")[1],
                    serial=offer_of(target).serial,
                    length=target.length,
                    sha256=target.hashes["sha256"],
                    increments=offer_of(target).increments,
                )
                for path, target in sorted(current.delegated[FEED].signed.targets.items())
                if path == topics.feed_target(path.split("/")[1])
            ),
        )

    @contextlib.contextmanager
    def changing(self) -> Iterator[Current]:
        """Give what clients see now to somebody who changes and signs it, alone.

        Raises:
            SetupError: The repository is not one, or not signed by these keys.
            TransientError: Another publisher is at work.
        """
        self._check_place()
        with exclusive(self._path / ".lock"):
            yield self._load()

    def _check_place(self) -> None:
        if not (self._metadata / "timestamp.json").is_file():
            raise SetupError(
                f"{self._path} is not a repository", hint="make one: omamori-ota repository init KEYS REPO"
            )

    def _read(self, kind: type[S], name: str) -> Metadata[S]:
        path = self._metadata / name
        return parse(kind, read_bounded(path, MAX_METADATA_BYTES), str(path))

    def _load_root(self) -> Metadata[Root]:
        root = self._keys.trusted_root()
        check_signed_by(root.signed, ROOT, root)
        for _ in range(_MAX_ROOT_ROTATIONS):
            name = f"{root.signed.version + 1}.root.json"
            if not (self._metadata / name).is_file():
                break
            successor = self._read(Root, name)
            check_signed_by(root.signed, ROOT, successor)
            check_signed_by(successor.signed, ROOT, successor)
            self._former_root, root = root, successor
        return root

    def _load(self) -> Current:
        self._check_place()
        root = self._load_root()
        timestamp = self._read(Timestamp, "timestamp.json")
        self._check_top(root, TIMESTAMP, timestamp)
        snapshot = self._read(Snapshot, f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
        self._check_top(root, SNAPSHOT, snapshot)
        meta = snapshot.signed.meta
        targets = self._read(Targets, f"{meta['targets.json'].version}.targets.json")
        check_signed_by(root.signed, TARGETS, targets)
        delegated = {}
        for name in DELEGATED:
            delegated[name] = self._read(Targets, f"{meta[f'{name}.json'].version}.{name}.json")
            check_signed_by(targets.signed, name, delegated[name])
        return Current(root, timestamp, snapshot, targets, delegated)

    def _check_top(self, root: Metadata[Root], role: str, metadata: Metadata[S]) -> None:
        """Check who signed a role; above what a key that was lost has signed, a cut may have left a new root."""
        if role in self._lost and self._former_root is not None:
            with contextlib.suppress(SetupError):
                check_signed_by(self._former_root.signed, role, metadata)
                return
        check_signed_by(root.signed, role, metadata)

    def _signers(self, current: Current, role: str) -> list[CryptoSigner]:
        """Return who signs a role: the keys that the published metadata names, and those that will be named next."""
        parent: Root | Targets = current.targets.signed if role in DELEGATED else current.root.signed
        return [*self._keys.signers(role, self._keyids(parent, role)), *self._additional.get(role, ())]

    @staticmethod
    def _keyids(parent: Root | Targets, role: str) -> list[str]:
        if isinstance(parent, Root):
            return parent.roles[role].keyids
        roles = parent.delegations.roles if parent.delegations is not None else None
        if roles is None or role not in roles:
            raise SetupError(f"the repository does not delegate to {role}")
        return roles[role].keyids

    @contextlib.contextmanager
    def _also_signing(self, current: Current, roles: set[str], signers: Mapping[str, CryptoSigner]) -> Iterator[None]:
        """Let further keys sign top-level roles too, for boxes that will know them soon."""
        named = {keyid for role in current.root.signed.roles.values() for keyid in role.keyids}
        self._additional = {
            role: [
                signers[name]
                for name in ROLES[role].keys
                if name in signers and signers[name].public_key.keyid not in named
            ]
            for role in roles - set(DELEGATED)
        }
        try:
            yield
        finally:
            self._additional = {}

    def _is_due(self, metadata: Metadata[Targets], role: str) -> bool:
        return metadata.signed.expires - self._clock() <= self._lifetimes.of(role) / 2

    def _sign_versioned(self, current: Current, role: str, metadata: Metadata[S]) -> int:
        """Write the next version of a role that has its version in the file name; return that version."""
        version = metadata.signed.version + 1
        while (self._metadata / f"{version}.{role}.json").exists():  # left by a cut; somebody may have cached it
            version += 1
        metadata.signed.version = version
        metadata.signed.expires = self._clock() + self._lifetimes.of(role)
        sign_all(metadata, self._signers(current, role))
        write_atomic(self._metadata / f"{version}.{role}.json", to_bytes(metadata))
        return version

    def sign_delegated(self, current: Current, names: list[str]) -> dict[str, int]:
        """Sign these delegated roles, then snapshot, then timestamp, which makes it all visible."""
        versions = {}
        for name in names:
            versions[name] = self._sign_versioned(current, name, current.delegated[name])
            current.snapshot.signed.meta[f"{name}.json"].version = versions[name]
        versions[SNAPSHOT] = self._sign_versioned(current, SNAPSHOT, current.snapshot)
        timestamp = current.timestamp
        timestamp.signed.snapshot_meta.version = versions[SNAPSHOT]
        timestamp.signed.version += 1
        timestamp.signed.expires = self._clock() + self._lifetimes.of(TIMESTAMP)
        sign_all(timestamp, self._signers(current, TIMESTAMP))
        write_atomic(self._metadata / "timestamp.json", to_bytes(timestamp))
        versions[TIMESTAMP] = timestamp.signed.version
        return versions

    def place(self, target: TargetFile) -> Path:
        """Return where a target's bytes are."""
        (name,) = target.get_prefixed_paths()
        return self._targets / name

    def prune_targets(self, current: Current) -> None:
        """Remove packs and increments that nothing refers to; the last few stay for clients that are in the middle."""
        used = {
            self._targets / name
            for target in current.delegated[FEED].signed.targets.values()
            for name in target.get_prefixed_paths()
        }
        for channel in (self._targets / FEED).iterdir():
            for pattern in ("*.pack.tar.gz", "*.candidate.tar.gz", "*.increment"):
                unused = [path for path in channel.glob(pattern) if path not in used]
                for path in sorted(unused, key=lambda path: path.stat().st_mtime_ns)[:-_KEPT_FILES]:
                    path.unlink()


def kept_increments(increments: Sequence[OfferedIncrement], pack_bytes: int) -> list[OfferedIncrement]:
    """Return which increments are still worth offering, the newest being last.

    They form one chain to its goal; beyond `MAX_INCREMENTS`, or as many bytes as the pack, nobody would take them.
    """
    kept: list[OfferedIncrement] = []
    total = 0
    for item in reversed(increments):
        total += item.size
        if len(kept) == MAX_INCREMENTS or total >= pack_bytes or (kept and kept[0].start != item.goal):
            break
        kept.insert(0, item)
    return kept


def offer_of(target: TargetFile) -> FeedOffer:
    """Return what a published target offers; raises `SetupError` if it is not described as a feed."""
    try:
        return parse_offer(target.unrecognized_fields.get("custom"))
    except MalformedError as err:
        raise SetupError(f"the published target {target.path} is not described as a feed: {err}") from err
