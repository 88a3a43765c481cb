"""What the feed's compiler makes of public rules, and its own rules about lists and applications, for the benches.

A bench with rules that no box would ever load measures those rules. So directories of rules go through the compiler's
own steps: files that are lists of addresses in the form of rules are skipped, of an id the newest revision counts, the
policy chooses, and the engine says which rules it refuses and which would cost too much (`omamori_signatures.sieve`).
The lists themselves hold one made-up entry each: what is asked of them costs the same.
"""

from __future__ import annotations

import binascii
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from omamori_protocol.feed_manifest import ListKind
from omamori_signatures.applications import application_rules, read_applications
from omamori_signatures.catalogue import Source, read_catalogue
from omamori_signatures.engine import Engine
from omamori_signatures.errors import FeedError
from omamori_signatures.policy import End, Policy, PolicyKind, RuleAction, read_policy
from omamori_signatures.rule_lines import read_rule_lines
from omamori_signatures.rule_policy import RuleTally, adapt_rules
from omamori_signatures.rules import ParsedRule, Rule
from omamori_signatures.sieve import sieve
from omamori_signatures.templates import list_rules
from omamori_signatures.url_rules import HOSTS, PATHS, url_rules

from .errors import SetupError
from .settings import TREE

MAX_FILES = 2000
_DATA = TREE / "signatures"
_NAMES = (".rules", ".tar", ".tar.gz", ".tar.zst")
_ENTRY = b"bench-entry.test"
# Of public rules those with ids of ET Open are read; the operator's and our own have other ranges.
_SOURCE = "et-open"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublicRules:
    """Rules of others as a box would get them.

    Attributes:
        shipped: Those that the policy chooses.
        others: Further active ones, which it leaves out, as alerts.
        left_out: How many of both the engine refused, or would have cost too much.
    """

    shipped: tuple[str, ...]
    others: tuple[str, ...]
    left_out: int


def compile_rules(directories: Sequence[Path], engine: Engine | None) -> PublicRules:
    """Take public rules over as the compiler does.

    Args:
        directories: With `*.rules` files or archives of them.
        engine: Asked about the rules; None takes all.

    Raises:
        SetupError: There is none, or a directory holds more than it should.
    """
    try:
        source = read_catalogue(_DATA / "sources.toml").find(_SOURCE)
        policy = read_policy(_DATA / "policy.toml")
        newest = _newest(source, [path for directory in directories for path in rule_files(directory)])
        shipped = adapt_rules(newest, source.sids, policy, RuleTally(), is_own=False)
        taken = {rule.sid for rule in shipped}
        rest = [rule for rule, is_active in newest if is_active and rule.sid not in taken]
        others = adapt_rules(((rule, True) for rule in rest), source.sids, _lenient(policy), RuleTally(), is_own=False)
        left_out = 0
        if engine is not None:
            good, refused = sieve(engine, (*shipped, *others))
            left_out = len(refused)
            shipped, others = (_only(good, {rule.sid for rule in some}) for some in (shipped, others))
    except FeedError as err:
        raise SetupError(f"rules for the bench: {err}", hint=err.hint or None) from err
    if not shipped and not others:
        raise SetupError("no rules there", hint="give directories with *.rules files or archives of them")
    return PublicRules(
        shipped=tuple(rule.text for rule in shipped),
        others=tuple(rule.text for rule in others),
        left_out=left_out,
    )


def own_rules() -> tuple[str, ...]:
    """Return the rules of all lists of the policy and of all applications."""
    policy = read_policy(_DATA / "policy.toml")
    made: list[Rule] = []
    for item in policy.lists:
        made += (
            url_rules(item) if item.kind is PolicyKind.URL else list_rules(item.as_list(item.name, _kind(item.kind)))
        )
    for application in read_applications(_DATA / "applications.toml"):
        made += application_rules(application, policy.application_action, policy.application_severity)
    return tuple(rule.text for rule in made)


def write_lists(engine: Path) -> None:
    """Write the lists that `own_rules` ask, and their declaration, into an engine's part of a feed."""
    declarations = []
    for item in read_policy(_DATA / "policy.toml").lists:
        if item.kind is PolicyKind.SHA256:
            (engine / f"{item.name}.sha256").write_bytes(b"0" * 64 + b"\n")
        if item.kind in {PolicyKind.DOMAIN, PolicyKind.URL}:
            for suffix in (HOSTS, PATHS) if item.kind is PolicyKind.URL else ("",):
                name = item.name + suffix
                (engine / f"{name}.lst").write_bytes(binascii.b2a_base64(_ENTRY))
                declarations.append(f"  {name}: {{type: string, load: {name}.lst, memcap: 64 MiB, hashsize: 1024}}\n")
    (engine / "datasets.yaml").write_text(f"%YAML 1.1\n---\ndatasets:\n{''.join(declarations)}")


def _kind(kind: PolicyKind) -> ListKind:
    return {PolicyKind.DOMAIN: ListKind.DOMAIN, PolicyKind.IP: ListKind.IP, PolicyKind.SHA256: ListKind.SHA256}[kind]


def rule_files(directory: Path) -> Iterator[Path]:
    """Yield the files of rules, and archives of such, below a directory.

    Raises:
        SetupError: It is none, or holds more than it should.
    """
    if not directory.is_dir():
        raise SetupError(f"{directory} is no directory", hint="give a directory with *.rules files or archives of them")
    count = 0
    for path in sorted(directory.rglob("*")):
        if path.name.endswith(_NAMES) and path.is_file():
            count += 1
            if count > MAX_FILES:
                raise SetupError(f"{directory} holds more than {MAX_FILES} rule files")
            yield path


def _newest(source: Source, paths: Iterable[Path]) -> list[tuple[ParsedRule, bool]]:
    found: dict[int, tuple[ParsedRule, bool]] = {}
    for path in paths:
        for line in read_rule_lines(source, path, lambda *_: None):
            known = found.get(line.rule.sid)
            if known is None or known[0].revision < line.rule.revision:
                found[line.rule.sid] = (line.rule, line.is_active)
    return [found[sid] for sid in sorted(found)]


def _lenient(policy: Policy) -> Policy:
    """Return the policy with everything that it leaves out logged, but for what its authors say costs much."""
    costly = [item for item in policy.meanings if item.costs]
    none: frozenset[str] = frozenset()
    last = policy.meanings[-1]
    every = dataclasses.replace(
        last, classtypes=none, severities=none, confidences=none, costs=none, start=End.ANY, action=RuleAction.LOGGED
    )
    return dataclasses.replace(policy, meanings=(*costly, every))


def _only(rules: Iterable[Rule], sids: set[int]) -> tuple[Rule, ...]:
    return tuple(rule for rule in rules if rule.sid in sids)
