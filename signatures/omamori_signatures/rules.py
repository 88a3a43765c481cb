"""Rules as text: a strict reader that refuses what the feed's own rules must not be.

It understands just enough of the engine's language to check a rule's frame: action, id, revision, message and the
metadata that the box maps alerts by. Whether the engine accepts the rest is the engine's to say (`engine`). Rules of
others are taken apart by `split_rule` and made into such rules by `rule_policy`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from omamori_protocol.vocabulary import Direction, Function, Severity

from .errors import SourceError

MAX_RULE_BYTES = 8192
MAX_RULES = 100_000

_FRAME = re.compile(
    r"(?P<action>alert|drop(?::packet)?) (?P<protocol>[a-z0-9-]{2,20}) \S+ \S+ -> \S+ \S+ \((?P<options>.*;)\)"
)
# A rule of somebody else: any action; addresses and ports in brackets may have spaces in them.
_ADDRESS = r"!?(?:\[[^()\"]*?\]|[^\s()\[\]]+)"
_FOREIGN = re.compile(
    rf"(?P<action>[a-z]{{4,12}}(?::packet)?)\s+(?P<protocol>[a-z0-9.-]{{2,20}})\s+(?P<source>{_ADDRESS})\s+(?P<sport>{_ADDRESS})"
    rf"\s+(?P<arrow>->|<>)\s+(?P<target>{_ADDRESS})\s+(?P<tport>{_ADDRESS})\s*\((?P<options>.*;)\s*\)"
)
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
# An option ends at a semicolon that neither is escaped nor stands between quotes.
_OPTION = re.compile(r'\s*((?:[^;"\\]|\\.|"(?:[^"\\]|\\.)*")*);')
_FUNCTIONS = {member.word for member in Function}
_SEVERITIES = {str(int(member)) for member in Severity}
_DIRECTIONS = {member.word for member in Direction}
_CATEGORY = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


_METADATA = re.compile(r"; metadata:([^;]*);")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedRule:
    """A rule taken apart; `options` are (name, value) in their order, the value None if there is none."""

    sid: int
    revision: int
    action: str
    protocol: str
    source: str
    source_port: str
    arrow: str
    target: str
    target_port: str
    options: tuple[tuple[str, str | None], ...]

    def first(self, name: str) -> str | None:
        """Return the value of the first option of a name, or None."""
        return next((value for key, value in self.options if key == name), None)

    def values(self, name: str) -> list[str]:
        """Return the values of all options of a name."""
        return [value for key, value in self.options if key == name and value is not None]

    def has(self, name: str) -> bool:
        """Say whether an option is there."""
        return any(key == name for key, _ in self.options)

    def metadata(self) -> dict[str, str]:
        """Return the metadata, the first value of each key."""
        words: dict[str, str] = {}
        for item in ",".join(self.values("metadata")).split(","):
            key, _, value = item.strip().partition(" ")
            words.setdefault(key, value.strip())
        return words

    def render(self) -> str:
        """Return the rule as one line."""
        ends = (self.source, self.source_port, self.arrow, self.target, self.target_port)
        header = " ".join([self.action, self.protocol, *(re.sub(r"\s+", "", end) for end in ends)])
        options = " ".join(f"{name};" if value is None else f"{name}:{value};" for name, value in self.options)
        return f"{header} ({options})"


def split_rule(line: str, where: str) -> ParsedRule:
    """Take a rule of somebody else apart.

    Raises:
        SourceError: It is no rule, or has no single id and revision.
    """
    if len(line.encode()) > MAX_RULE_BYTES:
        raise SourceError(f"{where}: a rule longer than {MAX_RULE_BYTES} bytes")
    frame = _FOREIGN.fullmatch(line)
    if frame is None:
        raise SourceError(f"{where}: not a rule")
    options = tuple(_option_list(frame["options"], where))
    sids = [value or "" for name, value in options if name == "sid"]
    revisions = [value or "" for name, value in options if name == "rev"] or ["1"]
    if len(sids) != 1 or len(revisions) != 1 or not _NUMBER.fullmatch(sids[0]) or not _NUMBER.fullmatch(revisions[0]):
        raise SourceError(f"{where}: needs one sid and at most one rev, both positive numbers")
    return ParsedRule(
        sid=int(sids[0]),
        revision=int(revisions[0]),
        action=frame["action"],
        protocol=frame["protocol"],
        source=frame["source"],
        source_port=frame["sport"],
        arrow=frame["arrow"],
        target=frame["target"],
        target_port=frame["tport"],
        options=options,
    )


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
    if not re.fullmatch(r"[1-9][0-9]{0,8}", sid) or not re.fullmatch(r"[1-9][0-9]{0,9}", revision):
        raise SourceError(f"{where}: sid and rev are positive numbers")
    _check_metadata(options["metadata"][0], where)
    return Rule(sid=int(sid), action=frame["action"], text=line)


def _options(text: str, where: str) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for name, value in _option_list(text, where):
        options.setdefault(name, []).append(value or "")
    return options


def _option_list(text: str, where: str) -> Iterator[tuple[str, str | None]]:
    position = 0
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None:
            raise SourceError(f"{where}: a quote or semicolon is missing")
        name, colon, value = match[1].partition(":")
        yield name.strip(), value.strip() if colon else None
        position = match.end()


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


def rule_words(rule: Rule) -> dict[str, str]:
    """Return the words that the box maps a rule's alerts by, from its metadata."""
    found = _METADATA.search(rule.text)
    pairs = (word.strip().partition(" ") for word in found[1].split(",")) if found else ()
    return {name: value for name, _, value in pairs}
