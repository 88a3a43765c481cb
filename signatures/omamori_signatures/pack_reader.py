"""Reads a pack back and holds its content against the rules of its kind.

`omamori_protocol.feed_pack` has checked paths, sizes and digests; here the lines of each list must be exactly what
the compiler writes, and the rules must be rules.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_manifest import FeedManifest, PackList
from omamori_protocol.feed_pack import MAX_PACK_BYTES, unpack

from .errors import PackError, SourceError
from .files import read_bounded
from .indicators import DomainRules, read_list
from .rules import read_rules


def read_pack(path: Path) -> tuple[FeedManifest, dict[str, bytes]]:
    """Return manifest and files of a pack.

    Raises:
        SourceError: The file cannot be read or is too large.
        PackError: It is not a pack.
    """
    data = read_bounded(path, MAX_PACK_BYTES)
    with tempfile.TemporaryDirectory(prefix="omamori-pack-") as work:
        try:
            manifest = unpack(io.BytesIO(data), Path(work))
        except ProtocolError as err:
            raise PackError(f"{path} is not a feed pack: {err}", hint=err.hint) from err
        return manifest, {item.path: (Path(work) / item.path).read_bytes() for item in manifest.files}


def check_content(manifest: FeedManifest, files: dict[str, bytes]) -> None:
    """Check lists and rules of a pack.

    Raises:
        PackError: A list is not in its canonical form or holds what it must not, a count is wrong, a rule is none.
    """
    domains = DomainRules()
    try:
        for item in manifest.lists:
            _check_list(item, files[item.path], domains)
        for rules in manifest.rules:
            found = read_rules(files[rules.path], rules.path)
            if len(found) != rules.count:
                raise PackError(f"{rules.path}: {len(found)} rules, the manifest says {rules.count}")
    except SourceError as err:
        raise PackError(str(err), hint=err.hint) from err


def _check_list(item: PackList, data: bytes, domains: DomainRules) -> None:
    content = read_list(data, item.kind, item.path, domains=domains, allow_documentation_addresses=True)
    if content.bad_count:
        first = content.bad_lines[0]
        raise PackError(f"{item.path}, line {first.number}: {first.reason}")
    if "".join(f"{entry}\n" for entry in content.entries).encode() != data:
        raise PackError(f"{item.path} is not sorted, unique and normalised")
    if len(content.entries) != item.count:
        raise PackError(f"{item.path}: {len(content.entries)} entries, the manifest says {item.count}")
