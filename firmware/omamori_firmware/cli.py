"""The command `omamori-image`: build an image, renew the package locks, personalise a disk, run a tool.

It parses, prints and turns errors into exit codes; the work is done elsewhere.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape

from omamori_firmware import factory, supervisor
from omamori_firmware.build import FLAVOURS, Builder, BuildRequest, stage_count
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.errors import ImageError
from omamori_firmware.progress import Reporter
from omamori_firmware.recipe import source_tree
from omamori_firmware.tools import find_tools
from omamori_hw.board import list_boards, load_board
from omamori_hw.errors import HardwareError

_BOARD = "x86_64-uefi"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return int(options.handler(options))
    except (ImageError, HardwareError) as err:
        _fail(err)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _build(options: argparse.Namespace) -> int:
    tree = source_tree()
    name = options.flavour if options.board == _BOARD else f"{options.board}-{options.flavour}"
    out = options.out or tree.top / "build" / "image" / name
    request = BuildRequest(
        board=options.board,
        flavour=options.flavour,
        trust=options.trust.resolve(),
        signing_key=options.secureboot_key.resolve(),
        out=out.resolve(),
        version=options.version,
        allow_drift=options.allow_drift,
    )
    total = stage_count(load_board(tree.boards / options.board))
    with Reporter(total=total, quiet=options.json) as reporter:
        manifest = Builder(tree, Cache(default_directory()), reporter).build(request)
    if options.json:
        print(json.dumps({"out": str(request.out), **manifest}, sort_keys=True))
        return 0
    megabytes = manifest["files"]["root.erofs"]["size"] / 1e6
    print(f"image {manifest['version']} ({manifest['flavour']}, {manifest['board']}): {request.out}")
    print(f"root file system {megabytes:.1f} MB, roothash {manifest['roothash']}")
    return 0


def _lock(options: argparse.Namespace) -> int:
    tree = source_tree()
    board = load_board(tree.boards / options.board)
    changes: dict[str, list[str]] = {}
    with Reporter(total=5, quiet=options.json) as reporter:
        builder = Builder(tree, Cache(default_directory()), reporter)
        changes["tools"] = builder.renew_lock("tools")
        changes |= builder.renew_board_locks(board)
        changes["supervisor"] = builder.renew_lock("supervisor")
        changes["broker"] = builder.renew_lock("broker")
        changes["tpm"] = builder.renew_lock("tpm")
    if options.json:
        print(json.dumps(changes, sort_keys=True))
        return 0
    for name, lines in changes.items():
        print(f"{name}.lock: {len(lines)} changes")
        for line in lines:
            print(f"  {line}")
    return 0


def _supervisor(options: argparse.Namespace) -> int:
    tree = source_tree()
    out = options.out or tree.top / "build" / "supervisor"
    with Reporter(total=1, quiet=options.json) as reporter, reporter.stage("supervisor") as stage:
        built = supervisor.build_supervisor(tree, Cache(default_directory()), stage.note)
        stage.cached = built.cached
        manifest = supervisor.publish(built, out.resolve())
        if built.drift:
            reporter.warn(f"{len(built.drift)} packages are not the locked ones; renew them: omamori-image lock")
    if options.json:
        print(json.dumps({"out": str(out.resolve()), **manifest}, sort_keys=True))
    else:
        print(f"supervisor firmware (MicroPython {manifest['micropython']}): {out.resolve()}")
    return 0


def _factory(options: argparse.Namespace) -> int:
    tools = find_tools(source_tree(), Cache(default_directory()))
    serial = factory.personalise(options.artifacts, options.provision, options.out, tools, Cache(default_directory()))
    if options.json:
        print(json.dumps({"disk": str(options.out), "serial": serial}, sort_keys=True))
    else:
        print(f"disk of {serial}: {options.out}")
    return 0


def _enter(options: argparse.Namespace) -> int:
    tools = find_tools(source_tree(), Cache(default_directory()))
    line = tools.command(options.program, binds=[path.resolve() for path in options.bind])
    os.execv(line[0], line)  # noqa: S606 - it takes our place, with our standard input and output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omamori-image", description="Build the firmware image, renew its package locks, personalise disks."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    boards = list_boards(source_tree().boards)

    build = commands.add_parser("build", help="build an image into an artifact directory")
    build.add_argument("--flavour", choices=FLAVOURS, default="release", help="default: %(default)s")
    build.add_argument("--trust", type=Path, required=True, metavar="DIR", help="public keys, from omamori-ota keys")
    build.add_argument(
        "--secureboot-key", type=Path, required=True, metavar="FILE", help="private key that signs the kernel image"
    )
    build.add_argument(
        "--out", type=Path, metavar="DIR", help="default: build/image/<flavour>, for other boards <board>-<flavour>"
    )
    build.add_argument("--version", metavar="V", help="product version; default: that of this repository")
    build.add_argument("--allow-drift", action="store_true", help="accept packages that are not the locked ones")
    build.set_defaults(handler=_build)

    lock = commands.add_parser("lock", help="lock the newest packages of the mirror, for one board")
    lock.set_defaults(handler=_lock)

    chip = commands.add_parser("supervisor", help="build the firmware of the microcontroller that holds the wire")
    chip.add_argument("--out", type=Path, metavar="DIR", help="default: build/supervisor")
    chip.set_defaults(handler=_supervisor)

    personal = commands.add_parser("factory", help="make one device's disk from an image")
    personal.add_argument("artifacts", type=Path, metavar="ARTIFACTS", help="artifact directory of a build")
    personal.add_argument("--provision", type=Path, required=True, metavar="FILE", help="the device's provision.json")
    personal.add_argument("--out", type=Path, required=True, metavar="DISK", help="disk file to write")
    personal.set_defaults(handler=_factory)

    enter = commands.add_parser("enter", help="run a program of the tools tree")
    enter.add_argument("--bind", type=Path, action="append", default=[], metavar="DIR", help="directory it may see")
    enter.add_argument("program", nargs="+", metavar="PROGRAM", help="after --: the program and its arguments")
    enter.set_defaults(handler=_enter)

    for command in (build, lock):
        command.add_argument("--board", choices=boards, default=_BOARD, help="default: %(default)s")
    for command in (build, lock, chip, personal):
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _fail(err: ImageError | HardwareError) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error:[/bold red] {escape(str(err))}")
    hint = getattr(err, "hint", None)
    if hint:
        console.print(f"[bold]hint:[/bold] {escape(hint)}")


def _terminated(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
