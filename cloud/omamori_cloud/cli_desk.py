"""`omamori-cloud explain` and `omamori-cloud reports`: what the pages about feeds do, for scripts and terminals."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from .as_json import explanation_object, report_object
from .cli_output import local_time, print_json, print_table
from .clock import system_clock, to_rfc3339
from .config import CloudConfig
from .errors import QueryError, SetupError
from .feed_shelf import FeedShelf, look_up_standing
from .page.api import report_query
from .reports import MAX_NAME, MAX_NOTE, Decision, ReportState, ask, one_line
from .store.database import check_schema, open_database
from .store.reader import Reader
from .store.reports import MAX_PAGE, ReportStore


def add_desk_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands; `common` has the option for the configuration."""
    explain = commands.add_parser("explain", parents=[common], help="say why something is blocked, by the feed book")
    explain.add_argument("indicator", metavar="INDICATOR", help="domain, address, URL, SHA-256, or id of a rule")
    explain.add_argument("--json", action="store_true", help="for scripts: the object of /api/v1/explain")

    group = commands.add_parser("reports", help="reports of false alarms").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    listing = group.add_parser("list", parents=[common], help="list them, newest first")
    listing.add_argument("--json", action="store_true", help="for scripts: the object of /api/v1/reports")
    listing.add_argument("--state", metavar="WORD", help="open, accepted or refused")
    listing.add_argument("--before", metavar="NUMBER", help="continue where an answer's `next` says")
    listing.add_argument("--limit", metavar="N", help=f"at most so many (1-{MAX_PAGE}, normally 50)")
    for word, what in (("accept", "leave it out of the next feed"), ("refuse", "leave everything as it is")):
        decide = group.add_parser(word, parents=[common], help=what)
        decide.add_argument("number", metavar="NUMBER", type=int, help="of the report")
        decide.add_argument("--reason", default="", help="for the customer and for later")
        decide.add_argument("--by", default="", help="who decides")
        if word == "accept":
            decide.add_argument("--as", dest="indicator", metavar="INDICATOR", help="leave this out instead")
    export = group.add_parser("export", parents=[common], help="write what `omamori-feed compile` leaves out")
    export.add_argument("--out", metavar="FILE", type=Path, required=True, help="for example own/reports.tsv")


def _explain(config: CloudConfig, arguments: argparse.Namespace) -> int:
    shelf = FeedShelf(config.feed.book)
    question = ask(arguments.indicator)
    facts, found = shelf.facts(), shelf.explain(question)
    if arguments.json:
        body = {"as_of": to_rfc3339(system_clock()), "feed": dataclasses.asdict(facts)}
        print_json({**body, **explanation_object(found)})
        return 0
    print(f"{found.indicator}: {found.verdict} (serial {found.serial})")
    rows = [
        (match.action, match.function, "★" * match.severity, match.entry, match.list, f"since {match.since_serial}",
         ", ".join(source.source for source in match.sources))
        for match in found.matches
    ]  # fmt: skip
    rows += [
        ("left out", "", "", item.entry, item.list, f"since {item.since_serial}",
         f"report {item.report}" if item.report else item.allow_list)
        for item in found.allowed
    ]  # fmt: skip
    if found.rule is not None:
        rule = found.rule
        since = f"since {rule.since_serial}"
        rows.append((rule.action, rule.function, "★" * rule.severity, str(rule.sid), rule.source, since, rule.message))
    print_table(("action", "function", "", "entry", "list", "serial", "source"), rows)
    return 0


def _open(config: CloudConfig) -> tuple[Reader, ReportStore]:
    engine = open_database(config.database_url, password_file=config.database_password_file, lasting=False)
    check_schema(engine)
    return Reader(engine), ReportStore(engine, allow_file=config.feed.allow_file)


def _reports(config: CloudConfig, arguments: argparse.Namespace) -> int:
    reader, store = _open(config)
    match arguments.action:
        case "list":
            _list(reader, store, FeedShelf(config.feed.book), arguments)
        case "export":
            try:
                count = store.export(arguments.out)
            except OSError as err:
                raise SetupError(f"{arguments.out}: {err.strerror}") from err
            print(f"{arguments.out}: {count} accepted reports")
        case word:
            _decide(store, arguments, ReportState.ACCEPTED if word == "accept" else ReportState.REFUSED)
    return 0


def _list(reader: Reader, store: ReportStore, shelf: FeedShelf, arguments: argparse.Namespace) -> None:
    given = {name: getattr(arguments, name) for name in ("state", "before", "limit")}
    query = report_query({name: value for name, value in given.items() if value is not None})
    boxes = reader.boxes()
    found = [
        (report, look_up_standing(report, shelf, boxes))
        for report in store.reports(query.state, before=query.before, limit=query.limit)
    ]
    if arguments.json:
        following = found[-1][0].number if len(found) == query.limit else None
        reports = [report_object(report, where) for report, where in found]
        print_json({"as_of": to_rfc3339(system_clock()), "reports": reports, "next": following})
        return
    rows = [
        (
            str(report.number),
            local_time(report.created_ms),
            report.indicator,
            where.progress.value,
            str(where.serial or ""),
            report.device,
            report.reporter,
            report.note,
        )
        for report, where in found
    ]
    print_table(("no.", "time (JST)", "about", "progress", "since feed", "box", "by", "note"), rows)


def _decide(store: ReportStore, arguments: argparse.Namespace, state: ReportState) -> None:
    report = store.report(arguments.number) if 0 < arguments.number < 2**31 else None
    if report is None:
        raise QueryError("number", f"there is no report {arguments.number}")
    if state is ReportState.REFUSED and not arguments.reason.strip():
        raise QueryError("reason", "is missing", hint="--reason tells the customer why")
    by, reason = one_line(arguments.by, MAX_NAME), one_line(arguments.reason, MAX_NOTE)
    decision = Decision(state=state, by=by, reason=reason)
    if state is ReportState.ACCEPTED:
        question = ask(arguments.indicator or report.indicator)
        decision = dataclasses.replace(decision, kind=question.kind, indicator=question.indicator)
    try:
        store.decide(report.number, decision, system_clock())
    except OSError as err:
        raise SetupError(f"decided, but feed.allow_file cannot be written: {err.strerror}") from err
    print(f"report {report.number}: {state.word}")


DESK_COMMANDS = {"explain": _explain, "reports": _reports}
