"""Command line `omamori-feed`: from published lists to a checked feed pack, and the operator's questions to it.

`fetch` brings sources up to date, `compile` makes a pack of them, `check` decides whether it may be published; `build`
makes a pack of one directory of own lists, as the demonstration feed is one. `status`, `diff` and `explain` look.

Nothing is decided here. Errors of this package become ``error:`` and ``hint:`` on stderr and exit status 1; wrong
usage is 2, Ctrl-C is 130.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from omamori_protocol.durable import write_atomic
from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_manifest import FeedManifest
from omamori_protocol.topics import check_channel

from .applications import read_applications
from .assembly import Ingredients, assemble
from .book_writer import write_book
from .catalogue import read_catalogue
from .cli_book import add_book_commands
from .compiler import CompiledFeed, compile_feed, parse_created
from .download import Downloader, Limits
from .engine import Engine
from .errors import CheckError, EngineError, FeedError, SourceError
from .explain import compare_serials
from .fetch import Fetcher, FetchReport
from .history import History
from .increment_writer import write_increment
from .own_history import record_own_feed
from .pack_reader import read_pack
from .pack_writer import write_pack
from .policy import read_policy
from .publication_check import CheckPlan, check_pack
from .source_store import SourceStore

# In the source tree the data stands beside the package.
_DATA = Path(__file__).resolve().parents[1]


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
    if options.book is not None and options.history is None:
        raise SourceError("--book needs --history", hint="since when something is in is told by the serials before")
    pack = write_pack(feed.manifest, feed.files)
    write_atomic(options.out, pack)
    if options.history is not None:
        record_own_feed(options.source, feed, History(options.history))
    if options.book is not None:
        write_book(History(options.history), options.serial, options.book)
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


def _found_engine(options: argparse.Namespace) -> Engine | None:
    """Return the engine that was given, or the one of this machine; None only if the user wants none."""
    if options.without_engine:
        return None
    engine = _engine(options)
    program = shutil.which("suricata")
    if engine is None and program is None:
        raise EngineError("no engine found", hint="--engine PROGRAM, --engine-root DIR, or --without-engine")
    return engine or Engine.on_this_machine(Path(program or ""))


def _now() -> str:
    return parse_created(str(int(time.time())))


def _fetch(options: argparse.Namespace) -> None:
    catalogue = read_catalogue(options.sources)
    store = SourceStore(options.store)
    downloader = None if options.offline else Downloader(Limits(total_s=options.timeout))
    fetcher = Fetcher(catalogue, store, downloader, _now)
    if options.accept is not None:
        reports = [fetcher.accept(catalogue.find(options.accept))]
    else:
        wanted = [catalogue.find(name) for name in options.source]
        reports = fetcher.fetch_all(wanted or catalogue.enabled())
    if options.json:
        print(json.dumps([dataclasses.asdict(report) for report in reports], indent=2))
    else:
        for report in reports:
            _print_fetched(report)
    without = [report.source for report in reports if not report.has_copy]
    if without:
        raise SourceError(f"no copy of {', '.join(without)}"[:300], hint="see the reasons above")


def _print_fetched(report: FetchReport) -> None:
    for line in report.bad_lines:
        print(f"warning: {report.source}: {line.file}, line {line.number}: {line.reason}; left out", file=sys.stderr)
    bad = f", {report.bad} bad lines" if report.bad else ""
    print(f"{report.source}: {report.outcome}; {report.used} entries{bad}")
    if report.reason:
        print(f"warning: {report.reason}", file=sys.stderr)


def _compile(options: argparse.Namespace) -> None:
    data = options.sources.parent
    ingredients = Ingredients(
        catalogue=read_catalogue(options.sources),
        policy=read_policy(options.policy or data / "policy.toml"),
        applications=read_applications(options.applications or data / "applications.toml"),
        store=SourceStore(options.store),
        engine=_found_engine(options),
    )
    created = _created(options)
    history = History(options.history or options.store / "history")
    made = assemble(
        ingredients,
        serial=options.serial,
        created=created,
        channel=check_channel(options.channel),
        history=history.write(options.serial, created),
    )
    pack = write_pack(made.manifest, made.files)
    write_atomic(options.out, pack)
    if options.book is not None:
        write_book(history, options.serial, options.book)
    if options.json:
        print(json.dumps({**made.report, "bytes": len(pack)}, indent=2))
        return
    for source in made.report["sources"]:
        for item in source.get("left_out", []):
            print(f"warning: {source['source']}: rule {item['sid']}: {item['reason']}; left out", file=sys.stderr)
    for item in made.manifest.lists:
        print(f"list {item.name}: {item.count} of kind {item.kind}")
    for rules in made.manifest.rules:
        print(f"{rules.path}: {rules.count} rules")
    print(f"taken out by allow-lists: {made.report['allowed']}")
    print(f"{options.out}: serial {options.serial}, channel {options.channel}, {len(pack)} bytes")


def _status(options: argparse.Namespace) -> None:
    store, history = SourceStore(options.store), History(options.history or options.store / "history")
    sources = []
    for source in read_catalogue(options.sources).enabled():
        copy, refusal = store.provenance(source.name), store.refusal(source.name)
        sources.append(
            {
                "source": source.name,
                "licence": source.licence,
                "copy": dataclasses.asdict(copy) if copy else None,
                "refused": dataclasses.asdict(refusal) if refusal else None,
            }
        )
    serials = history.serials()
    entries = history.report(serials[-1])["entries"] if serials else {}
    if options.json:
        print(json.dumps({"sources": sources, "serials": serials, "entries": entries}, indent=2))
        return
    for item in sources:
        print(_status_line(str(item["source"]), store))
    print(f"serials kept: {', '.join(map(str, serials)) or 'none'}")
    print("".join(f"list {name}: {count}\n" for name, count in entries.items()), end="")


def _status_line(name: str, store: SourceStore) -> str:
    copy, refused = store.provenance(name), store.refusal(name)
    words = f"{copy.used} entries, of {copy.fetched}, checked {copy.checked}" if copy else "no copy"
    return f"{name}: {words}" + (f"; REFUSED {refused.at}: {refused.reason}" if refused else "")


def _diff(options: argparse.Namespace) -> None:
    change = compare_serials(History(options.history), options.old, options.new)
    if options.json:
        print(json.dumps(change, indent=2))
        return
    for name, source in change["sources"].items():
        print(f"source {name}: {source}")
    for name, item in [*change["lists"].items(), ("rules", change["rules"])]:
        if item["added"] or item["removed"]:
            print(f"{name}: +{item['added']} -{item['removed']}")
            print("".join(f"  + {entry}\n" for entry in item["added_first"]), end="")
            print("".join(f"  - {entry}\n" for entry in item["removed_first"]), end="")


def _load(path: Path) -> tuple[FeedManifest, dict[str, bytes]]:
    if path.is_dir():
        feed = compile_feed(path, serial=1, created=parse_created("0"), channel="check")
        _report(feed)
        return feed.manifest, dict(feed.files)
    return read_pack(path)


def _check(options: argparse.Namespace) -> None:
    manifest, files = _load(options.what)
    engine = _engine(options)
    if engine is None and (options.cases is not None or options.probes):
        raise EngineError("cases and probes need an engine", hint="--engine PROGRAM or --engine-root DIR")
    plan = CheckPlan(
        engine=engine,
        popular=tuple(options.popular),
        board=options.board,
        budget=read_policy(options.policy).budget if options.board is not None else None,
        cases=options.cases,
        probes=options.probes,
    )
    report = check_pack(manifest, files, plan)
    if options.json:
        print(json.dumps(dataclasses.asdict(report), indent=2))
        return
    cost = report.cost
    print(f"estimate: {cost.steady_mib} MiB, {cost.peak_mib} MiB while reloading, {cost.load_s} s to load")
    if report.engine_load_s is not None:
        print(f"engine here: {report.engine_peak_mib} MiB, {report.engine_load_s} s")
    for sid, reason in sorted(report.expensive.items()):
        print(f"warning: rule {sid} costs too much: {reason}", file=sys.stderr)
    asked = "the engine loads it" if engine else "the engine was not asked (--engine)"
    print(f"{options.what}: good ({', '.join(report.done)}); {asked}")


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
    command.add_argument("--history", metavar="DIR", type=Path, help="keep what each entry comes from, for `explain`")
    command.add_argument("--book", metavar="FILE", type=Path, help="also write what `explain` knows, for the cloud")
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
    command.add_argument(
        "--popular", metavar="FILE", type=Path, action="append", default=[], help="sites never blocked"
    )
    command.add_argument("--cases", metavar="DIR", type=Path, help="play these cases to the engine")
    command.add_argument("--probes", action="store_true", help="play entries of every list to the engine")
    command.add_argument("--board", metavar="TOML", type=Path, help="board whose limits the pack must keep")
    command.add_argument("--policy", metavar="TOML", type=Path, default=_DATA / "policy.toml", help="for its budget")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_check)
    _add_operator_commands(commands)
    return parser


def _add_operator_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("fetch", help="bring the copies of sources up to date")
    _add_store(command)
    command.add_argument("--source", metavar="NAME", action="append", default=[], help="only this one; repeatable")
    command.add_argument("--accept", metavar="NAME", help="take the copy of this source that was refused last")
    command.add_argument("--offline", action="store_true", help="only sources that are files of this machine")
    command.add_argument("--timeout", metavar="SECONDS", type=float, default=300.0, help="per source (%(default)s)")
    command.set_defaults(run=_fetch)

    command = commands.add_parser("compile", help="make a feed pack of the copies of all sources")
    _add_store(command)
    command.add_argument("--policy", metavar="TOML", type=Path, help="default: beside the catalogue")
    command.add_argument("--applications", metavar="TOML", type=Path, help="default: beside the catalogue")
    command.add_argument("--serial", type=int, required=True, help="serial of the pack; boxes only go forward")
    command.add_argument("--out", type=Path, required=True, help="pack to write")
    command.add_argument("--channel", default="demo", help="feed channel (default: %(default)s)")
    command.add_argument("--created", metavar="TIME", help="RFC 3339 time or seconds; default SOURCE_DATE_EPOCH or now")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--engine", metavar="PROGRAM", type=Path, help="default: `suricata` on the PATH")
    where.add_argument("--engine-root", metavar="DIR", type=Path, help="the engine of an unpacked Debian root")
    where.add_argument("--without-engine", action="store_true", help="take rules over that no engine has seen")
    command.add_argument("--book", metavar="FILE", type=Path, help="also write what `explain` knows, for the cloud")
    command.set_defaults(run=_compile)

    command = commands.add_parser("status", help="show copies of sources, refusals, and the newest pack")
    _add_store(command)
    command.set_defaults(run=_status)

    command = commands.add_parser("diff", help="show what changed between two serials")
    command.add_argument("old", metavar="OLD_SERIAL", type=int)
    command.add_argument("new", metavar="NEW_SERIAL", type=int)
    command.add_argument("--history", metavar="DIR", type=Path, required=True, help="kept by `compile`")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_diff)
    add_book_commands(commands)


def _add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--sources", metavar="TOML", type=Path, default=_DATA / "sources.toml", help="catalogue (default: %(default)s)"
    )
    command.add_argument("--store", metavar="DIR", type=Path, required=True, help="copies of sources")
    command.add_argument("--history", metavar="DIR", type=Path, help="of packs (default: STORE/history)")
    command.add_argument("--json", action="store_true", help="print JSON")


def _details(err: Exception) -> tuple[str, ...]:
    if isinstance(err, EngineError):
        return err.reasons
    return err.findings if isinstance(err, CheckError) else ()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (FeedError, ProtocolError) as err:
        print(f"error: {err}", file=sys.stderr)
        for reason in _details(err):
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
