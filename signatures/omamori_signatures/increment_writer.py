"""Writes the increment between two feed packs: the same packs give the same bytes.

Both packs are unpacked and compared file by file in blocks of lines, so lists of any size cost little memory. What is
written is applied to the old pack before it is returned: an increment that does not lead to the new pack is never made.
`omamori_protocol.feed_increment` describes the format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_chain import apply_chain
from omamori_protocol.feed_increment import MAX_REMOVAL_BYTES, IncrementHead, IncrementWriter
from omamori_protocol.feed_lines import Difference, compare, read_list_blocks
from omamori_protocol.feed_manifest import MANIFEST_NAME, FeedManifest
from omamori_protocol.feed_pack import unpack

from .errors import PackError, SourceError

# More than this part of a list's lines gone or new: it is sent as a whole, which packs better and needs no old list.
_WHOLE_SHARE = 0.5
_REMOVAL_BYTES = 3  # most that a gap may need


@dataclasses.dataclass(frozen=True, kw_only=True)
class IncrementReport:
    """What an increment holds.

    Attributes:
        start: Serial it begins with.
        goal: Serial it leads to.
        size: Bytes of the file.
        added: Lines added, by path of the list.
        removed: Lines removed, by path of the list.
        whole: Paths of files that travel whole.
    """

    start: int
    goal: int
    size: int
    added: dict[str, int]
    removed: dict[str, int]
    whole: tuple[str, ...]


def write_increment(old_pack: Path, new_pack: Path, out: Path) -> IncrementReport:
    """Write the increment from one pack to a later one of the same channel.

    Args:
        old_pack: The earlier pack.
        new_pack: The later pack.
        out: File to write; its directory must exist. Written last, so a failure leaves nothing.

    Raises:
        PackError: A file is not a pack.
        SourceError: The packs are not an earlier and a later one of one channel.
    """
    with tempfile.TemporaryDirectory(prefix="omamori-increment-", dir=out.parent) as work:
        old, new = Path(work) / "old", Path(work) / "new"
        before, after = _unpack(old_pack, old), _unpack(new_pack, new)
        if before.channel != after.channel or before.serial >= after.serial:
            raise SourceError(
                f"serial {after.serial} of {after.channel} does not follow serial {before.serial} of {before.channel}"
            )
        made = Path(work) / "increment"
        report = _write(old, before, new, after, made)
        _prove(old, made, new, Path(work) / "proof")
        made.replace(out)
    return report


def _unpack(pack: Path, directory: Path) -> FeedManifest:
    directory.mkdir()
    try:
        with pack.open("rb") as source:
            return unpack(source, directory)
    except OSError as err:
        raise SourceError(f"cannot read {pack}: {err.strerror}") from err
    except ProtocolError as err:
        raise PackError(f"{pack} is not a feed pack: {err}", hint=err.hint) from err


def _write(old: Path, before: FeedManifest, new: Path, after: FeedManifest, made: Path) -> IncrementReport:
    manifest = (new / MANIFEST_NAME).read_bytes()
    base_sha256 = hashlib.sha256((old / MANIFEST_NAME).read_bytes()).digest()
    known = {item.path: item for item in before.files}
    counts = {item.path: item.count for item in before.lists}
    lists = {item.path for item in after.lists} & counts.keys()
    added: dict[str, int] = {}
    removed: dict[str, int] = {}
    whole = []
    with made.open("wb") as out:
        head = IncrementHead(start=before.serial, goal=after.serial, base_sha256=base_sha256, manifest=manifest)
        writer = IncrementWriter(out, head)
        for index, item in enumerate(sorted(after.files, key=lambda item: item.path)):
            if known.get(item.path) == item:
                continue
            if item.path in lists:
                gone, come = _counts(_differences(old, new, item.path))
                is_small = gone + come <= counts[item.path] * _WHOLE_SHARE and gone * _REMOVAL_BYTES < MAX_REMOVAL_BYTES
                if is_small:
                    added[item.path], removed[item.path] = come, gone
                    _write_changes(writer, index, old, new, item.path)
                    continue
            whole.append(item.path)
            with (new / item.path).open("rb") as content:
                writer.whole(index, content)
        writer.close()
    return IncrementReport(
        start=before.serial,
        goal=after.serial,
        size=made.stat().st_size,
        added=added,
        removed=removed,
        whole=tuple(whole),
    )


def _differences(old: Path, new: Path, path: str) -> Iterator[Difference]:
    return compare(read_list_blocks(old / path), read_list_blocks(new / path))


def _counts(differences: Iterator[Difference]) -> tuple[int, int]:
    removed = added = 0
    for item in differences:
        removed += len(item.removed)
        added += len(item.added)
    return removed, added


def _write_changes(writer: IncrementWriter, index: int, old: Path, new: Path, path: str) -> None:
    """Write the changes of a list; it is compared twice, because removals come before additions."""
    places = (place for item in _differences(old, new, path) for place, _line in item.removed)
    lines = itertools.chain.from_iterable(item.added for item in _differences(old, new, path))
    writer.changes(index, places, lines)


def _prove(old: Path, made: Path, new: Path, proof: Path) -> None:
    proof.mkdir()
    try:
        apply_chain(old, [made], proof, manifest_sha256=_digest(new / MANIFEST_NAME))
    except ProtocolError as err:
        raise PackError(f"the increment does not lead to the new pack: {err}", hint="are its lists sorted?") from err


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
