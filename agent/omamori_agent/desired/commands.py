"""Does signed commands: each once, only while it is valid, and nothing that is not on the closed list.

A command's id is remembered on disk until it has expired, before the command is done: after a cut in between it is not
done at all rather than twice. The memory is bounded; when it is full of commands that have not expired, new ones are
refused rather than old ones forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from omamori_agent.errors import TransientError
from omamori_agent.ports import Clock
from omamori_protocol.command import Command, Verb

from .bypass import Bypass
from .diagnostics import DiagnosticsAnswer
from .errors import CommandRefusedError
from .identify import Identify
from .reboot import Outcome, Reboot
from .store import DesiredStore, RememberedCommands
from .verify import open_command

logger = logging.getLogger(__name__)


class Commands:
    """Judges and does commands; one thread uses it.

    Args:
        device: The box's id.
        keys: Keys that may sign commands.
        store: Remembers what was done.
        bypass: Does `Verb.BYPASS`.
        identify: Does `Verb.IDENTIFY`.
        reboot: Does `Verb.REBOOT`.
        diagnostics: Does `Verb.DIAGNOSTICS`.
        clock: Unix time.
        maximum: How many commands are remembered.
    """

    def __init__(
        self,
        *,
        device: str,
        keys: Sequence[Ed25519PublicKey],
        store: DesiredStore,
        bypass: Bypass,
        identify: Identify,
        reboot: Reboot,
        diagnostics: DiagnosticsAnswer,
        clock: Clock,
        maximum: int,
    ) -> None:
        self._device = device
        self._keys = keys
        self._store = store
        self._bypass = bypass
        self._identify = identify
        self._reboot = reboot
        self._diagnostics = diagnostics
        self._clock = clock
        self._maximum = maximum

    @property
    def jobs(self) -> DiagnosticsAnswer:
        """Answers that wait to be sent."""
        return self._diagnostics

    def load(self) -> None:
        """Go on with what an earlier agent began."""
        self._bypass.load()
        self._reboot.load()
        self._diagnostics.load()

    def tend(self) -> None:
        """See to what was begun and is not over."""
        self._bypass.tend()
        self._reboot.tend()

    def outcome(self, command_id: bytes | None) -> Outcome | None:
        """Return how far a command is that is not done when it is taken: its id, how far it is, and why.

        Args:
            command_id: Which one; None for any that an earlier agent took.
        """
        for found in (self._reboot.outcome(), self._diagnostics.outcome()):
            if found is not None and command_id in (None, found[0]):
                return found
        return None

    def take(self, signed: bytes) -> Command | None:
        """Do a command.

        Returns:
            The command, or None if it was done before (a broker may deliver twice).

        Raises:
            CommandRefusedError: It must not be done, or could not.
        """
        # A clock that was set back must not make what has expired valid again.
        now_s = max(int(self._clock.now()), self._store.commands.newest_s)
        command = open_command(signed, self._keys, self._device, now_s=now_s)
        if command.command_id in dict(self._store.commands.seen):
            logger.info("command %s came again", command.command_id.hex())
            return None
        kept = tuple(item for item in self._store.commands.seen if item[1] > now_s)
        if len(kept) >= self._maximum:
            raise CommandRefusedError("too many commands within a day", command_id=command.command_id)
        seen = (*kept, (command.command_id, command.expires_s))
        try:
            self._store.remember_commands(RememberedCommands(seen, now_s))
            self._do(command)
        except TransientError as err:
            raise CommandRefusedError(str(err), command_id=command.command_id) from err
        return command

    def _do(self, command: Command) -> None:
        match command.verb:
            case Verb.BYPASS:
                self._bypass.begin(command.minutes, command.asked_by)
            case Verb.IDENTIFY:
                self._identify.begin(command.minutes, command.asked_by)
            case Verb.REBOOT:
                self._reboot.begin(command)
            case Verb.DIAGNOSTICS:
                self._diagnostics.begin(command)
