"""The description of a feed, ``feed.toml``: which lists and rule files it has and what a match means.

    format = 1
    engine_min = "8.0.0"

    [[rules]]                     # own rules, taken over as they stand
    file = "rules/ips.rules"
    sids = [1900000, 1900999]     # every rule of the file lies in this range
    licence = "Apache-2.0"
    origin = "…"

    [[lists]]
    name = "dangerous"
    kind = "domain"               # domain, ip, sha256
    file = "lists/dangerous.txt"
    function = "dangerous-site"
    severity = 2
    action = "blocked"            # blocked, logged
    category = "games"            # only for the function `category`
    direction = "out"             # written into the rules; without it the box tells from the packet
    sid = 1910000                 # first of the twenty ids of the rules made for this list; never changed, never reused
    licence = "Apache-2.0"
    origin = "…"
    allow_documentation_addresses = false   # kind ip: TEST-NET and 2001:db8::/32, for demonstrations

It reads and checks; it does not read the lists themselves (`indicators`) nor the rules (`rules`).
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

from omamori_protocol.feed_manifest import MAX_FILES, MAX_LISTS, ListKind
from omamori_protocol.vocabulary import Action, Direction, Function, Severity

from .errors import SourceError
from .files import read_bounded

FILE_NAME = "feed.toml"
FORMAT = 1
GENERATED_RULES = "rules/lists.rules"
SIDS_PER_LIST = 20
SID_MINIMUM, SID_MAXIMUM = 1_900_000, 1_999_999
_MAX_BYTES = 256 * 1024

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_LIST_PATH = re.compile(r"lists/[a-z0-9][a-z0-9._-]{0,59}\.txt")
_RULES_PATH = re.compile(r"rules/[a-z0-9][a-z0-9._-]{0,55}\.rules")
_VERSION = re.compile(r"\d{1,3}(\.\d{1,5}){1,3}")

_LIST_KEYS = {
    "name",
    "kind",
    "file",
    "function",
    "severity",
    "action",
    "category",
    "direction",
    "sid",
    "licence",
    "origin",
    "allow_documentation_addresses",
}
_LIST_REQUIRED = {"name", "kind", "file", "function", "severity", "action", "licence", "origin"}
_RULES_KEYS = {"file", "sids", "licence", "origin"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RulesSource:
    """A file of rules and the range that its ids lie in (both ends included)."""

    file: str
    sids: tuple[int, int]
    licence: str
    origin: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListSource:
    """A list and what a match means; `sid` is 0 for lists that no rule matches (kind ip)."""

    name: str
    kind: ListKind
    file: str
    function: Function
    severity: Severity
    action: Action
    category: str | None
    direction: Direction | None
    sid: int
    licence: str
    origin: str
    allow_documentation_addresses: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedSource:
    """Content of ``feed.toml``, in its order."""

    engine_min: str
    rules: tuple[RulesSource, ...]
    lists: tuple[ListSource, ...]


def read_feed_source(directory: Path) -> FeedSource:
    """Read and check ``feed.toml`` of a source directory.

    Raises:
        SourceError: It is missing or breaks a rule; the message says which.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise SourceError(f"{directory} holds no {FILE_NAME}", hint="give the directory of a feed, see signatures/demo")
    try:
        body = tomllib.loads(read_bounded(path, _MAX_BYTES).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise SourceError(f"{path}: {err}") from err
    return parse_feed_source(body)


def parse_feed_source(body: dict[str, Any]) -> FeedSource:
    """Check the parsed TOML.

    Raises:
        SourceError: A key is unknown or missing, a value is not allowed, a name or file stands twice, ids overlap.
    """
    _check_keys(body, {"format", "engine_min", "rules", "lists"}, {"format", "engine_min"}, FILE_NAME)
    if body["format"] != FORMAT:
        raise SourceError(f"{FILE_NAME}: unknown format {body['format']!r}", hint=f"this program reads format {FORMAT}")
    engine_min = _matching(body["engine_min"], _VERSION, "engine_min")
    rules = tuple(_rules(item) for item in _tables(body, "rules", MAX_FILES // 4))
    lists = tuple(_list(item) for item in _tables(body, "lists", MAX_LISTS))
    if any(item.file == GENERATED_RULES for item in rules):
        raise SourceError(f"{GENERATED_RULES} is the name of the generated rules", hint="name the file otherwise")
    _check_unique([item.name for item in lists], "list")
    _check_unique([item.file for item in lists] + [item.file for item in rules], "file")
    _check_ranges(rules, lists)
    return FeedSource(engine_min=engine_min, rules=rules, lists=lists)


def _check_keys(body: object, allowed: set[str], required: set[str], what: str) -> None:
    if not isinstance(body, dict):
        raise SourceError(f"{what}: expected a table")
    unknown, missing = sorted(set(body) - allowed), sorted(required - set(body))
    if unknown or missing:
        words = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [f"missing {', '.join(missing)}"] * bool(missing)
        raise SourceError(f"{what}: {'; '.join(words)}"[:300])


def _tables(body: dict[str, Any], key: str, maximum: int) -> list[Any]:
    tables = body.get(key, [])
    if not isinstance(tables, list) or len(tables) > maximum:
        raise SourceError(f"{FILE_NAME}: {key} must be at most {maximum} tables")
    return tables


def _matching(value: object, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise SourceError(f"{what}: {str(value)[:80]!r} is not allowed", hint=f"form: {form.pattern}")
    return value


def _sentence(value: object, what: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 300 or not value.isprintable():
        raise SourceError(f"{what}: expected a line of 1 to 300 characters")
    return value


def _rules(body: Any) -> RulesSource:
    _check_keys(body, _RULES_KEYS, _RULES_KEYS, "rules")
    file = _matching(body["file"], _RULES_PATH, "file")
    sids = body["sids"]
    if not isinstance(sids, list) or len(sids) != 2 or any(type(sid) is not int for sid in sids):
        raise SourceError(f"{file}: sids must be the first and the last id")
    first, last = sids
    if not SID_MINIMUM <= first <= last <= SID_MAXIMUM:
        raise SourceError(f"{file}: ids must lie in {SID_MINIMUM}..{SID_MAXIMUM}")
    return RulesSource(
        file=file,
        sids=(first, last),
        licence=_sentence(body["licence"], f"{file}: licence"),
        origin=_sentence(body["origin"], f"{file}: origin"),
    )


def _list(body: Any) -> ListSource:
    _check_keys(body, _LIST_KEYS, _LIST_REQUIRED, "list")
    name = _matching(body["name"], _NAME, "list name")
    what = f"list {name}"
    try:
        kind = ListKind(body["kind"])
        function = Function(Function.from_word(str(body["function"])))
        severity = Severity(body["severity"])
        action = Action(Action.from_word(str(body["action"])))
        direction = Direction(Direction.from_word(str(body["direction"]))) if "direction" in body else None
    except ValueError as err:
        raise SourceError(f"{what}: {err}") from err
    category = body.get("category")
    if (function is Function.CATEGORY) != (category is not None):
        raise SourceError(f"{what}: a category belongs to the function `category`, and to no other")
    sid = body.get("sid", 0)
    if kind is ListKind.IP:
        if sid != 0 or action is not Action.BLOCKED:
            raise SourceError(f"{what}: addresses are blocked by the gate: action is `blocked`, and there is no sid")
    elif type(sid) is not int or not SID_MINIMUM <= sid <= SID_MAXIMUM - SIDS_PER_LIST + 1:
        raise SourceError(f"{what}: needs a sid in {SID_MINIMUM}..{SID_MAXIMUM - SIDS_PER_LIST + 1}")
    documentation = body.get("allow_documentation_addresses", False)
    if type(documentation) is not bool or (documentation and kind is not ListKind.IP):
        raise SourceError(f"{what}: allow_documentation_addresses is true or false, and only for the kind `ip`")
    return ListSource(
        name=name,
        kind=kind,
        file=_matching(body["file"], _LIST_PATH, f"{what}: file"),
        function=function,
        severity=severity,
        action=action,
        category=None if category is None else _matching(category, _NAME, f"{what}: category"),
        direction=direction,
        sid=sid,
        licence=_sentence(body["licence"], f"{what}: licence"),
        origin=_sentence(body["origin"], f"{what}: origin"),
        allow_documentation_addresses=documentation,
    )


def _check_unique(values: list[str], what: str) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise SourceError(f"{what} twice: {', '.join(twice)[:120]}")


def _check_ranges(rules: tuple[RulesSource, ...], lists: tuple[ListSource, ...]) -> None:
    ranges = [(*item.sids, item.file) for item in rules]
    ranges += [(item.sid, item.sid + SIDS_PER_LIST - 1, f"list {item.name}") for item in lists if item.sid]
    ranges.sort()
    for (_, last, one), (first, _, other) in itertools.pairwise(ranges):
        if first <= last:
            raise SourceError(
                f"ids of {one} and {other} overlap", hint=f"a list has {SIDS_PER_LIST} ids from its sid on"
            )
