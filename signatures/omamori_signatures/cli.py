"""Command line `omamori-feed`: build a feed pack, show one, check one.

Nothing is decided here. Errors of this package become ``error:`` and ``hint:`` on stderr and exit status 1; wrong
usage is 2, Ctrl-C is 130.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from omamori_protocol.durable import write_atomic
from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_manifest import FeedManifest
from omamori_protocol.topics import check_channel

from .compiler import CompiledFeed, compile_feed, parse_created
from .engine import Engine
from .errors import EngineError, FeedError
from .increment_writer import write_increment
from .pack_reader import check_content, read_pack
from .pack_writer import write_pack


def _created(options: argparse.Namespace) -> str:
    return parse_created(options.created or os.environ.get("SOURCE_DATE_EPOCH") or str(int(time.time())))


def _report(feed: CompiledFeed) -> None:
    for line in feed.bad_lines:
        print(f"warning: {line.file}, line {line.number}: {line.reason}; left out", file=sys.stderr)
    for item in feed.lists:
        print(f"list {item.name}: {item.entries} of kind {item.kind}, {item.folded} folded, {item.bad} bad lines")
    for rules in feed.manifest.rules:
        print(f"{rules.path}: {rules.count} rules")


def _build(options: argparse.Namespace) -> None:
    feed = compile_feed(
        options.source,
        serial=options.serial,
        created=_created(options),
        channel=check_channel(options.channel),
    )
    pack = write_pack(feed.manifest, feed.files)
    write_atomic(options.out, pack)
    if options.json:
        body = {
            "serial": options.serial,
            "bytes": len(pack),
            "lists": [dataclasses.asdict(item) for item in feed.lists],
        }
        print(json.dumps(body, indent=2))
        return
    _report(feed)
    print(f"{options.out}: serial {options.serial}, channel {options.channel}, {len(pack)} bytes")


def _show(options: argparse.Namespace) -> None:
    manifest, _ = read_pack(options.pack)
    if options.json:
        print(manifest.to_json().decode(), end="")
        return
    print(f"serial {manifest.serial}, channel {manifest.channel}, created {manifest.created}")
    print(f"needs engine {manifest.engine_min} or newer")
    for item in manifest.lists:
        category = f" ({item.category})" if item.category else ""
        meaning = f"{item.function.word}{category} {item.severity.stars} {item.action.word}"
        print(f"list {item.name}: {item.count} of kind {item.kind}: {meaning}")
    for rules in manifest.rules:
        print(f"{rules.path}: {rules.count} rules")


def _increment(options: argparse.Namespace) -> None:
    done = write_increment(options.old, options.new, options.out)
    if options.json:
        print(json.dumps(dataclasses.asdict(done), indent=2))
        return
    for path in sorted(done.added):
        print(f"{path}: {done.added[path]} added, {done.removed[path]} removed")
    for path in done.whole:
        print(f"{path}: whole")
    print(f"{options.out}: from serial {done.start} to {done.goal}, {done.size} bytes")


def _engine(options: argparse.Namespace) -> Engine | None:
    if options.engine_root is not None:
        return Engine.in_root(options.engine_root)
    return Engine.on_this_machine(options.engine) if options.engine is not None else None


def _load(path: Path) -> tuple[FeedManifest, dict[str, bytes]]:
    if path.is_dir():
        feed = compile_feed(path, serial=1, created=parse_created("0"), channel="check")
        _report(feed)
        return feed.manifest, dict(feed.files)
    return read_pack(path)


def _check(options: argparse.Namespace) -> None:
    manifest, files = _load(options.what)
    check_content(manifest, files)
    engine = _engine(options)
    if engine is not None:
        engine.test(manifest, files)
    print(f"{options.what}: good; {'the engine loads it' if engine else 'the engine was not asked (--engine)'}")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each command's function stands in `run`."""
    parser = argparse.ArgumentParser(prog="omamori-feed", description="Compiles the threat feed of Omamori.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("build", help="compile a source directory into a feed pack")
    command.add_argument("source", metavar="SOURCE_DIR", type=Path, help="directory with feed.toml, lists/, rules/")
    command.add_argument("--serial", type=int, required=True, help="serial of the pack; boxes only go forward")
    command.add_argument("--out", type=Path, required=True, help="pack to write")
    command.add_argument("--channel", default="demo", help="feed channel (default: %(default)s)")
    command.add_argument("--created", metavar="TIME", help="RFC 3339 time or seconds; default SOURCE_DATE_EPOCH or now")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_build)

    command = commands.add_parser("increment", help="write what changes from one pack to a later one")
    command.add_argument("old", metavar="OLD_PACK", type=Path, help="the pack that is published now")
    command.add_argument("new", metavar="NEW_PACK", type=Path, help="the pack that shall be published")
    command.add_argument("--out", type=Path, required=True, help="increment to write")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_increment)

    command = commands.add_parser("show", help="show what a pack holds")
    command.add_argument("pack", metavar="PACK", type=Path)
    command.add_argument("--json", action="store_true", help="print the manifest")
    command.set_defaults(run=_show)

    command = commands.add_parser("check", help="check a pack or a source directory")
    command.add_argument("what", metavar="PACK|DIR", type=Path)
    where = command.add_mutually_exclusive_group()
    where.add_argument("--engine", metavar="PROGRAM", type=Path, help="also let this engine load it")
    where.add_argument(
        "--engine-root", metavar="DIR", type=Path, help="the same with the engine of an unpacked Debian root"
    )
    command.set_defaults(run=_check)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (FeedError, ProtocolError) as err:
        print(f"error: {err}", file=sys.stderr)
        for reason in err.reasons if isinstance(err, EngineError) else ():
            print(f"  {reason}", file=sys.stderr)
        if err.hint:
            print(f"hint: {err.hint}", file=sys.stderr)
        return 1
    except OSError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0
