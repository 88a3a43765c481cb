"""What scenes say about traffic that passed uninspected: it is in the ledger at the cloud, with its reason."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from omamori_lab import addresses
from omamori_lab.addresses import DANGEROUS, PC1, WEB
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.waiting import wait_for

_TOLD_TIMEOUT_S = 60.0  # an entry is told some seconds after it is over
_SETTINGS_TIMEOUT_S = 60.0
_OPEN_TIMEOUT_S = 20.0
DANGEROUS_NAME = "www.malware.test"


class Passed(NamedTuple):
    """Packets and seconds of one reason."""

    packets: int
    seconds: int


def passed(lab: Lab) -> dict[str, Passed]:
    """Return what ever passed the box uninspected, by reason, as the portal has it."""
    sums = lab.portal.box(lab.serial)["ledger"]
    return {reason: Passed(entry["packets"], entry["seconds"]) for reason, entry in sums.items()}


def check_told(lab: Lab, checks: Checklist, *reasons: str, before: dict[str, Passed], least: int = 1) -> None:
    """Note that the ledger at the cloud has grown for one of the reasons.

    Args:
        lab: The lab.
        checks: Where to note.
        *reasons: Words of the reasons; a fault may be counted under any of them.
        before: What `passed` said before the fault.
        least: Packets it must have grown by.
    """

    def growth() -> int:
        now = passed(lab)
        nothing = Passed(0, 0)
        return sum(now.get(reason, nothing).packets - before.get(reason, nothing).packets for reason in reasons)

    deadline = time.monotonic() + _TOLD_TIMEOUT_S
    while (grown := growth()) < least and time.monotonic() < deadline:
        time.sleep(0.5)
    checks.add(
        f"ledger: {' or '.join(reasons)}",
        expected=f"at least {least} more packets",
        seen=f"{grown} more",
        ok=grown >= least,
    )


@contextmanager
def office_at_work(lab: Lab, checks: Checklist, what: str, *, may_lose: int) -> Iterator[None]:
    """Ping the internet from the office at 5 Hz meanwhile, and note how many answers were missing.

    Args:
        lab: The lab.
        checks: Where to note.
        what: What happens meanwhile.
        may_lose: So many answers may be missing.
    """
    with lab.client(PC1.name).pinging(WEB.ipv4) as loop:
        yield
    summary = loop.stop()
    lost = summary.sent - summary.received
    checks.add(
        f"the office's connection: {what}",
        expected=f"at most {may_lose} of the pings lost",
        seen=summary,
        ok=summary.sent > 0 and lost <= may_lose,
    )


def is_open(lab: Lab, terminal: str = PC1.name) -> bool:
    """Whether a dangerous name is answered, so nothing inspects the question."""
    server = addresses.ROUTER_IPV4
    return lab.client(terminal).resolve(DANGEROUS_NAME, server=server, timeout_s=1) == [DANGEROUS.ipv4]


def check_inspected(lab: Lab, checks: Checklist, when: str, *, expected: bool, terminal: str = PC1.name) -> None:
    """Note whether a dangerous name is kept from a terminal; what has just been changed may take a moment."""
    deadline = time.monotonic() + _OPEN_TIMEOUT_S
    while (seen := not is_open(lab, terminal)) is not expected and time.monotonic() < deadline:
        time.sleep(0.2)
    checks.equal(f"{terminal} is inspected {when}", expected=expected, seen=seen)


def check_settings(lab: Lab, checks: Checklist, part: str, what: str, **sections: Any) -> dict[str, Any]:
    """Publish desired state and note that the box applied a part of it.

    Args:
        lab: The lab.
        checks: Where to note.
        part: Word of the part that matters.
        what: What is wanted, for people.
        **sections: The document's sections; none: as delivered.

    Returns:
        The portal's view of the settings.

    Raises:
        NotReadyError: The box did not report in time.
    """
    version = lab.surroundings.desired.publish(**sections)

    def reported() -> dict[str, Any] | None:
        settings: dict[str, Any] | None = lab.portal.box(lab.serial)["settings"]
        if settings is None or settings["version"] < version:
            return None
        state = settings["parts"].get(part, {}).get("state")
        return settings if state in {"applied", "refused"} else None

    settings = wait_for(
        reported,
        f"settings version {version} applied",
        timeout_s=_SETTINGS_TIMEOUT_S,
        every_s=0.3,
        detail=lambda: str(lab.portal.box(lab.serial)["settings"]),
    )
    checks.equal(f"settings: {what}", {"state": "applied", "reason": None}, settings["parts"][part])
    return settings
