"""`omamori-agent`: runs the daemon, or tells from the files on disk how the box is.

What only a command line needs is imported where it is used: the daemon keeps for its whole life what it imports.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .config import Paths, load_config
from .errors import AgentError

if TYPE_CHECKING:
    import argparse

_EXIT_ERROR = 1
_EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["run"]:  # as the unit says it; without argparse, which costs more than a MiB
        return _guard(lambda: _run(Path("/"), logging.INFO))
    parsed = _parser().parse_args(arguments)
    return _guard(lambda: parsed.command(parsed))


def _guard(command: Callable[[], int]) -> int:
    try:
        return command()
    except AgentError as err:
        print(f"error: {err}", file=sys.stderr)
        if err.hint:
            print(f"hint: {err.hint}", file=sys.stderr)
        return _EXIT_ERROR
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415 - see the module's docstring

    parser = argparse.ArgumentParser(prog="omamori-agent", description="The daemon on an Omamori box.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the daemon", description="Run the daemon until SIGTERM.")
    run.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="take DIR for the root directory")
    run.add_argument("--verbose", action="store_true", help="log every step")
    run.set_defaults(command=lambda args: _run(args.root, logging.DEBUG if args.verbose else logging.INFO))

    status = commands.add_parser(
        "status",
        help="tell how the box is",
        description="Tell from the files on disk who the box is, which feed it has and how many events wait.",
    )
    status.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="take DIR for the root directory")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=lambda args: _status(args.root, as_json=args.json))
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - the daemon never needs it

    try:
        return version("omamori")
    except PackageNotFoundError:
        return "(part of the image; see: omamori-agent status)"


def _run(root: Path, level: int) -> int:
    from . import app  # noqa: PLC0415 - `status` and `--help` need not load the daemon
    from .notify import Notifier  # noqa: PLC0415

    in_journal = "JOURNAL_STREAM" in os.environ  # which knows the time itself
    prefix = "" if in_journal else "%(asctime)s %(levelname)s "
    logging.basicConfig(level=level, format=prefix + "%(threadName)s: %(message)s")
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # whoever called it says what failed, and better
    notifier = Notifier.from_environment(os.environ)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return app.run(load_config(root), notifier, stop)


def _status(root: Path, *, as_json: bool) -> int:
    import json  # noqa: PLC0415

    from .report import box_report, render_report  # noqa: PLC0415

    report = box_report(Paths(root))
    print(json.dumps(report, indent=2) if as_json else render_report(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
