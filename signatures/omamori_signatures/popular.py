"""The gate against false positives: no finished pack may block a popular site.

It looks at the pack alone and knows nothing of how it was made, so that it also catches a mistake in the merging, a
pack of older making, or an allow-list that was forgotten. Beside it, `probes` asks the engine to prove that each list
works at all: a list that loads and matches nothing protects nobody.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from pathlib import Path

from omamori_protocol.feed_manifest import FeedManifest, ListKind
from omamori_protocol.vocabulary import Action, Function

from .files import read_bounded
from .indicators import DomainRules, IndicatorError

MAX_BYTES = 16 * 1024 * 1024
MAX_FINDINGS = 100
_POLICY_FUNCTIONS = {Function.CATEGORY, Function.APPLICATION}


def read_popular(path: Path, domains: DomainRules) -> frozenset[str]:
    """Read a list of popular sites: one name a line, `#` begins a comment; what is no name is passed over.

    Raises:
        SourceError: It cannot be read or is too large.
    """
    names = set()
    for line in read_bounded(path, MAX_BYTES).decode(errors="replace").splitlines():
        text = line.partition("#")[0].strip().rpartition(",")[2]  # also `rank,name`
        try:
            names.add(domains.normalise(text))
        except IndicatorError:
            continue
    return frozenset(names)


def find_blocked(
    popular: Iterable[str], manifest: FeedManifest, files: Mapping[str, bytes], domains: DomainRules
) -> tuple[str, ...]:
    """Return which popular sites a list of threats would block, at most `MAX_FINDINGS`."""
    reached: dict[str, str] = {}
    for name in popular:
        reached.setdefault(domains.registrable(name), name)
        reached[name] = name
    wanted = sorted((entry.encode(), name) for entry, name in reached.items())
    findings: list[str] = []
    for item in manifest.lists:
        if item.kind is not ListKind.DOMAIN or item.action is not Action.BLOCKED or item.function in _POLICY_FUNCTIONS:
            continue
        lines = files[item.path].split(b"\n")[:-1]
        for entry, name in wanted:
            place = bisect.bisect_left(lines, entry)
            if place < len(lines) and lines[place] == entry:
                findings.append(f"{name} would be blocked: {entry.decode()} is in {item.name}")
                if len(findings) >= MAX_FINDINGS:
                    return tuple(findings)
    return tuple(findings)
