"""What a scene is, how it is played, and the checks that many scenes share."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from omamori_lab.errors import LabError
from omamori_lab.lab import Lab
from omamori_lab.portal import Expected, brief, is_of
from omamori_lab.results import Checklist, SceneResult

T = TypeVar("T")

ALERT_TIMEOUT_S = 25.0
BLOCKED_TIMEOUT_S = 4.0


class Title(NamedTuple):
    """What a person reads."""

    ja: str
    en: str


class Scene(Protocol):
    """One scene.

    Attributes:
        name: Word for the command line.
        title: For people.
        needs_shell: Whether it breaks things from inside, so that only the development image can play it.
    """

    name: str
    title: Title
    needs_shell: bool

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Act, look, and note every fact in `checks`."""
        ...


def play(scene: Scene, lab: Lab) -> SceneResult:
    """Play a scene to its result; an error of the lab is a failed scene, not the end of the run."""
    checks = Checklist()
    begin = time.monotonic()
    error = None
    try:
        scene.play(lab, checks)
    except LabError as err:
        error = str(err)
    return SceneResult(scene.name, scene.title.en, tuple(checks.checks), time.monotonic() - begin, error)


def together(*actions: Callable[[], T]) -> list[T]:
    """Do several things at the same time; return their results in order, or raise the first error."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(actions)) as pool:
        return [future.result() for future in [pool.submit(action) for action in actions]]


def check_alerts(
    lab: Lab,
    checks: Checklist,
    expected: Sequence[Expected],
    *,
    known: set[object],
    timeout_s: float = ALERT_TIMEOUT_S,
) -> None:
    """Note for each expected alert whether the portal has it, terminal IP and MAC included.

    Args:
        lab: The lab.
        checks: Where to note.
        expected: The alerts.
        known: Identities of alerts from before the scene.
        timeout_s: How long to wait for the last of them.
    """
    missing, fresh = lab.portal.await_alerts(expected, known=known, timeout_s=timeout_s)
    for item in expected:
        found = [alert for alert in fresh if item.fits(alert)]
        near = [alert for alert in fresh if is_of(alert, item.terminal)]
        seen = brief(found[0]) if found else f"{[brief(alert) for alert in near] or 'no alert of this terminal'}"
        checks.add("alert", expected=item, seen=seen, ok=item not in missing)


def count_alerts(lab: Lab, destinations: Sequence[str]) -> dict[str, int]:
    """Return how many occurrences the portal's alerts tell about each destination."""
    alerts = lab.portal.alerts()
    return {name: sum(int(alert["count"]) for alert in alerts if name in alert["destination"]) for name in destinations}


def check_once(lab: Lab, checks: Checklist, destinations: Sequence[str], *, timeout_s: float) -> None:
    """Note that each destination stands in exactly one alert, which counts one occurrence.

    Args:
        lab: The lab.
        checks: Where to note.
        destinations: Names that were asked for once each.
        timeout_s: How long to wait for the last of them.
    """
    deadline = time.monotonic() + timeout_s
    while 0 in (seen := count_alerts(lab, destinations)).values() and time.monotonic() < deadline:
        time.sleep(0.5)
    for name in destinations:
        checks.equal(f"alerts about {name}", 1, seen[name])
