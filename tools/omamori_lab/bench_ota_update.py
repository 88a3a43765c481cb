"""One update of a virtual box in the lab: how long the office is without it, and when the new version is kept."""

from __future__ import annotations

import dataclasses
import re
import time

from .addresses import PC1, WEB
from .box import FORWARDING, PROTECTING, RELEASE
from .errors import BoxError, LabError
from .lab import Lab
from .progress import Progress

_FETCH_TIMEOUT_S = 600.0
_TIMEOUT_S = 300.0
_PING_S = 0.2
_WINDOW = {"days": 127, "start_min": 0, "length_min": 1440, "zone": "Asia/Tokyo"}


@dataclasses.dataclass(frozen=True)
class Update:
    """Times in seconds, bytes of what was fetched.

    Attributes:
        asked_to_restart_s: From the desired state's publication to the moment the box asks for its restart.
        dark_s: Without forwarding: echo requests from the office that were not answered, times their interval.
        uninspected_s: From the restart until the new version protects.
        commit_s: From the restart until the new version is kept.
    """

    asked_to_restart_s: float
    dark_s: float
    uninspected_s: float
    commit_s: float
    fetched_bytes: int
    delta_bytes: int


def update(lab: Lab, progress: Progress) -> Update:
    """Publish the next firmware, have the box take it, and wait until it is kept.

    Raises:
        LabError: It did not come to that.
    """
    progress.step("next firmware")
    release = lab.surroundings.firmware.publish_next()
    mark = lab.box.restarts_by_itself()
    progress.step("update")
    settings = {
        "version": release.version,
        "window": _WINDOW,
        "max_wait_s": 0,
        "metered": "never",
        "rate_kbps": 0,
        "owner_refuses_scheduled": False,
    }
    lab.surroundings.desired.publish(firmware=settings)
    asked_s = time.monotonic()
    with lab.client(PC1.name).pinging(WEB.ipv4, interval_s=_PING_S) as pings:
        _await_state(lab, mark, release.version, "reboot-pending", _FETCH_TIMEOUT_S)
        restart_s = time.monotonic()
        match = lab.box.await_line(RELEASE, timeout_s=_TIMEOUT_S, since=mark)
        if (match["version"], match["slot"]) != (release.version, "B"):
            raise LabError(f"the box runs {match['version']} from slot {match['slot']}")
        lab.box.await_line(FORWARDING, timeout_s=_TIMEOUT_S, since=mark)
        lab.box.await_line(PROTECTING, timeout_s=_TIMEOUT_S, since=mark)
        protecting_s = time.monotonic()
        _await_state(lab, mark, release.version, "committed", _TIMEOUT_S)
        committed_s = time.monotonic()
    summary = pings.stop()
    return Update(
        asked_to_restart_s=round(restart_s - asked_s, 1),
        dark_s=round((summary.sent - summary.received) * _PING_S, 1),
        uninspected_s=round(protecting_s - restart_s, 1),
        commit_s=round(committed_s - restart_s, 1),
        fetched_bytes=lab.surroundings.firmware.fetched_bytes(release),
        delta_bytes=release.delta_bytes,
    )


def _await_state(lab: Lab, mark: int, version: str, state: str, timeout_s: float) -> None:
    line = rf"omamori: firmware version={re.escape(version)} state=(?P<state>{state}|failed|rolled-back) (?P<rest>.*)"
    match = lab.box.await_line(line, timeout_s=timeout_s, since=mark)
    if match["state"] != state:
        raise BoxError(f"firmware {version}: {match['state']} {match['rest']}")
