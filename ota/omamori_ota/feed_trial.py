"""Leads a candidate through its rings: asks the cloud how it does, and signs the next step or takes it back.

The repository's signed metadata is the truth about which serial has reached how much of the fleet. What is kept
beside it is only since when; if that was lost, or tells of another ring, the ring's time begins anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omamori_protocol.durable import write_atomic

from .candidate import Candidate
from .clock import Clock
from .errors import RejectedError, SetupError, TransientError
from .files import read_bounded
from .repository import Published
from .rollout import Decision, Move, Outcome, PolicyError, Ring, RolloutPolicy, Tally, decide

MAX_POLICY_BYTES = 16 * 1024
MAX_ANSWER_BYTES = 256 * 1024
_MAX_STATE_BYTES = 1024
_TIMEOUT_S = 10.0

# A feed proves itself within minutes: a box tests, loads and settles it in less than one.
DEFAULT_POLICY = RolloutPolicy(
    rings=(
        Ring("canary", 20, 300, 3),
        Ring("early", 100, 300, 10),
        Ring("half", 500, 600, 30),
        Ring("everyone", 1000, 600, 30),
    ),
    halt_rate=0.02,
    halt_reports=20,
    silence_s=900,
)

Ask = Callable[[int, int], Tally]


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step found and did.

    Attributes:
        serial: The candidate.
        ring: Name of the ring that it had reached before the step.
        tally: What the boxes reported.
        decision: What was decided.
        published: What was signed because of it, if anything.
    """

    serial: int
    ring: str
    tally: Tally
    decision: Decision
    published: Published | None


class FeedTrial:
    """The trial of one channel's candidate.

    Args:
        candidate: The candidate.
        policy: Its rings.
        ask: Returns what the boxes report of a serial that has reached so many of a thousand boxes.
        notes: File in which since when is kept.
        clock: The present.
    """

    def __init__(self, candidate: Candidate, policy: RolloutPolicy, ask: Ask, notes: Path, clock: Clock) -> None:
        self._candidate = candidate
        self._policy = policy
        self._ask = ask
        self._notes = notes
        self._clock = clock

    def step(self) -> Step:
        """Look once, and do what the rules say.

        Raises:
            RejectedError: There is no candidate.
            TransientError: The cloud or the repository cannot be asked now; nothing changed.
        """
        offer = self._candidate.offer()
        ring = self._ring(offer.permille)
        in_ring_s = self._in_ring_s(offer.serial, offer.permille)
        tally = self._ask(offer.serial, offer.permille)
        decision = decide(self._policy, ring, in_ring_s, tally)
        published = None
        if decision.move is Move.HALT:
            published = self._candidate.withdraw()
        elif decision.move is Move.DONE:
            published = self._candidate.promote()
        elif decision.move is Move.ADVANCE:
            wider = self._policy.rings[ring + 1].permille
            published = self._candidate.reach(wider)
            self._note(offer.serial, wider)
        return Step(offer.serial, self._policy.rings[ring].name, tally, decision, published)

    def _ring(self, permille: int) -> int:
        """Return the largest ring that is reached whole; the first one if not even that is."""
        reached = [number for number, ring in enumerate(self._policy.rings) if ring.permille <= permille]
        return reached[-1] if reached else 0

    def _in_ring_s(self, serial: int, permille: int) -> float:
        now_s = self._clock().timestamp()
        with contextlib.suppress(SetupError, ValueError, KeyError, TypeError):
            noted = json.loads(read_bounded(self._notes, _MAX_STATE_BYTES))
            if (noted["serial"], noted["permille"]) == (serial, permille):
                return max(0.0, now_s - float(noted["since"]))
        self._note(serial, permille)
        return 0.0

    def _note(self, serial: int, permille: int) -> None:
        self._notes.parent.mkdir(mode=0o700, exist_ok=True)
        noted = {"serial": serial, "permille": permille, "since": self._clock().timestamp()}
        write_atomic(self._notes, json.dumps(noted).encode())


def parse_policy(text: str) -> RolloutPolicy:
    """Read a policy in TOML.

        halt_rate = 0.02
        halt_reports = 20
        silence_s = 900
        [[ring]]
        name = "canary"
        permille = 20
        bake_s = 300
        minimum_reports = 3

    Raises:
        RejectedError: It is not a policy, or one that could not work.
    """
    try:
        body = tomllib.loads(text)
        rings = tuple(Ring(**_exactly(item, Ring)) for item in body.pop("ring", []))
        return RolloutPolicy(rings=rings, **_exactly(body, RolloutPolicy, besides="rings"))
    except (tomllib.TOMLDecodeError, TypeError, ValueError, PolicyError, RecursionError) as err:
        raise RejectedError(f"rollout policy: {err}", hint="see docs/feeds.md for an example") from err


def _exactly(values: Any, kind: type, *, besides: str = "") -> dict[str, Any]:
    """Return a table's values if they are the attributes of `kind`, each of its type."""
    if not isinstance(values, dict):
        raise TypeError("expected a table")
    known = {field.name: field for field in dataclasses.fields(kind) if field.name != besides}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"unknown key {str(name)[:40]!r}")
        types = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}[str(known[name].type)]
        if type(value) not in types:
            raise TypeError(f"{name} has the wrong type")
    return values


def ask_cloud(url: str, channel: str, silence_s: int) -> Ask:
    """Return a question to the cloud's `/api/v1/feeds`.

    Args:
        url: The cloud's address, http or https.
        channel: Feed channel.
        silence_s: From when on a silent box counts as bad.

    Raises:
        RejectedError: The address is none.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RejectedError(f"{url[:80]!r} is not an http(s) address")

    def ask(serial: int, permille: int) -> Tally:
        query = urllib.parse.urlencode(
            {"channel": channel, "serial": serial, "permille": permille, "silence": silence_s}
        )
        address = f"{url.rstrip('/')}/api/v1/feeds?{query}"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as response:  # noqa: S310 - checked above
                body = response.read(MAX_ANSWER_BYTES + 1)
        except (urllib.error.URLError, OSError, ValueError) as err:
            raise TransientError(f"the cloud does not answer: {err}") from err
        return parse_tally(body)

    return ask


def parse_tally(body: bytes) -> Tally:
    """Read the cloud's answer.

    Raises:
        TransientError: It is not one.
    """
    if len(body) > MAX_ANSWER_BYTES:
        raise TransientError("the cloud's answer is too long")
    try:
        outcomes = json.loads(body)["outcomes"]
        counts = Counter({Outcome[str(name).upper()]: _count(value) for name, value in outcomes.items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise TransientError("the cloud's answer makes no sense") from err
    return Tally(counts)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError("not a number of boxes")
    return value
