"""Estimates what a pack costs a box, before a box finds out: memory at its peak, and time to load.

The figures a unit costs were measured with the engine of the image (docs/feeds.md has the table). The peak of memory
is at a reload of rules: the old ones stay until the new ones are ready, and lists of digests belong to rules; datasets
are held once. Board limits come from its `board.toml`, which is read as plain data.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from omamori_protocol.feed_manifest import FeedManifest, ListKind

from .errors import SourceError
from .policy import Budget
from .toml_fields import read_toml

_MIB = 1024 * 1024

# Bytes of resident memory in the engine, for each: an entry of a dataset, a digest, a rule compiled for Hyperscan.
_DATASET_ENTRY = 142
_DIGEST = 92
_RULE = 12_000
# The gate's map, for each network.
_NETWORK = 96
# The engine with its configuration and no feed.
_ENGINE = 60 * _MIB
# Flows, streams and packets in flight of a full office.
_TRAFFIC = 100 * _MIB
# Microseconds of loading, for each, on the machine that the figures are from.
_DATASET_US, _DIGEST_US, _RULE_US, _NETWORK_US = 4.5, 1.0, 900.0, 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What a pack is estimated to cost.

    Attributes:
        steady_mib: Memory of engine and gate with the pack.
        peak_mib: The same while the engine reloads.
        load_s: Seconds until a pack is loaded, on the machine that the figures are from.
        networks: Entries of the gate's map.
    """

    steady_mib: int
    peak_mib: int
    load_s: float
    networks: int


def estimate(manifest: FeedManifest) -> Cost:
    """Estimate what a pack costs."""
    counts = dict.fromkeys(ListKind, 0)
    for item in manifest.lists:
        counts[item.kind] += item.count
    datasets = counts[ListKind.DOMAIN] + counts[ListKind.TEXT]
    rules = sum(item.count for item in manifest.rules)
    doubled = rules * _RULE + counts[ListKind.SHA256] * _DIGEST
    steady = _ENGINE + _TRAFFIC + datasets * _DATASET_ENTRY + counts[ListKind.IP] * _NETWORK + doubled
    microseconds = (
        datasets * _DATASET_US
        + counts[ListKind.SHA256] * _DIGEST_US
        + rules * _RULE_US
        + counts[ListKind.IP] * _NETWORK_US
    )
    return Cost(
        steady_mib=steady // _MIB,
        peak_mib=(steady + doubled) // _MIB,
        load_s=round(microseconds / 1_000_000, 1),
        networks=counts[ListKind.IP],
    )


def board_memory_mib(path: Path) -> int:
    """Return the memory that a board is recommended to have.

    Args:
        path: ``board.toml``, or the directory that holds it.

    Raises:
        SourceError: It cannot be read, or does not say.
    """
    body = read_toml(path / "board.toml" if path.is_dir() else path)
    limits = body.get("limits")
    value = limits.get("memory_recommended_mib") if isinstance(limits, dict) else None
    if type(value) is not int or value <= 0:
        raise SourceError(f"{path}: no limits.memory_recommended_mib")
    return value


def exceed(cost: Cost, budget: Budget, memory_mib: int) -> tuple[str, ...]:
    """Return in what a pack goes beyond a board; empty if it fits."""
    allowed_mib = memory_mib * budget.memory_percent // 100
    findings = []
    if cost.peak_mib > allowed_mib:
        findings.append(f"memory while reloading: {cost.peak_mib} MiB, the board allows {allowed_mib} MiB")
    if cost.load_s * budget.slowness > budget.load_s:
        findings.append(f"loading: {cost.load_s * budget.slowness:.0f} s on the board, allowed are {budget.load_s} s")
    if cost.networks > budget.networks:
        findings.append(f"addresses: {cost.networks}, the gate takes {budget.networks}")
    return tuple(findings)
