"""Assembles a feed pack from the copies of all sources: merge, rules, the engine's word, manifest, history.

The same copies, data files, serial, channel and time give the same bytes. Only a source without any copy stops it:
a pack without one of its sources would take protection away, and an operator who wants that says so by switching the
source off.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_manifest import FeedManifest, ListKind, PackFile, PackList, PackRules, parse_manifest

from .allow import AllowList
from .applications import Application, application_rules
from .catalogue import Catalogue, Kind, Source
from .compiler import MAX_SERIAL
from .engine import Engine
from .errors import GuardError, SourceError
from .feed_source import GENERATED_RULES
from .history import ALLOWED_NAME, RULES_LIST, RULES_NAME, AllowedRow, HistoryWriter, RuleRow
from .indicators import DomainRules
from .merging import Merged, Merger, TakenOut
from .policy import Policy, PolicyKind, PolicyList
from .rule_lines import read_rule_lines
from .rule_policy import LeftOut, RuleTally, adapt_rules
from .rules import Rule, rule_words
from .sieve import sieve
from .source_reader import Entry, Tally, read_entries
from .source_store import Provenance, SourceStore
from .templates import list_rules
from .url_rules import HOSTS, PATHS, url_rules

APPLICATION_RULES = "rules/applications.rules"
_KINDS = {PolicyKind.DOMAIN: ListKind.DOMAIN, PolicyKind.IP: ListKind.IP, PolicyKind.SHA256: ListKind.SHA256}
_MAX_WARNINGS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What a pack is made from; `engine` None leaves out the engine's word."""

    catalogue: Catalogue
    policy: Policy
    applications: tuple[Application, ...]
    store: SourceStore
    engine: Engine | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assembled:
    """Content of a pack, and the report on it (plain data, as it is kept in the history)."""

    manifest: FeedManifest
    files: Mapping[str, bytes] = dataclasses.field(repr=False)
    report: dict[str, Any]


def assemble(
    ingredients: Ingredients, *, serial: int, created: str, channel: str, history: HistoryWriter | None = None
) -> Assembled:
    """Assemble a pack.

    Args:
        ingredients: Sources, policy and applications.
        serial: Serial of the pack, 1 or more.
        created: Time written into it, RFC 3339; indicators that end before it have ended.
        channel: Feed channel it is for.
        history: Gets what each entry comes from; None keeps nothing.

    Raises:
        SourceError: A source has no copy, names a list that the policy does not have, or the pack breaks a rule.
        GuardError: The engine refuses more rules of a source than its bound.
        EngineError: The engine cannot be started.
    """
    if not 1 <= serial <= MAX_SERIAL:
        raise SourceError(f"serial {serial} is outside 1..{MAX_SERIAL}")
    with tempfile.TemporaryDirectory(prefix="omamori-feed-") as work:
        return _Assembly(ingredients, datetime.fromisoformat(created), Path(work), history).run(
            serial, created, channel
        )


class _Assembly:
    def __init__(self, ingredients: Ingredients, as_of: datetime, work: Path, history: HistoryWriter | None) -> None:
        self._all = ingredients
        self._work = work
        self._history = history
        self._domains = DomainRules()
        self._sources = tuple(dataclasses.replace(item, as_of=as_of) for item in ingredients.catalogue.enabled())
        self._provenance: dict[str, Provenance] = {}
        self._files: dict[str, bytes] = {}
        self._lists: list[PackList] = []
        self._tallies: dict[str, Tally] = {item.name: Tally() for item in self._sources}
        self._rule_tallies: dict[str, RuleTally] = {}
        self._rule_sources: dict[int, str] = {}
        self._allow = AllowList(self._domains)
        self._rules_left_out: dict[int, TakenOut] = {}

    def run(self, serial: int, created: str, channel: str) -> Assembled:
        self._check_sources()
        for source in self._of_kind(Kind.ALLOW):
            self._allow.add(source.name, source.overrides, self._entries(source))
        names = tuple(item.name for item in self._sources)
        with Merger(self._all.policy, names, self._allow, self._domains, self._work) as merger:
            for number, source in enumerate(self._sources):
                if source.kind not in {Kind.ALLOW, Kind.RULES}:
                    for entry in self._entries(source):
                        merger.add(number, self._target(source, entry), entry)
            for item, entries in merger.merge():
                self._add_list(item, entries)
            rules = self._rules()
            self._files.update(
                {path: "".join(f"{rule.text}\n" for rule in found).encode() for path, found in rules.items()}
            )
            manifest = self._manifest(serial, created, channel, rules)
            report = self._report(manifest, merger)
            if self._history is not None:
                self._write_history(self._history, merger, rules)
                self._history.finish(manifest, report)
        return Assembled(manifest=manifest, files=self._files, report=report)

    def _of_kind(self, kind: Kind) -> Iterator[Source]:
        return (source for source in self._sources if source.kind is kind)

    def _check_sources(self) -> None:
        for source in self._sources:
            provenance = self._all.store.provenance(source.name)
            if provenance is None:
                raise SourceError(
                    f"source {source.name} has no copy", hint="omamori-feed fetch, or `enabled = false` in sources.toml"
                )
            self._provenance[source.name] = provenance
            for name in {**source.lists, **source.categories}.values():
                self._all.policy.find(name)
            for kind, name in source.lists.items():
                found = self._all.policy.find(name)
                if found.kind.value != kind:
                    raise SourceError(f"source {source.name}: list {name} holds {found.kind}, not {kind}")

    def _entries(self, source: Source) -> Iterator[Entry]:
        return read_entries(source, self._all.store.current(source.name), self._domains, self._tallies[source.name])

    @staticmethod
    def _target(source: Source, entry: Entry) -> str:
        return source.categories[entry.group] if source.kind is Kind.CATEGORY else source.lists[entry.kind.value]

    def _add_list(self, item: PolicyList, entries: Iterator[Merged]) -> None:
        """Write a list of the policy; an empty one, too, because a box restarts its engine for a new name."""
        if item.kind is PolicyKind.URL:
            self._add_urls(item, entries)
            return
        lines = bytearray()
        count = self._keep(item.name, _tee(entries, lambda merged: lines.extend(f"{merged.entry}\n".encode())))
        self._add_file(item, item.name, _KINDS[item.kind], bytes(lines), count)

    def _add_urls(self, item: PolicyList, entries: Iterator[Merged]) -> None:
        hosts: set[str] = set()
        paths: set[str] = set()

        def split(merged: Merged) -> None:
            host, _, path = merged.entry.partition(" ")
            hosts.add(host)
            paths.add(path)

        self._keep(item.name, _tee(entries, split))
        for suffix, found in ((HOSTS, hosts), (PATHS, paths)):
            data = "".join(f"{line}\n" for line in sorted(found)).encode()
            self._add_file(item, item.name + suffix, ListKind.TEXT, data, len(found))

    def _keep(self, name: str, entries: Iterable[Merged]) -> int:
        if self._history is not None:
            return self._history.write_list(name, entries)
        return sum(1 for _ in entries)

    def _add_file(self, item: PolicyList, name: str, kind: ListKind, data: bytes, count: int) -> None:
        path = f"lists/{name}.txt"
        self._files[path] = data
        self._lists.append(
            PackList(
                name=name,
                kind=kind,
                path=path,
                count=count,
                function=item.function,
                severity=item.severity,
                action=item.action,
                category=item.category,
            )
        )

    def _rules(self) -> dict[str, tuple[Rule, ...]]:
        policy = self._all.policy
        found = {source.name: self._source_rules(source) for source in self._of_kind(Kind.RULES)}
        if self._all.engine is not None:
            found = self._sieved(self._all.engine, found)
        rules = {f"rules/{name}.rules": taken for name, taken in found.items() if taken}
        counts = {item.name: item.count for item in self._lists}
        generated: list[Rule] = []
        for item in policy.lists:
            if item.kind is PolicyKind.URL:
                generated += url_rules(item)
            elif item.kind is PolicyKind.DOMAIN or counts[item.name]:
                # The engine refuses a rule whose list of digests is empty.
                generated += list_rules(item.as_list(item.name, _KINDS[item.kind]))
        rules[GENERATED_RULES] = tuple(generated)
        rules[APPLICATION_RULES] = tuple(
            rule
            for item in sorted(self._all.applications, key=lambda item: item.sid)
            for rule in application_rules(item, policy.application_action, policy.application_severity)
            if not self._leaves_out(rule.sid, item.name)
        )
        return {path: taken for path, taken in rules.items() if taken}

    def _source_rules(self, source: Source) -> tuple[Rule, ...]:
        tally = self._rule_tallies[source.name] = RuleTally()
        counts = self._tallies[source.name]
        lines = read_rule_lines(source, self._all.store.current(source.name), counts.add_bad)
        # One that is left out may still come along silently, for the bit that another rule asks for.
        pairs = ((line.rule, line.is_active and not self._leaves_out(line.rule.sid, source.name)) for line in lines)
        taken = adapt_rules(pairs, source.sids, self._all.policy, tally, is_own=bool(source.file))
        counts.used = len(taken)
        self._rule_sources.update({rule.sid: source.name for rule in taken})
        return taken

    def _leaves_out(self, sid: int, source: str) -> bool:
        protection = self._allow.protects_exactly(str(sid))
        if protection is None:
            return False
        self._rules_left_out[sid] = TakenOut(str(sid), RULES_LIST, (source,), protection)
        return True

    def _sieved(self, engine: Engine, found: dict[str, tuple[Rule, ...]]) -> dict[str, tuple[Rule, ...]]:
        everything = tuple(rule for taken in found.values() for rule in taken)
        _, refused = sieve(engine, everything)
        gone = {item.sid for item in refused}
        for item in refused:
            self._rule_tallies[self._rule_sources[item.sid]].left_out.append(
                LeftOut(sid=item.sid, reason=f"the engine: {item.reason}")
            )
        for name, taken in found.items():
            bad = sum(rule.sid in gone for rule in taken)
            self._rule_tallies[name].reasons["the engine refuses it"] += bad
            bound = self._all.catalogue.find(name).rejected_percent
            if bad * 100 > len(taken) * bound:
                raise GuardError(
                    f"source {name}: the engine refuses {bad} of {len(taken)} rules, allowed are {bound} %",
                    hint="its rules are for another engine, or broken; see the report of `check`",
                )
        return {name: tuple(rule for rule in taken if rule.sid not in gone) for name, taken in found.items()}

    def _manifest(self, serial: int, created: str, channel: str, rules: dict[str, tuple[Rule, ...]]) -> FeedManifest:
        engine_min = max(
            (self._all.policy.engine_min, *(item.engine_min for item in self._sources)),
            key=lambda text: [int(part) for part in text.split(".")],
        )
        manifest = FeedManifest(
            serial=serial,
            created=created,
            channel=channel,
            engine_min=engine_min,
            files=tuple(
                PackFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
                for path, data in sorted(self._files.items())
            ),
            lists=tuple(self._lists),
            rules=tuple(PackRules(path=path, count=len(found)) for path, found in sorted(rules.items())),
        )
        try:
            return parse_manifest(manifest.to_json())
        except ProtocolError as err:
            raise SourceError(f"the feed breaks a rule of the pack's format: {err}", hint=err.hint) from err

    def _write_history(self, history: HistoryWriter, merger: Merger, rules: dict[str, tuple[Rule, ...]]) -> None:
        left_out = sorted([*merger.taken_out, *self._rules_left_out.values()], key=lambda item: item[:2])
        history.write_dated(
            ALLOWED_NAME,
            (
                AllowedRow(
                    item.entry,
                    item.name,
                    ",".join(item.sources),
                    item.protection.allowed,
                    item.protection.source,
                    str(item.protection.report),
                )
                for item in left_out
            ),
            keys=2,
        )
        rows = []
        for path, found in rules.items():
            for rule in found:
                source = self._rule_sources.get(rule.sid, path)
                message = rule.text.partition('msg:"')[2].partition('";')[0]
                words = rule_words(rule)
                function, severity = words.get("omamori_function", ""), words.get("omamori_severity", "0")
                rows.append(RuleRow(f"{rule.sid:010d}", source, rule.action, message, function, severity))
        history.write_dated(RULES_NAME, sorted(rows), keys=1)

    def _report(self, manifest: FeedManifest, merger: Merger) -> dict[str, Any]:
        return {
            "serial": manifest.serial,
            "created": manifest.created,
            "channel": manifest.channel,
            "sources": [self._source_report(source) for source in self._sources],
            "lists": {
                item.name: {
                    **dataclasses.asdict(merger.tallies[item.name]),
                    "function": item.function.word,
                    "severity": int(item.severity),
                    "action": item.action.word,
                    "category": item.category or "",
                }
                for item in self._all.policy.lists
            },
            "entries": {item.name: item.count for item in manifest.lists},
            "rules": {item.path: item.count for item in manifest.rules},
            "allowed": merger.taken_out_count + len(self._rules_left_out),
            "engine_asked": self._all.engine is not None,
        }

    def _source_report(self, source: Source) -> dict[str, Any]:
        tally = self._tallies[source.name]
        report: dict[str, Any] = {
            **dataclasses.asdict(self._provenance[source.name]),
            "kind": source.kind.value,
            "licence": source.licence,
            "attribution": source.attribution,
            "bad_lines": [dataclasses.asdict(line) for line in tally.bad_lines],
        }
        if (rules := self._rule_tallies.get(source.name)) is not None:
            report["meanings"] = dict(sorted(rules.by_meaning.items()))
            report["reasons"] = dict(sorted(rules.reasons.items()))
            report["left_out"] = [dataclasses.asdict(item) for item in rules.left_out[:_MAX_WARNINGS]]
        return report


def _tee(entries: Iterable[Merged], look: Any) -> Iterator[Merged]:
    for merged in entries:
        look(merged)
        yield merged
