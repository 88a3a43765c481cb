"""The policy, ``policy.toml``: which lists there are, what a match means, and how rules of others are taken over.

    format = 1
    engine_min = "8.0.0"

    [[lists]]                     # in order of precedence: an indicator stands in the first list that gets it
    name = "c2"
    kind = "domain"               # domain, ip, sha256, url
    function = "dangerous-site"
    severity = 3
    action = "blocked"            # blocked, logged
    direction = "out"
    category = "games"            # only for the function `category`
    sid = 1920000                 # first of twenty; never changed, never reused

    [applications]
    action = "logged"
    severity = 1

    [rules]
    classes = ["trojan-activity"] # classes that the box's engine knows; a rule of another becomes `unknown`
    [[rules.meanings]]            # the first that fits a rule decides; a rule that none fits is left out
    title = "…"
    classtypes = […]              # any of them; absent: all
    severities = ["Critical"]     # signature_severity of the rule's metadata; "none" stands for absent
    confidences = ["High"]        # confidence; "none" stands for absent
    from = "inside"               # inside, outside, any: where the rule's source addresses lie
    costs = ["Significant"]       # performance_impact
    function = "ips"
    severity = 3
    action = "blocked"            # blocked, logged, omitted
    direction = "out"             # absent: the box tells from the packet

    [budget]
    memory_percent = 60           # of the board's recommended memory that the engine may need while it reloads
    load_s = 120                  # seconds that loading may take on the board
    networks = 120_000            # addresses and networks that the gate's map has room for, with some to spare
    slowness = 4                  # how many times slower the board's processor is than the one that is measured on

It reads and checks. What is blocked and what is logged is decided here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from enum import StrEnum
from pathlib import Path
from typing import Any

from omamori_protocol.feed_manifest import MAX_LISTS, ListKind
from omamori_protocol.vocabulary import Action, Direction, Function, Severity

from .errors import SourceError
from .feed_source import SID_MAXIMUM, SID_MINIMUM, SIDS_PER_LIST, ListSource
from .toml_fields import NAME, VERSION, Fields, read_toml

FILE_NAME = "policy.toml"
FORMAT = 1
NONE = "none"
# The engine's own names of classes and of values in metadata.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_MAX_LIST_NAME = 34  # a list of URLs becomes two, with suffixes


class PolicyKind(StrEnum):
    """What a list of the policy holds; `url` becomes two lists of text in the pack."""

    DOMAIN = "domain"
    IP = "ip"
    SHA256 = "sha256"
    URL = "url"


class End(StrEnum):
    """Where the source addresses of a rule lie."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    ANY = "any"


class RuleAction(StrEnum):
    """What becomes of a rule of somebody else."""

    BLOCKED = "blocked"
    LOGGED = "logged"
    OMITTED = "omitted"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyList:
    """One list."""

    name: str
    kind: PolicyKind
    function: Function
    severity: Severity
    action: Action
    direction: Direction | None
    category: str | None
    sid: int

    @property
    def is_threat(self) -> bool:
        """Say whether the list is about threats, and not about what people may do."""
        return self.function not in {Function.CATEGORY, Function.APPLICATION}

    def as_list(self, name: str, kind: ListKind) -> ListSource:
        """Return the list in the form that rules are made from."""
        return ListSource(
            name=name,
            kind=kind,
            file=f"lists/{name}.txt",
            function=self.function,
            severity=self.severity,
            action=self.action,
            category=self.category,
            direction=self.direction,
            sid=self.sid,
            licence="see the report",
            origin="see the report",
            allow_documentation_addresses=True,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleMeaning:
    """What a rule of somebody else means when all its conditions hold; an empty condition always holds."""

    title: str
    classtypes: frozenset[str]
    severities: frozenset[str]
    confidences: frozenset[str]
    costs: frozenset[str]
    start: End
    action: RuleAction
    function: Function
    severity: Severity
    direction: Direction | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What a feed may cost a board; see the module's text."""

    memory_percent: int
    load_s: int
    networks: int
    slowness: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """Content of ``policy.toml``."""

    engine_min: str
    lists: tuple[PolicyList, ...]
    classes: frozenset[str]
    meanings: tuple[RuleMeaning, ...]
    application_action: Action
    application_severity: Severity
    budget: Budget

    def find(self, name: str) -> PolicyList:
        """Return a list by name.

        Raises:
            SourceError: There is none.
        """
        for item in self.lists:
            if item.name == name:
                return item
        raise SourceError(f"the policy has no list {name[:40]!r}")


def read_policy(path: Path) -> Policy:
    """Read and check ``policy.toml``.

    Raises:
        SourceError: It breaks a rule; the message says which.
    """
    return parse_policy(read_toml(path))


def parse_policy(body: dict[str, Any]) -> Policy:
    """Check the parsed TOML.

    Raises:
        SourceError: A key is unknown or missing, a value is not allowed, a name stands twice, ids overlap.
    """
    top = Fields(body, FILE_NAME)
    top.number("format", FORMAT, FORMAT)
    engine_min = top.matching("engine_min", VERSION)
    lists = tuple(_list(item) for item in top.tables("lists", MAX_LISTS // 2))
    names = [item.name for item in lists]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"list twice: {', '.join(twice)}")
    sids = sorted((item.sid, item.name) for item in lists if item.sid)
    for (one, name), (other, its_name) in itertools.pairwise(sids):
        if other - one < SIDS_PER_LIST:
            raise SourceError(f"ids of {name} and {its_name} overlap", hint=f"a list has {SIDS_PER_LIST} ids")
    applications, rules, budget = (Fields(top.table(key), key) for key in ("applications", "rules", "budget"))
    policy = Policy(
        engine_min=engine_min,
        lists=lists,
        classes=frozenset(rules.names("classes", _WORD, 100, required=True)),
        meanings=tuple(_meaning(item) for item in rules.tables("meanings", 100)),
        application_action=_action(applications),
        application_severity=Severity(applications.number("severity", 1, 3)),
        budget=_budget(budget),
    )
    for table in (applications, rules, top):
        table.finish()
    return policy


def _choose(fields: Fields, key: str, choices: type[Function | Direction]) -> Any:
    word = fields.matching(key, NAME)
    try:
        return choices.from_word(word)
    except ValueError as err:
        raise SourceError(f"{fields.what}: {key}: {err}") from err


def _action(fields: Fields) -> Action:
    return Action.BLOCKED if fields.choice("action", _ListAction) is _ListAction.BLOCKED else Action.LOGGED


class _ListAction(StrEnum):
    BLOCKED = "blocked"
    LOGGED = "logged"


def _list(body: object) -> PolicyList:
    name = Fields(body, "list").matching("name", NAME)
    fields = Fields(body, f"list {name}")
    fields.matching("name", NAME)
    item = PolicyList(
        name=name,
        kind=fields.choice("kind", PolicyKind),
        function=_choose(fields, "function", Function),
        severity=Severity(fields.number("severity", 1, 3)),
        action=_action(fields),
        direction=_choose(fields, "direction", Direction) if fields.has("direction") else None,
        category=fields.matching("category", NAME) if fields.has("category") else None,
        sid=fields.number("sid", SID_MINIMUM, SID_MAXIMUM - SIDS_PER_LIST + 1) if fields.has("sid") else 0,
    )
    fields.finish()
    if (item.function is Function.CATEGORY) != (item.category is not None):
        raise SourceError(f"list {name}: a category belongs to the function `category`, and to no other")
    if (item.kind is PolicyKind.IP) != (item.sid == 0):
        raise SourceError(f"list {name}: every list has a sid but one of addresses, which the gate matches")
    if item.kind is PolicyKind.IP and item.action is not Action.BLOCKED:
        raise SourceError(f"list {name}: the gate blocks addresses and does not log them")
    if len(name) > _MAX_LIST_NAME:
        raise SourceError(f"list {name}: a name of at most {_MAX_LIST_NAME} characters")
    return item


def _meaning(body: object) -> RuleMeaning:
    title = Fields(body, "meaning").sentence("title")
    fields = Fields(body, f"meaning {title!r}")
    fields.sentence("title")
    meaning = RuleMeaning(
        title=title,
        classtypes=frozenset(fields.names("classtypes", _WORD, 100)),
        severities=frozenset(fields.names("severities", _WORD, 10)),
        confidences=frozenset(fields.names("confidences", _WORD, 10)),
        costs=frozenset(fields.names("costs", _WORD, 10)),
        start=fields.choice("from", End, End.ANY),
        action=fields.choice("action", RuleAction),
        function=_choose(fields, "function", Function) if fields.has("function") else Function.IPS,
        severity=Severity(fields.number("severity", 1, 3, 1)),
        direction=_choose(fields, "direction", Direction) if fields.has("direction") else None,
    )
    fields.finish()
    return meaning


def _budget(fields: Fields) -> Budget:
    budget = Budget(
        memory_percent=fields.number("memory_percent", 1, 100),
        load_s=fields.number("load_s", 1, 3600),
        networks=fields.number("networks", 0, 10_000_000),
        slowness=fields.number("slowness", 1, 100),
    )
    fields.finish()
    return budget
