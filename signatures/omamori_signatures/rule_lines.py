"""Reads the rules of a source, active ones and those that its author has switched off.

A rule that is switched off (``#alert …``) is read as well, because an active one may depend on it (`flowbits`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .archive import open_members
from .catalogue import Source
from .errors import SourceError
from .rules import MAX_RULE_BYTES, ParsedRule, split_rule
from .tokens import read_lines

MAX_RULES = 200_000

_SWITCHED_OFF = re.compile(r"#+\s*(?=(?:alert|drop|pass|reject)\s)")
_LOOKS_LIKE_RULE = re.compile(r"(?:alert|drop|pass|reject[a-z]*|config)\s")


class RuleLine(NamedTuple):
    """A rule of a source."""

    file: str
    number: int
    is_active: bool
    rule: ParsedRule


def read_rule_lines(source: Source, path: Path, report: Callable[[str, int, str], None]) -> Iterator[RuleLine]:
    """Yield the rules of a copy of a source.

    Args:
        source: Says which files are left out.
        path: File, directory or archive.
        report: Told file, number and reason of each bad line.

    Raises:
        SourceError: It cannot be read, is not intact, or has too many rules.
    """
    count = 0
    with open_members(path) as members:
        for member in members:
            name = member.name.rpartition("/")[2]
            is_rules = name.endswith(".rules") or member.name == path.name
            if not is_rules or name in source.skip_files:
                continue
            for number, line in read_lines(member.stream):
                parsed = _line(line, number, name, report)
                if parsed is not None:
                    count += 1
                    if count > MAX_RULES:
                        raise SourceError(f"source {source.name}: more than {MAX_RULES} rules")
                    yield parsed


def _line(line: str | None, number: int, name: str, report: Callable[[str, int, str], None]) -> RuleLine | None:
    if line is None:
        report(name, number, f"longer than {MAX_RULE_BYTES} bytes, or not UTF-8")
        return None
    text = _SWITCHED_OFF.sub("", line, count=1)
    is_active = text == line
    if not line or (is_active and line.startswith("#")) or not (is_active or _LOOKS_LIKE_RULE.match(text)):
        return None
    try:
        rule = split_rule(text, f"{name}, line {number}")
    except SourceError as err:
        if is_active:
            report(name, number, str(err).partition(": ")[2] or str(err))
        return None
    return RuleLine(name, number, is_active, rule)
