"""Turns an unpacked feed pack and a chain of increments into the unpacked pack at the chain's end.

What comes out is exactly what unpacking that pack would have given, or nothing: every changed file must have the
digest that the last manifest states, and that manifest the digest that the repository signed. Files that did not
change are hard links. Memory does not depend on the size of lists, increments or chain (some blocks of lines for each
link of it).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .errors import OversizeError, PackRejectedError
from .feed_increment import IncrementReader, Whole
from .feed_lines import Blocks, change, read_list_blocks
from .feed_manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, FeedManifest, PackFile, parse_manifest

MAX_CHAIN = 32


class _Link:
    """One increment of the chain, and what its manifest calls the files."""

    def __init__(self, reader: IncrementReader) -> None:
        self.reader = reader
        self.digests = {item.path: item.sha256 for item in reader.manifest.files}


def apply_chain(
    base: Path,
    increments: Sequence[Path],
    directory: Path,
    *,
    manifest_sha256: str | None = None,
    admit: Callable[[FeedManifest], None] | None = None,
) -> FeedManifest:
    """Make the pack that a chain of increments leads to.

    Args:
        base: Directory of the unpacked pack that the first increment begins with.
        increments: Files, in order; at most `MAX_CHAIN`.
        directory: An existing, empty directory on the file system of `base`. On an error the caller removes it.
        manifest_sha256: Digest that the last manifest must have, in hexadecimal.
        admit: Called with the last manifest before anything is written; what it raises ends the work.

    Returns:
        The last manifest, whose files now stand below `directory`, each changed one synced to disk.

    Raises:
        OversizeError: A bound is exceeded.
        PackRejectedError: The chain does not begin with `base`, has a gap, or leads to something else than it says.
    """
    if not 1 <= len(increments) <= MAX_CHAIN:
        raise OversizeError(f"chain of {len(increments)} increments, allowed {MAX_CHAIN}", limit=MAX_CHAIN)
    if any(directory.iterdir()):
        raise PackRejectedError("the directory to work in is not empty")
    body = _read_manifest(base)
    old = parse_manifest(body)
    with contextlib.ExitStack() as stack:
        links = [_Link(IncrementReader(stack.enter_context(path.open("rb")))) for path in increments]
        serial = old.serial
        for link in links:
            head = link.reader.head
            if head.start != serial or head.base_sha256 != hashlib.sha256(body).digest():
                raise PackRejectedError(f"increment from {head.start} to {head.goal} does not begin with what is there")
            serial, body = head.goal, head.manifest
        if manifest_sha256 is not None and hashlib.sha256(body).hexdigest() != manifest_sha256:
            raise PackRejectedError("the chain leads to another manifest than the signed one")
        manifest = links[-1].reader.manifest
        if admit is not None:
            admit(manifest)
        (directory / MANIFEST_NAME).write_bytes(body)
        before = {item.path: item for item in old.files}
        for item in sorted(manifest.files, key=lambda item: item.path):
            target = directory / item.path
            target.parent.mkdir(exist_ok=True)
            if before.get(item.path) == item:
                os.link(base / item.path, target)
            else:
                _write(_content(base if item.path in before else None, item.path, links), item, target)
        for link in links:
            link.reader.finish()
    return manifest


def _read_manifest(base: Path) -> bytes:
    with (base / MANIFEST_NAME).open("rb") as file:
        body = file.read(MAX_MANIFEST_BYTES + 1)
    if len(body) > MAX_MANIFEST_BYTES:
        raise OversizeError(f"manifest of more than {MAX_MANIFEST_BYTES} bytes", limit=MAX_MANIFEST_BYTES)
    return body


def _content(base: Path | None, path: str, links: Sequence[_Link]) -> Iterator[bytes]:
    """Yield the bytes of a file after the chain."""
    blocks: Blocks | None = None if base is None else read_list_blocks(base / path)
    whole: Iterator[bytes] | None = None
    for link in links:
        if path not in link.digests:
            blocks = whole = None
            continue
        found = link.reader.take(path)
        if isinstance(found, Whole):
            blocks, whole = None, found.content
        elif found is not None:
            if whole is not None:
                blocks, whole = _split(whole, path), None
            blocks = change(iter(()) if blocks is None else blocks, found.removals, found.additions, path)
    if whole is not None:
        yield from whole
    elif blocks is not None:
        for lines in blocks:
            yield b"\n".join(lines) + b"\n"


def _split(content: Iterator[bytes], path: str) -> Blocks:
    """Yield the lines of a file that an earlier link of the chain brings as a whole."""
    rest = b""
    for data in content:
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield lines
    if rest:
        raise PackRejectedError(f"{path}: the last line has no end")


def _write(content: Iterator[bytes], item: PackFile, target: Path) -> None:
    digest = hashlib.sha256()
    size = 0
    with target.open("xb") as out:
        for data in content:
            size += len(data)
            if size > item.size:
                break
            digest.update(data)
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
    if size != item.size or digest.hexdigest() != item.sha256:
        raise PackRejectedError(f"{item.path}: the chain leads to other content than the manifest states")
