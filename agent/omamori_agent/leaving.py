"""Why the agent ends: with the box, for an update, or alone. What it finds out goes into its goodbye."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from omamori_protocol.vocabulary import Leaving

from . import run as process
from .errors import AgentError, SetupError
from .files import read_bounded

logger = logging.getLogger(__name__)

# How long the box will be silent at most. A trial start may be followed by the start of the slot before.
_QUIET_S = {Leaving.SESSION: 60, Leaving.PROGRAM: 60, Leaving.UPDATE: 900, Leaving.REBOOT: 600, Leaving.OFF: 0}
_ASK_TIMEOUT_S = 1.0
_MAX_REQUEST_BYTES = 64


def quiet_s(leaving: Leaving) -> int:
    """Return for how many seconds a box that says this goodbye is silent at most."""
    return _QUIET_S[leaving]


def why_leaving(restart_request: Path, *, jobs: Callable[[], str] | None = None) -> Leaving:
    """Return why the agent is being stopped now.

    Args:
        restart_request: The file with which the agent itself asks for a restart of the box; it says what for.
        jobs: Returns what the service manager is doing; a parameter for tests.
    """
    try:
        request = read_bounded(restart_request, _MAX_REQUEST_BYTES).strip()
        return Leaving.UPDATE if request == b"firmware" else Leaving.REBOOT
    except FileNotFoundError:
        pass
    except (OSError, SetupError) as err:
        logger.debug("%s: %s", restart_request, err)
    try:
        doing = (jobs or _jobs)()
    except AgentError as err:
        logger.debug("the service manager does not say what it does: %s", err)
        return Leaving.PROGRAM
    words = set(doing.split())
    if words & {"reboot.target", "kexec.target"}:
        return Leaving.REBOOT
    if words & {"poweroff.target", "halt.target", "shutdown.target"}:
        return Leaving.OFF
    return Leaving.PROGRAM


def _jobs() -> str:
    return process.run(["systemctl", "list-jobs", "--no-legend", "--plain"], timeout_s=_ASK_TIMEOUT_S).output
