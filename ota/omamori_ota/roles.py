"""The roles of the TUF repository: who signs what, how many of them, for how long.

One table, because these decisions belong together (design: a stolen online machine can publish feeds, never firmware).
No role has two parents. This module decides nothing at run time and touches no file.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from .clock import parse_duration
from .errors import RejectedError

ROOT = "root"
TARGETS = "targets"
SNAPSHOT = "snapshot"
TIMESTAMP = "timestamp"
FIRMWARE = "firmware"
FEED = "feed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolePolicy:
    """How one role signs.

    Attributes:
        name: The role.
        keys: Names of its keys.
        threshold: How many of them must sign.
        lifetime: How long a signed version is valid unless the caller says otherwise.
        paths: Patterns of target paths a delegated role may sign; empty for a top-level role.
        is_online: Whether its keys live on the publishing machine.
    """

    name: str
    keys: tuple[str, ...]
    threshold: int
    lifetime: timedelta
    paths: tuple[str, ...] = ()
    is_online: bool = False


_ALL = (
    RolePolicy(name=ROOT, keys=("root1", "root2", "root3"), threshold=2, lifetime=timedelta(days=365)),
    RolePolicy(name=TARGETS, keys=("targets1", "targets2"), threshold=2, lifetime=timedelta(days=180)),
    RolePolicy(
        name=FIRMWARE,
        keys=("firmware1", "firmware2"),
        threshold=2,
        lifetime=timedelta(days=90),
        paths=("firmware/*/*/*",),  # board, version, file
    ),
    RolePolicy(name=FEED, keys=("feed",), threshold=1, lifetime=timedelta(days=7), paths=("feed/*/*",), is_online=True),
    RolePolicy(name=SNAPSHOT, keys=("snapshot",), threshold=1, lifetime=timedelta(days=7), is_online=True),
    RolePolicy(name=TIMESTAMP, keys=("timestamp",), threshold=1, lifetime=timedelta(days=1), is_online=True),
)
ROLES = {policy.name: policy for policy in _ALL}
TOP_LEVEL = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
DELEGATED = (FIRMWARE, FEED)
KEY_NAMES = tuple(name for policy in _ALL for name in policy.keys)


def role_of(key_name: str) -> str:
    """Return the role that a key signs for.

    Raises:
        RejectedError: There is no key of that name.
    """
    for policy in _ALL:
        if key_name in policy.keys:
            return policy.name
    raise RejectedError(f"{key_name[:40]!r} is not a key", hint=f"one of {', '.join(KEY_NAMES)}")


@dataclasses.dataclass(frozen=True)
class Lifetimes:
    """How long each role's next version is valid: the table's values, with exceptions for tests and the lab."""

    exceptions: tuple[tuple[str, timedelta], ...] = ()

    def of(self, role: str) -> timedelta:
        """Return the lifetime of `role`."""
        return dict(self.exceptions).get(role, ROLES[role].lifetime)

    @staticmethod
    def parse(items: list[str]) -> Lifetimes:
        """Read exceptions like ``timestamp=30s``.

        Raises:
            RejectedError: An item names no role, or no duration.
        """
        exceptions = []
        for item in items:
            role, _, duration = item.partition("=")
            if role not in ROLES:
                raise RejectedError(f"{role[:40]!r} is not a role", hint=f"one of {', '.join(ROLES)}")
            exceptions.append((role, parse_duration(duration)))
        return Lifetimes(tuple(exceptions))
