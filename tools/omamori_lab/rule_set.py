"""Rules for the benches: real ones from directories of the user's, or generated ones of the same number.

A directory holds `*.rules` files or archives with such files; nothing is fetched, and nothing of it is kept. What a box
would get of them comes first (`product_rules`); active rules that the feed's policy leaves out make up the wanted
number, then generated ones, and the result says how many of each.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

from omamori_signatures.engine import Engine

from .product_rules import compile_rules, own_rules, write_lists

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_HEADERS = {"http": "http $HOME_NET any -> $EXTERNAL_NET any", "tls": "tls $HOME_NET any -> $EXTERNAL_NET any"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleSet:
    """Rules as text, one a line.

    Attributes:
        text: The rules.
        count: How many.
        origin: In words, for the result.
    """

    text: bytes = dataclasses.field(repr=False)
    count: int
    origin: str


def read_rules(directories: Sequence[Path], wanted: int, engine: Engine | None = None) -> RuleSet:
    """Return real rules of some directories, `wanted` of them or as many as there are.

    Args:
        directories: Where they are.
        wanted: How many.
        engine: Says which it refuses, and which cost too much; None takes all.

    Raises:
        SetupError: There is none, or a directory holds more than it should.
    """
    found = compile_rules(directories, engine)
    shipped = found.shipped[:wanted]
    others = found.others[: wanted - len(shipped)]
    origin = f"{len(shipped)} rules of public sets as the feed's compiler takes them over"
    if others:
        origin += f", {len(others)} more that its policy leaves out"
    text = "".join(f"{rule}\n" for rule in (*shipped, *others)).encode()
    return RuleSet(text=text, count=len(shipped) + len(others), origin=origin)


def generate_rules(wanted: int) -> RuleSet:
    """Return `wanted` rules of the usual shapes with random words; the same ones every time."""
    source = random.Random(20261122)  # noqa: S311 - to look alike every time, not to be secret

    def word(low: int, high: int) -> str:
        return "".join(source.choices(_LETTERS, k=source.randint(low, high)))

    lines = []
    for number in range(wanted):
        shape = source.random()
        if shape < 0.4:
            match = f'http.uri; content:"/{word(4, 9)}/{word(4, 12)}"; fast_pattern; content:"{word(3, 6)}="'
            header = _HEADERS["http"]
        elif shape < 0.5:
            header, match = _HEADERS["http"], f'http.user_agent; content:"{word(6, 14)}"'
        elif shape < 0.7:
            header, match = "dns $HOME_NET any -> any any", f'dns.query; content:"{word(6, 14)}.{word(3, 5)}"; nocase'
        elif shape < 0.9:
            header, match = _HEADERS["tls"], f'tls.sni; content:"{word(6, 14)}.{word(2, 4)}"; endswith'
        else:
            header = "tcp $EXTERNAL_NET any -> $HOME_NET any"
            match = f'flow:established,to_client; content:"|{source.randrange(256):02x}|{word(6, 16)}"; depth:400'
        lines.append(f'alert {header} (msg:"bench {number}"; {match}; sid:{3_000_000 + number}; rev:1;)\n')
    return RuleSet(text="".join(lines).encode(), count=wanted, origin=f"{wanted} generated rules")


def obtain_rules(directories: Sequence[Path], wanted: int, engine: Engine | None = None) -> RuleSet:
    """Return `wanted` rules: real ones if directories are given, generated ones for what is missing.

    Raises:
        SetupError: A directory holds no rules.
    """
    if not directories:
        return generate_rules(wanted)
    real = read_rules(directories, wanted, engine)
    missing = wanted - real.count
    if missing <= 0:
        return real
    made = generate_rules(missing)
    return RuleSet(text=real.text + made.text, count=wanted, origin=f"{real.origin}, {missing} generated")


def write_feed(rules: RuleSet, directory: Path) -> Path:
    """Write a feed directory as the engine expects it, and return it.

    It has the rules, in the same lines, and behind them the product's own about lists and applications, with lists of
    one entry each.
    """
    engine = directory / "engine"
    engine.mkdir(parents=True, exist_ok=True)
    write_lists(engine)
    own = "".join(f"{rule}\n" for rule in own_rules())
    (engine / "all.rules").write_bytes(rules.text + own.encode())
    return directory
