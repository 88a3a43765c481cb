"""`omamori-feed explain` and `omamori-feed book`: why something is blocked, and the file that tells others."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from omamori_protocol.feed_book import Explanation, FeedBook

from .book_writer import write_book
from .errors import SourceError
from .explain import Explainer, ask
from .history import History
from .indicators import DomainRules


def add_book_commands(commands: Any) -> None:
    """Add the commands to the command line."""
    command = commands.add_parser("explain", help="why is this blocked, since when, from which source")
    command.add_argument("indicator", metavar="INDICATOR", help="domain, address, URL, SHA-256, or id of a rule")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--history", metavar="DIR", type=Path, help="kept by `compile`")
    where.add_argument("--book", metavar="FILE", type=Path, help="the file that `book` or `compile --book` wrote")
    command.add_argument("--serial", type=int, help="of the history; default: the newest")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_explain)

    command = commands.add_parser("book", help="write what `explain` knows of a serial to one file, for the cloud")
    command.add_argument("--history", metavar="DIR", type=Path, required=True, help="kept by `compile`")
    command.add_argument("--serial", type=int, help="default: the newest")
    command.add_argument("--out", metavar="FILE", type=Path, required=True, help="book to write")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_book)


def _explain(options: argparse.Namespace) -> None:
    if options.book is not None:
        if options.serial is not None:
            raise SourceError("a book tells of one serial only", hint="leave out --serial")
        found = FeedBook(options.book).explain(ask(options.indicator, DomainRules()))
    else:
        history = History(options.history)
        found = Explainer(history, options.serial or history.latest()).explain(options.indicator)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        _print(found)


def _print(found: Explanation) -> None:
    print(f"{found.indicator}: {found.verdict} (serial {found.serial})")
    for match in found.matches:
        stars = "★" * match.severity
        print(f"  {match.action} as {match.function} {stars}: {match.entry} is in list {match.list}")
        print(f"    since {match.since} (serial {match.since_serial})")
        for source in match.sources:
            about = f"{source.attribution}; {source.licence}"
            print(f"    from {source.source} ({about}), copy of {source.fetched}")
    for item in found.allowed:
        because = f" because of report {item.report}" if item.report else ""
        print(f"  left out of {item.list} since serial {item.since_serial}{because}:")
        print(f"    {item.allow_list} keeps {item.allowed} reachable; listed by {item.sources}")
    if found.rule is not None:
        rule = found.rule
        meaning = f" as {rule.function} {'★' * rule.severity}" if rule.function else ""
        print(f"  rule of {rule.source}{meaning}: {rule.action}: {rule.message}")
        if rule.since:
            print(f"    since {rule.since} (serial {rule.since_serial})")


def _book(options: argparse.Namespace) -> None:
    history = History(options.history)
    serial = options.serial or history.latest()
    size = write_book(history, serial, options.out)
    if options.json:
        print(json.dumps({"serial": serial, "bytes": size}))
    else:
        print(f"{options.out}: book of serial {serial}, {size} bytes")
