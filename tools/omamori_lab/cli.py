"""The command `omamori-lab`: run a lab, list its scenes, clean up after a killed one, measure.

It parses, prints and turns errors into exit codes: 0 everything right, 1 an error or a scene that was not right,
2 wrong usage, 130 (128 + signal) interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape

from omamori_firmware.architecture import architecture
from omamori_hw.board import list_boards, load_board
from omamori_protocol.durable import write_atomic

from . import bench_cli, fleet_cli, machine
from .cleaning import clean
from .display import Display
from .errors import LabError, SetupError
from .lab import Lab
from .results import SceneResult, report
from .scenes import SCENES, choose, play
from .settings import BOARD, TREE, LabSettings

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked the lab to end.

    Attributes:
        signum: Which one.
    """

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    for each in _SIGNALS:  # the way out is not interrupted again
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signum)


def _settings(options: argparse.Namespace) -> LabSettings:
    model = architecture(load_board(TREE / "hw" / "boards" / options.board).platform.arch).model
    if options.tpm and model.tpm is None:
        raise SetupError(f"the lab has no TPM for a box of the board {options.board}", hint="leave out --tpm")
    return LabSettings(
        state=options.state.absolute(),
        image=LabSettings.image_directory(options.board, options.flavour),
        board=options.board,
        flavour=options.flavour,
        page_port=options.page_port,
        supervisor=options.supervisor,
        tpm=options.tpm,
    )


def _require_root() -> None:
    if os.geteuid() != 0:
        raise SetupError("the lab makes network namespaces and needs root", hint="run it as root (sudo)")


def _run(options: argparse.Namespace) -> int:
    scenes = choose(options.scenes)
    if options.flavour != "dev" and not options.scenes:
        scenes = tuple(scene for scene in scenes if not scene.needs_shell)
    _require_root()
    console = Console(highlight=False, soft_wrap=True)
    results: list[SceneResult] = []
    with Display(console, is_japanese=os.environ.get("LANG", "").startswith("ja")) as display:
        lab = Lab(_settings(options), display)
        with lab.running():
            boot = lab.boot()
            display.booted(boot)
            display.page(lab.portal.url, stays=not options.once)
            for scene in scenes:
                display.step(scene.title.en)
                results.append(play(scene, lab))
                display.scene(scene.title, results[-1])
            if options.json is not None:
                body = report(results, durations_s=lab.durations_s, versions=lab.versions(), machine=machine.describe())
                write_atomic(options.json, body)
            if not options.once:
                display.page(lab.portal.url, stays=True)
                while True:
                    time.sleep(3600)
    return 0 if all(result.ok for result in results) else 1


def _list(_options: argparse.Namespace) -> int:
    for scene in SCENES:
        print(f"{scene.name:<15} {scene.title.en} ({scene.title.ja})")
    return 0


def _clean(options: argparse.Namespace) -> int:
    _require_root()
    removed = clean(options.state.absolute())
    for mark in removed.processes:
        print(f"ended {mark.name} (process {mark.pid})")
    for name in removed.namespaces:
        print(f"removed namespace {name}")
    if not removed:
        print("nothing was left")
    return 0


def _bench(options: argparse.Namespace) -> int:
    _require_root()
    return bench_cli.run_bench(options)


def _fleet(options: argparse.Namespace) -> int:
    return fleet_cli.run_fleet(options)


def _scene_names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each command's function stands in `handler`."""
    parser = argparse.ArgumentParser(
        prog="omamori-lab", description="An office, the box and an internet on one machine, with real traffic."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state",
        type=Path,
        default=LabSettings().state,
        metavar="DIR",
        help="where the lab keeps its files (default: build/lab of the repository)",
    )

    command = commands.add_parser("run", parents=[state], help="start a lab, play the scenes, stay until Ctrl-C")
    command.add_argument("--once", action="store_true", help="end after the scenes; status 0 only if all were right")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    command.add_argument(
        "--scenes", type=_scene_names, default=[], metavar="A,B", help="only these (see: omamori-lab list)"
    )
    boards = list_boards(TREE / "hw" / "boards")
    command.add_argument("--board", choices=boards, default=BOARD, help="of the image: %(default)s")
    command.add_argument("--flavour", choices=("dev", "release"), default="dev", help="of the image: %(default)s")
    command.add_argument(
        "--page-port", type=int, default=8080, metavar="PORT", help="of the page on 127.0.0.1: %(default)s; 0: any"
    )
    command.add_argument(
        "--supervisor", action="store_true", help="with the microcontroller that holds the wire, in QEMU as well"
    )
    command.add_argument("--tpm", action="store_true", help="with a TPM, in which the box keeps its key; in software")
    command.set_defaults(handler=_run)

    command = commands.add_parser("list", help="list the scenes")
    command.set_defaults(handler=_list)

    command = commands.add_parser("bench", parents=[state], help="measure and write the figures")
    bench_cli.add_options(command)
    command.set_defaults(handler=_bench)

    command = commands.add_parser("fleet", help="simulate boxes that connect, beat and raise alerts")
    fleet_cli.add_options(command)
    command.set_defaults(handler=_fleet)

    command = commands.add_parser("clean", parents=[state], help="remove what a lab left that was killed hard")
    command.set_defaults(handler=_clean)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = build_parser().parse_args(arguments)
    before = {signum: signal.signal(signum, _interrupt) for signum in _SIGNALS}
    try:
        return int(options.handler(options))
    except LabError as err:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"[bold red]error:[/bold red] {escape(str(err))}")
        if err.hint:
            console.print(f"[bold]hint:[/bold] {escape(err.hint)}")
        return 1
    except Interrupted as err:
        print("interrupted; everything was stopped", file=sys.stderr)
        return 128 + err.signum
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


if __name__ == "__main__":
    sys.exit(main())
