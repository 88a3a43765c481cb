"""``omamori-cloud``: start the cloud, prepare its database, read its store."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .as_json import alert_object, box_object, diagnostics_object, event_object, ledger_object, sums_object
from .cli_broker import add_broker_commands, write_broker_files
from .cli_desk import DESK_COMMANDS, add_desk_commands
from .cli_output import local_time, print_json, print_table
from .cli_store import STORE_COMMANDS, add_store_commands
from .clock import system_clock, to_rfc3339
from .config import CloudConfig, load_config
from .daemon import Daemon
from .errors import CloudError, QueryError
from .health import assess
from .ingest_worker import IngestWorker
from .page.api import alert_query, ledger_query
from .store.database import check_schema, migrate, open_database
from .store.queries import MAX_ALERTS, MAX_LEDGER
from .store.reader import Reader

_DESCRIPTION = """\
The cloud behind Omamori boxes: takes in what they say (MQTT), keeps it (SQLite or PostgreSQL), shows it (HTTP).

The page has no login in this version: it listens on the loopback address unless --allow-remote is given.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omamori-cloud", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration (TOML)")

    serve = commands.add_parser("serve", parents=[common], help="take in messages and serve the page until stopped")
    serve.add_argument("--listen", metavar="ADDRESS", help="instead of the configured one: 127.0.0.1:8080 or fd://3")
    serve.add_argument(
        "--allow-remote",
        action="store_true",
        help="allow an address that other machines can reach; put your own login in front of it",
    )
    serve.add_argument("--verbose", action="store_true", help="log every step")

    ingest = commands.add_parser("ingest", parents=[common], help="take in messages as one more worker until stopped")
    ingest.add_argument("--worker", metavar="NAME", required=True, help="its name, kept for ever: 2, or tokyo-1")
    ingest.add_argument("--retire", action="store_true", help="take in what waits for this name, and give it up")
    ingest.add_argument("--verbose", action="store_true", help="log every step")

    commands.add_parser("migrate", parents=[common], help="bring the database to the newest schema")

    boxes = commands.add_parser("boxes", parents=[common], help="list the boxes and how they are doing")
    boxes.add_argument("--json", action="store_true", help="for scripts: the object of /api/v1/boxes")

    alerts = commands.add_parser("alerts", parents=[common], help="list alerts, newest first")
    alerts.add_argument("--json", action="store_true", help="for scripts: the object of /api/v1/alerts")
    alerts.add_argument("--since", metavar="TIME", help="2026-01-31T09:00:00Z, or back from now: 90s, 10m, 2h, 3d")
    alerts.add_argument("--device", metavar="ID", help="of this box only")
    alerts.add_argument("--terminal", metavar="ADDRESS", help="of this terminal only: an IP or MAC address")
    alerts.add_argument("--function", metavar="WORD", help="for example virus, ips, dangerous-site, category")
    alerts.add_argument("--severity", metavar="N", help="at least so many stars (1-3)")
    alerts.add_argument("--before", metavar="PLACE", help="continue where an answer's `next` says")
    alerts.add_argument("--limit", metavar="N", help=f"at most so many (1-{MAX_ALERTS}, normally 100)")

    events = commands.add_parser("events", parents=[common], help="list feed and system events, newest first")
    events.add_argument("--json", action="store_true", help="for scripts: the object of /api/v1/events")

    told = commands.add_parser(
        "diagnostics", parents=[common], help="print what a box last told about itself, when it was asked"
    )
    told.add_argument("--device", metavar="ID", required=True, help="the box")

    ledger = commands.add_parser("ledger", parents=[common], help="list what passed a box uninspected, newest first")
    ledger.add_argument("--json", action="store_true", help="for scripts: the object of /api/v1/ledger")
    ledger.add_argument("--device", metavar="ID", required=True, help="the box")
    ledger.add_argument("--since", metavar="TIME", help="as for alerts")
    ledger.add_argument("--before", metavar="PLACE", help="continue where an answer's `next` says")
    ledger.add_argument("--limit", metavar="N", help=f"at most so many (1-{MAX_LEDGER}, normally 100)")
    add_desk_commands(commands, common)
    add_store_commands(commands, common)
    add_broker_commands(commands)
    return parser


def _log(*, verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def _run_until_told(work: Daemon | IngestWorker) -> int:
    received: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        received.append(number)
        work.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    work.run()
    return 130 if received and received[0] == signal.SIGINT else 0


def _serve(config: CloudConfig, arguments: argparse.Namespace) -> int:
    _log(verbose=arguments.verbose)
    daemon = Daemon(config, allow_remote=arguments.allow_remote)
    print(f"omamori-cloud: ready page={daemon.address}", flush=True)
    return _run_until_told(daemon)


def _ingest(config: CloudConfig, arguments: argparse.Namespace) -> int:
    _log(verbose=arguments.verbose)
    return _run_until_told(IngestWorker(config, arguments.worker, retire=arguments.retire))


def _migrate(config: CloudConfig, _arguments: argparse.Namespace) -> int:
    engine = open_database(config.database_url, password_file=config.database_password_file, lasting=False)
    before, after = migrate(engine)
    print(f"schema {after}" if before == after else f"schema {before or 'none'} -> {after}")
    return 0


def _reader(config: CloudConfig) -> Reader:
    engine = open_database(config.database_url, password_file=config.database_password_file, lasting=False)
    check_schema(engine)
    return Reader(engine)


def _boxes(config: CloudConfig, arguments: argparse.Namespace) -> int:
    reader, now_ms = _reader(config), system_clock()
    judged = [(box, assess(box, now_ms=now_ms, offline_after_s=config.offline_after_s)) for box in reader.boxes()]
    if arguments.json:
        objects = [box_object(box, health, config.names.get(box.device)) for box, health in judged]
        print_json({"as_of": to_rfc3339(now_ms), "boxes": objects})
        return 0
    rows = [
        (
            box.device,
            config.names.get(box.device, ""),
            "online" if health.online else "offline",
            ", ".join(health.findings) or "protecting",
            f"{box.firmware or '?'} ({box.slot.name if box.slot else '?'})",
            f"{box.feed_serial or '?'} {box.feed_state.word if box.feed_state is not None else ''}",
            local_time(box.last_contact_ms),
        )
        for box, health in judged
    ]
    print_table(("box", "name", "presence", "health", "firmware", "feed", "last contact"), rows)
    return 0


_ALERT_PARAMETERS = ("since", "device", "terminal", "function", "severity", "before", "limit")


def _alerts(config: CloudConfig, arguments: argparse.Namespace) -> int:
    given = {name: getattr(arguments, name) for name in _ALERT_PARAMETERS}
    now_ms = system_clock()
    query = alert_query({name: value for name, value in given.items() if value is not None}, now_ms)
    page = _reader(config).alerts(query)
    if arguments.json:
        print_json(
            {
                "as_of": to_rfc3339(now_ms),
                "alerts": [alert_object(alert) for alert in page.alerts],
                "next": None if page.next is None else str(page.next),
            }
        )
        return 0
    rows = []
    for alert in page.alerts:
        arrow = {"in": "<-", "out": "->"}.get(alert.direction.word if alert.direction else "", "--")
        rows.append(
            (
                local_time(alert.occurred_ms),
                alert.device,
                alert.severity.stars,
                alert.function.word if alert.function else "",
                f"{alert.terminal_ip or '?'} {arrow} {alert.destination or alert.remote_ip or '?'}",
                alert.action.word if alert.action else "",
                alert.rule or "",
                str(alert.count),
            )
        )
    print_table(("time (JST)", "box", "", "function", "terminal and other side", "action", "rule", "count"), rows)
    return 0


def _events(config: CloudConfig, arguments: argparse.Namespace) -> int:
    events = _reader(config).happenings(100)
    if arguments.json:
        print_json({"as_of": to_rfc3339(system_clock()), "events": [event_object(event) for event in events]})
        return 0
    rows = [
        (
            local_time(event.occurred_ms),
            event.device,
            event.kind.word,
            f"{event.feed_serial} {event.feed_state.word}" if event.feed_state is not None else "",
            event.text or "",
        )
        for event in events
    ]
    print_table(("time (JST)", "box", "kind", "feed", "text"), rows)
    return 0


def _diagnostics(config: CloudConfig, arguments: argparse.Namespace) -> int:
    found = _reader(config).diagnostics(arguments.device)
    if found is None:
        raise QueryError(
            "device",
            f"{arguments.device[:40]!r} has told nothing about itself",
            hint="omamori-ota command diagnostics asks it",
        )
    print_json(diagnostics_object(found))
    return 0


_LEDGER_PARAMETERS = ("since", "device", "before", "limit")


def _ledger(config: CloudConfig, arguments: argparse.Namespace) -> int:
    given = {name: getattr(arguments, name) for name in _LEDGER_PARAMETERS}
    now_ms = system_clock()
    query = ledger_query({name: value for name, value in given.items() if value is not None}, now_ms)
    reader = _reader(config)
    page = reader.ledger(query)
    if arguments.json:
        print_json(
            {
                "as_of": to_rfc3339(now_ms),
                "device": query.device,
                "sums": sums_object(reader.ledger_sums(query.device, query.since_ms)),
                "entries": [ledger_object(entry) for entry in page.entries],
                "next": None if page.next is None else str(page.next),
            }
        )
        return 0
    rows = [
        (
            local_time(entry.occurred_ms),
            entry.reason.word,
            str(entry.seconds),
            str(entry.packets),
            str(entry.size_bytes),
        )
        for entry in page.entries
    ]
    print_table(("time (JST)", "reason", "seconds", "packets", "bytes"), rows)
    return 0


_COMMANDS = {
    "serve": _serve,
    "ingest": _ingest,
    "migrate": _migrate,
    "boxes": _boxes,
    "alerts": _alerts,
    "events": _events,
    "diagnostics": _diagnostics,
    "ledger": _ledger,
    **DESK_COMMANDS,
    **STORE_COMMANDS,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "broker-files":
            return write_broker_files(arguments)
        config = load_config(arguments.config)
        if getattr(arguments, "listen", None):
            config = dataclasses.replace(config, listen=arguments.listen)
        return _COMMANDS[arguments.command](config, arguments)
    except CloudError as err:
        print(f"error: {err}", file=sys.stderr)
        if err.hint:
            print(f"hint: {err.hint}", file=sys.stderr)
        return 2 if isinstance(err, QueryError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
