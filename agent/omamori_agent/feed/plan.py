"""What has to happen in engine and gate to get from one feed to another. Pure: manifests in, plan out."""

from __future__ import annotations

import dataclasses

from omamori_protocol.feed_manifest import FeedManifest, ListKind
from omamori_protocol.vocabulary import Action

from .lists import DATASETS


@dataclasses.dataclass(frozen=True)
class ActivationPlan:
    """Steps of an activation.

    Attributes:
        needs_test: The engine has to test the new feed first: rules, digests or names of datasets differ.
        restarts: The engine has to be restarted: it declares new datasets only at its start.
        reloads: It has to read its rules again.
        changed_lists: Datasets whose entries differ; not needed with a restart, which loads them all.
        changes_blocks: The gate's block list differs.
        is_loaded: The engine has begun with the new feed by itself: it only has to prove itself.
    """

    needs_test: bool
    restarts: bool
    reloads: bool
    changed_lists: tuple[str, ...]
    changes_blocks: bool
    is_loaded: bool = False

    def with_restart(self) -> ActivationPlan:
        """Return the plan for an engine of which nobody knows what it holds: only a restart makes that known."""
        return dataclasses.replace(self, restarts=True, reloads=False, changed_lists=())

    def when_loaded(self) -> ActivationPlan:
        """Return the plan for an engine whose process is younger than the link: it has read nothing but this feed."""
        return dataclasses.replace(self, restarts=False, reloads=False, changed_lists=(), is_loaded=True)


def make_plan(old: FeedManifest, new: FeedManifest) -> ActivationPlan:
    """Compare two feeds by the digests in their manifests.

    A dataset that is no longer named stays in the engine until its next start, unused: that needs no restart.
    """
    old_names, new_names = _digests(old, *DATASETS), _digests(new, *DATASETS)
    added = new_names.keys() - old_names.keys()
    removed = old_names.keys() - new_names.keys()
    rules_differ = _rules(old) != _rules(new) or _digests(old, ListKind.SHA256) != _digests(new, ListKind.SHA256)
    restarts = bool(added)
    common = sorted(old_names.keys() & new_names.keys())
    return ActivationPlan(
        needs_test=rules_differ or bool(added) or bool(removed),
        restarts=restarts,
        reloads=not restarts and (rules_differ or bool(removed)),
        changed_lists=() if restarts else tuple(name for name in common if old_names[name] != new_names[name]),
        changes_blocks=_blocks(old) != _blocks(new),
    )


def _file_digests(manifest: FeedManifest) -> dict[str, str]:
    return {item.path: item.sha256 for item in manifest.files}


def _digests(manifest: FeedManifest, *kinds: ListKind) -> dict[str, str]:
    digests = _file_digests(manifest)
    return {item.name: digests[item.path] for item in manifest.lists if item.kind in kinds}


def _rules(manifest: FeedManifest) -> list[str]:
    digests = _file_digests(manifest)
    return [digests[item.path] for item in sorted(manifest.rules, key=lambda item: item.path)]


def _blocks(manifest: FeedManifest) -> dict[str, tuple[str, Action]]:
    digests = _file_digests(manifest)
    return {item.name: (digests[item.path], item.action) for item in manifest.lists if item.kind is ListKind.IP}
