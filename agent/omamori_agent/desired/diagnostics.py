"""Answering the command for diagnostics: collected at once, written down, and kept until the broker has them.

The file is the message as it goes out. Only the newest is kept; a restart of the agent or of the box loses nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from omamori_agent.errors import SetupError, TransientError
from omamori_agent.files import read_bounded, write_atomic
from omamori_agent.ports import Clock
from omamori_agent.text import clean_text
from omamori_protocol.command import Command
from omamori_protocol.diagnostics import Diagnostics
from omamori_protocol.errors import ProtocolError
from omamori_protocol.reported import PartState
from omamori_protocol.vocabulary import Severity

from .reboot import Outcome

logger = logging.getLogger(__name__)

_WAITS = "waits until the broker has them"
_MAX_NAME_LENGTH = 64


class DiagnosticsAnswer:
    """The command for diagnostics, and `link.job.JobPort`: what waits to be sent.

    `begin`, `load` and `outcome` belong to one thread, `waiting` and `sent` to another one.

    Args:
        path: Where they are written down.
        collect: Returns the content, compressed; raises `ProtocolError` if it is too long.
        clock: When it was collected.
        tell: Told who asked, with how urgent it is.
    """

    def __init__(
        self,
        path: Path,
        *,
        collect: Callable[[], bytes],
        clock: Clock,
        tell: Callable[[str, Severity], None],
    ) -> None:
        self._path = path
        self._collect = collect
        self._clock = clock
        self._tell = tell
        self._lock = threading.Lock()
        self._waiting: tuple[bytes, bytes] | None = None
        self._outcome: Outcome | None = None
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` when there is something to send; it must not block."""
        self._listeners.append(listener)

    def load(self) -> None:
        """Take up what was not sent."""
        try:
            payload = read_bounded(self._path, Diagnostics.MAX_BYTES)
            command_id = Diagnostics.decode(payload).command_id
        except FileNotFoundError:
            return
        except (SetupError, ProtocolError) as err:
            logger.warning("%s is not usable: %s", self._path, clean_text(str(err), 120))
            self._forget()
            return
        self._offer(command_id, payload)

    def begin(self, command: Command) -> None:
        """Collect, and have it sent.

        Raises:
            TransientError: It could not be collected or written down.
        """
        try:
            record = Diagnostics(
                command_id=command.command_id, at_s=int(self._clock.now()), content=self._collect()
            ).encode()
            write_atomic(self._path, record, mode=0o600)
        except ProtocolError as err:
            raise TransientError(str(err)) from err
        except OSError as err:
            raise TransientError(f"diagnostics cannot be written down: {err.strerror or err}") from err
        asked_by = clean_text(command.asked_by, _MAX_NAME_LENGTH) or "the operator"
        self._tell(f"diagnostics collected, asked for by {asked_by}", Severity.ONE)
        self._offer(command.command_id, record)

    def outcome(self) -> Outcome | None:
        """Return the last command for diagnostics, how far it is and why; None without one."""
        with self._lock:
            return self._outcome

    def waiting(self) -> tuple[bytes, bytes] | None:
        """Return the command's id and the message that waits to be sent, or None."""
        with self._lock:
            return self._waiting

    def sent(self, command_id: bytes) -> None:
        """Take note that the broker has the answer to a command."""
        with self._lock:
            if self._waiting is None or self._waiting[0] != command_id:
                return  # a newer one waits
            self._waiting = None
            self._outcome = command_id, PartState.APPLIED, None
            self._forget()

    def _offer(self, command_id: bytes, payload: bytes) -> None:
        with self._lock:
            self._waiting = command_id, payload
            self._outcome = command_id, PartState.PENDING, _WAITS
        for listener in self._listeners:
            listener()

    def _forget(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as err:
            logger.warning("%s not removed: %s", self._path, err)
