"""`omamori-ota candidate`: a feed pack for a part of the fleet first."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omamori_protocol.topics import check_channel

from . import announcement, packs
from .announcement import BrokerAddress
from .candidate import Candidate
from .clock import system_clock
from .errors import RejectedError, TransientError
from .feed_trial import DEFAULT_POLICY, MAX_POLICY_BYTES, FeedTrial, Step, ask_cloud, parse_policy
from .files import read_bounded
from .repository import Published, Repository
from .rollout import Move, RolloutPolicy

Open = Callable[[argparse.Namespace], Repository]
OpenBroker = Callable[[argparse.Namespace], BrokerAddress | None]


class CandidateCommands:
    """The commands, given what opens a repository and a broker from the command line.

    Args:
        repository: Opens the repository.
        broker: Returns where boxes are told, if anywhere.
    """

    def __init__(self, repository: Open, broker: OpenBroker) -> None:
        self._repository = repository
        self._broker = broker

    def publish(self, options: argparse.Namespace) -> None:
        """Offer a pack to the first ring."""
        broker = self._broker(options)
        increment = None if options.increment is None else packs.read_increment(options.increment)
        permille = _policy(options).rings[0].permille
        done = self._candidate(options).publish(packs.read_pack(options.pack), permille, increment)
        self._tell(done, broker, f"candidate for {permille} of 1000 boxes", as_json=options.json)

    def step(self, options: argparse.Namespace) -> None:
        """Look how the candidate does and do what the rules say; with --watch until it has ended."""
        broker = self._broker(options)
        policy = _policy(options)
        channel = check_channel(options.channel)
        notes = options.repo / ".trials" / f"{channel}.json"
        ask = ask_cloud(options.cloud, channel, policy.silence_s)
        trial = FeedTrial(self._candidate(options), policy, ask, notes, system_clock)
        while True:
            try:
                step = trial.step()
            except TransientError as err:
                if not options.watch:
                    raise
                print(f"waiting: {err}", flush=True)
            else:
                _print_step(step, as_json=options.json)
                if step.published is not None and broker is not None:
                    is_halted = step.decision.move is Move.HALT
                    announcement.announce(broker, channel, self._everyones(options) if is_halted else step.serial)
                if not options.watch or step.decision.move in (Move.HALT, Move.DONE):
                    return
            time.sleep(options.every)

    def promote(self, options: argparse.Namespace) -> None:
        """Give the candidate to everyone now."""
        broker = self._broker(options)
        self._tell(self._candidate(options).promote(), broker, "now for everyone", as_json=options.json)

    def withdraw(self, options: argparse.Namespace) -> None:
        """Take the candidate back."""
        broker = self._broker(options)
        done = self._candidate(options).withdraw()
        self._tell(done, None, "withdrawn", as_json=options.json)
        if broker is not None:
            announcement.announce(broker, done.channel, self._everyones(options))

    def show(self, options: argparse.Namespace) -> None:
        """Say what is on trial."""
        offer = self._candidate(options).offer()
        if options.json:
            print(json.dumps({"channel": options.channel, "serial": offer.serial, "permille": offer.permille}))
        else:
            print(f"channel={options.channel} serial={offer.serial} reached={offer.permille}/1000")

    def _everyones(self, options: argparse.Namespace) -> int:
        """Return the serial of the channel's pack: what boxes with a withdrawn candidate are told to go back to."""
        channel = check_channel(options.channel)
        return next(feed.serial for feed in self._repository(options).status().feeds if feed.channel == channel)

    def _candidate(self, options: argparse.Namespace) -> Candidate:
        return Candidate(self._repository(options), check_channel(options.channel))

    @staticmethod
    def _tell(done: Published, broker: BrokerAddress | None, what: str, *, as_json: bool) -> None:
        if as_json:
            print(json.dumps(dataclasses.asdict(done)))
        else:
            print(f"feed channel={done.channel} serial={done.serial}: {what}")
        if broker is not None:
            announcement.announce(broker, done.channel, done.serial)


def add_candidate_commands(
    commands: Any, handlers: CandidateCommands, add: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add `candidate` to the command line; `add` adds what says which repository and broker."""
    group = commands.add_parser("candidate", help="try a feed pack on a part of the fleet first").add_subparsers(
        metavar="COMMAND", required=True
    )
    for word, run, what in (
        ("publish", handlers.publish, "offer a pack to the first ring"),
        ("step", handlers.step, "look how it does: widen it, promote it or take it back"),
        ("promote", handlers.promote, "give it to everyone now"),
        ("withdraw", handlers.withdraw, "take it back; boxes return to the channel's pack"),
        ("show", handlers.show, "say what is on trial"),
    ):
        command = group.add_parser(word, help=what)
        add(command)
        if word == "publish":
            command.add_argument("pack", metavar="PACK", type=Path, help="pack.tar.gz from omamori-feed build")
            command.add_argument("--increment", metavar="FILE", type=Path, help="from the published pack to PACK")
        if word in ("publish", "step"):
            command.add_argument("--policy", metavar="FILE", type=Path, help="rings in TOML (default: 20 ‰ to all)")
        if word == "step":
            command.add_argument("--cloud", metavar="URL", required=True, help="address of the cloud's page")
            command.add_argument("--watch", action="store_true", help="go on until it has ended")
            command.add_argument("--every", metavar="SECONDS", type=_seconds, default=15.0, help="with --watch")
        command.set_defaults(run=run)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError("between 0.1 and 3600 seconds")
    return value


def _policy(options: argparse.Namespace) -> RolloutPolicy:
    if options.policy is None:
        return DEFAULT_POLICY
    try:
        return parse_policy(read_bounded(options.policy, MAX_POLICY_BYTES).decode())
    except UnicodeDecodeError as err:
        raise RejectedError(f"{options.policy} is not text") from err


def _print_step(step: Step, *, as_json: bool) -> None:
    decision, tally = step.decision, step.tally
    if as_json:
        body = {
            "serial": step.serial,
            "ring": step.ring,
            "boxes": tally.boxes,
            "reports": tally.reports,
            "bad": tally.bad,
            "move": decision.move.value,
            "reason": decision.reason,
            "failure_bound": round(decision.failure_bound, 4),
        }
        print(json.dumps(body), flush=True)
        return
    print(
        f"serial={step.serial} ring={step.ring} boxes={tally.boxes} reports={tally.reports} bad={tally.bad}:"
        f" {decision.move.value}, {decision.reason}"
        f" (failure rates above {decision.failure_bound:.1%} are ruled out)",
        flush=True,
    )
