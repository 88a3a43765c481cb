"""Rules that the owner of the box does not want: left out of what the engine loads, in every feed.

`RuleExclusion` carries the wish from the desired state to the feed's worker. The functions write a feed's rules without
them, and remember beside the file which were left out and how many that was: the engine's count of rules is compared
with it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded, sync_directory, write_atomic
from omamori_protocol.desired import MAX_EXEMPTIONS, MAX_RULE_ID
from omamori_protocol.durable import temporary_beside

logger = logging.getLogger(__name__)

RULES_NAME = "all.rules"
LEFT_OUT_NAME = "left-out.json"
_MAX_BYTES = 16384
_MAX_LINE_BYTES = 1024 * 1024
# The engine escapes semicolons inside of texts, so that this finds nothing but the option.
_RULE_ID = re.compile(rb"\bsid\s*:\s*([0-9]{1,10})\s*;")


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """What a feed's file of rules lacks: the numbers asked for, and how many rules had one of them.

    It is not `is_sure` while the file is being changed, and until the engine has loaded it.
    """

    rule_ids: frozenset[int] = frozenset()
    count: int = 0
    is_sure: bool = True

    def is_just(self, rule_ids: frozenset[int]) -> bool:
        """Tell whether exactly these are left out, in the engine, too."""
        return self.is_sure and self.rule_ids == rule_ids


NOTHING = LeftOut()


class RuleExclusion:
    """The wish and what has become of it; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: frozenset[int] | None = None
        self._applied: frozenset[int] | None = None

    def want(self, rule_ids: frozenset[int]) -> None:
        """Ask for exactly these rules to be left out; returns at once."""
        with self._lock:
            self._wanted = rule_ids

    @property
    def wanted(self) -> frozenset[int] | None:
        """What is wanted; None before anybody has said so (then what a feed lacks already stays out)."""
        with self._lock:
            return self._wanted

    @property
    def applied(self) -> frozenset[int] | None:
        """What the current feed lacks, and the engine with it; None while that is not known."""
        with self._lock:
            return self._applied

    def report(self, rule_ids: frozenset[int]) -> None:
        """Say what the engine has taken."""
        with self._lock:
            self._applied = rule_ids


def write_rules(engine: Path, sources: Iterable[Path], rule_ids: frozenset[int]) -> LeftOut:
    """Write the engine's file of rules, without some of them; all or nothing, durably.

    Args:
        engine: The feed's directory for the engine.
        sources: The pack's files of rules, in order.
        rule_ids: Rules to leave out.

    Returns:
        What was left out.

    Raises:
        OSError: The file is as it was.
    """
    path = engine / RULES_NAME
    temporary = temporary_beside(path)
    temporary.unlink(missing_ok=True)
    count = 0
    with temporary.open("xb") as out:
        for source_path in sources:
            with source_path.open("rb") as source:
                while line := source.readline(_MAX_LINE_BYTES):
                    if rule_ids and _rule_id(line) in rule_ids:
                        count += 1
                    else:
                        out.write(line)
                out.write(b"\n")
        out.flush()
        os.fchmod(out.fileno(), 0o644)
        os.fsync(out.fileno())
    temporary.replace(path)
    sync_directory(engine)
    return LeftOut(rule_ids, count)


def _rule_id(line: bytes) -> int | None:
    if line.lstrip().startswith(b"#"):
        return None
    found = _RULE_ID.findall(line)
    return int(found[-1]) if found else None


def save_left_out(engine: Path, left_out: LeftOut) -> None:
    """Remember what a feed's file of rules lacks.

    Raises:
        OSError: Nothing changed.
    """
    body = {"rule_ids": sorted(left_out.rule_ids), "count": left_out.count, "is_sure": left_out.is_sure}
    write_atomic(engine / LEFT_OUT_NAME, (json.dumps(body) + "\n").encode())


def load_left_out(engine: Path) -> LeftOut:
    """Return what a feed's file of rules lacks; without a note, nothing, and with a damaged one nobody knows."""
    try:
        body = json.loads(read_bounded(engine / LEFT_OUT_NAME, _MAX_BYTES))
        return _parse(body)
    except FileNotFoundError:
        return LeftOut()
    except (SetupError, ValueError, KeyError, TypeError, RecursionError) as err:
        logger.warning("%s: %s", engine / LEFT_OUT_NAME, err)
        return LeftOut(is_sure=False)


def _parse(body: Any) -> LeftOut:
    rule_ids = frozenset(body["rule_ids"])
    is_sane = len(rule_ids) <= MAX_EXEMPTIONS and all(
        type(item) is int and 0 < item <= MAX_RULE_ID for item in rule_ids
    )
    if not is_sane or type(body["count"]) is not int or body["count"] < 0:
        raise ValueError("out of bounds")
    return LeftOut(rule_ids, body["count"], is_sure=body["is_sure"] is True)
