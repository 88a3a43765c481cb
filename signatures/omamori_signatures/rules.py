"""Rules as text: a strict reader that refuses what the feed's own rules must not be.

It understands just enough of the engine's language to check a rule's frame: action, id, revision, message and the
metadata that the box maps alerts by. Whether the engine accepts the rest is the engine's to say (`engine`).
"""

from __future__ import annotations

import dataclasses
import re

from omamori_protocol.vocabulary import Direction, Function, Severity

from .errors import SourceError

MAX_RULE_BYTES = 8192
MAX_RULES = 100_000

_FRAME = re.compile(
    r"(?P<action>alert|drop(?::packet)?) (?P<protocol>[a-z0-9-]{2,20}) \S+ \S+ -> \S+ \S+ \((?P<options>.*;)\)"
)
# An option ends at a semicolon that neither is escaped nor stands between quotes.
_OPTION = re.compile(r'\s*((?:[^;"\\]|\\.|"(?:[^"\\]|\\.)*")*);')
_FUNCTIONS = {member.word for member in Function}
_SEVERITIES = {str(int(member)) for member in Severity}
_DIRECTIONS = {member.word for member in Direction}
_CATEGORY = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """One active rule; `text` is the line as it goes into the pack."""

    sid: int
    action: str
    text: str


def read_rules(data: bytes, file: str, *, sids: tuple[int, int] | None = None) -> tuple[Rule, ...]:
    """Read a file of rules: one a line, `#` begins a comment line.

    Args:
        data: The file.
        file: Name for errors.
        sids: Range that every id must lie in; None for any.

    Raises:
        SourceError: A line is not such a rule, or an id stands twice; with the line's number.
    """
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as err:
        raise SourceError(f"{file}: not UTF-8") from err
    rules: dict[int, Rule] = {}
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{file}, line {number}"
        rule = parse_rule(line, where)
        if sids is not None and not sids[0] <= rule.sid <= sids[1]:
            raise SourceError(f"{where}: id {rule.sid} is outside {sids[0]}..{sids[1]}")
        if rule.sid in rules:
            raise SourceError(f"{where}: id {rule.sid} stands twice")
        if len(rules) >= MAX_RULES:
            raise SourceError(f"{file}: more than {MAX_RULES} rules")
        rules[rule.sid] = rule
    return tuple(rules.values())


def parse_rule(line: str, where: str) -> Rule:
    """Check one rule.

    Raises:
        SourceError: It is not of the form that the feed allows.
    """
    if len(line.encode()) > MAX_RULE_BYTES:
        raise SourceError(f"{where}: a rule longer than {MAX_RULE_BYTES} bytes")
    frame = _FRAME.fullmatch(line)
    if frame is None:
        raise SourceError(
            f"{where}: not a rule", hint="ACTION PROTOCOL SRC PORT -> DST PORT (…;), ACTION alert or drop"
        )
    options = _options(frame["options"], where)
    for name in ("sid", "rev", "msg", "metadata"):
        if len(options.get(name, [])) != 1:
            raise SourceError(f"{where}: needs exactly one {name}")
    sid, revision = options["sid"][0], options["rev"][0]
    if not re.fullmatch(r"[1-9][0-9]{0,8}", sid) or not re.fullmatch(r"[1-9][0-9]{0,5}", revision):
        raise SourceError(f"{where}: sid and rev are positive numbers")
    _check_metadata(options["metadata"][0], where)
    return Rule(sid=int(sid), action=frame["action"], text=line)


def _options(text: str, where: str) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    position = 0
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None:
            raise SourceError(f"{where}: a quote or semicolon is missing")
        name, _, value = match[1].partition(":")
        options.setdefault(name.strip(), []).append(value.strip())
        position = match.end()
    return options


def _check_metadata(text: str, where: str) -> None:
    words = dict(item.strip().partition(" ")[::2] for item in text.split(","))
    function = words.get("omamori_function")
    if function not in _FUNCTIONS or words.get("omamori_severity") not in _SEVERITIES:
        raise SourceError(f"{where}: metadata needs omamori_function and omamori_severity")
    if words.get("omamori_direction", "in") not in _DIRECTIONS:
        raise SourceError(f"{where}: omamori_direction is in or out")
    category = words.get("omamori_category")
    if (function == Function.CATEGORY.word) != (category is not None) or not _CATEGORY.fullmatch(category or "x"):
        raise SourceError(f"{where}: omamori_category belongs to the function `category`")
