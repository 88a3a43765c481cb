"""`omamori-agent`: runs the daemon, or tells from the files on disk how the box is."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from .config import Paths, load_config
from .errors import AgentError

_EXIT_ERROR = 1
_EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except AgentError as err:
        print(f"error: {err}", file=sys.stderr)
        if err.hint:
            print(f"hint: {err.hint}", file=sys.stderr)
        return _EXIT_ERROR
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="omamori-agent", description="The daemon on an Omamori box.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the daemon", description="Run the daemon until SIGTERM.")
    run.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="take DIR for the root directory")
    run.add_argument("--verbose", action="store_true", help="log every step")
    run.set_defaults(command=_run)

    status = commands.add_parser(
        "status",
        help="tell how the box is",
        description="Tell from the files on disk who the box is, which feed it has and how many events wait.",
    )
    status.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="take DIR for the root directory")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=_status)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - the daemon never needs it

    try:
        return version("omamori")
    except PackageNotFoundError:
        return "(part of the image; see: omamori-agent status)"


def _run(args: argparse.Namespace) -> int:
    from . import app  # noqa: PLC0415 - `status` and `--help` need not load the daemon
    from .notify import Notifier  # noqa: PLC0415

    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO,
        format="%(threadName)s: %(message)s"
        if "JOURNAL_STREAM" in os.environ
        else "%(asctime)s %(levelname)s %(threadName)s: %(message)s",
    )
    notifier = Notifier.from_environment(os.environ)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return app.run(load_config(args.root), notifier, stop)


def _status(args: argparse.Namespace) -> int:
    from .report import box_report, render_report  # noqa: PLC0415 - the daemon never needs it

    report = box_report(Paths(args.root))
    print(json.dumps(report, indent=2) if args.json else render_report(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
