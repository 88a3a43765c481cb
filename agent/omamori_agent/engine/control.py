"""Asks the engine over its unix socket, and tells it what to do.

The truth about what the engine has loaded is the engine's: nothing here remembers an answer. Starting and stopping
the process is systemd's part; we can only ask it to end.

The protocol, as Suricata 8 speaks it: one JSON object per line, a version handshake first, answers
``{"return": "OK" | "NOK", "message": …}``. A second command must not be sent before the first is answered (two
commands in one read make the engine close the connection), and a command must stay below 4096 bytes.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from omamori_agent.ports import Clock
from omamori_agent.text import clean_text

from .errors import EngineRefusedError, EngineUnavailableError

MAX_COMMAND_BYTES = 4000
MAX_ANSWER_BYTES = 1024 * 1024
_RELOAD_POLL_S = 0.1
_BUSY = "Reload already in progress"


@dataclasses.dataclass(frozen=True)
class RulesetStats:
    """How many rules the engine took."""

    loaded: int
    failed: int
    skipped: int


@dataclasses.dataclass(frozen=True)
class Pulse:
    """What a living engine says of itself."""

    uptime_s: int
    rules: RulesetStats


@dataclasses.dataclass(frozen=True)
class DatasetChange:
    """How many entries a change of a dataset added and removed."""

    added: int
    removed: int


class EngineSession:
    """One connection to the engine; made by `EngineControl.session`."""

    def __init__(self, connection: socket.socket, timeout_s: float, process_id: int) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._buffer = bytearray()
        self.process_id = process_id

    def greet(self) -> None:
        """Agree on the version of the protocol.

        Raises:
            EngineUnavailableError: The other side does not speak it.
        """
        self._exchange({"version": "0.2"}, "version handshake")

    def ask(self, command: str, **arguments: str) -> Any:
        """Send one command and return the message of its answer.

        Raises:
            EngineUnavailableError: No answer, or none that can be understood.
            EngineRefusedError: The engine said no.
        """
        request: dict[str, Any] = {"command": command}
        if arguments:
            request["arguments"] = arguments
        return self._exchange(request, command)

    def _exchange(self, request: dict[str, Any], command: str) -> Any:
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_COMMAND_BYTES:
            raise EngineRefusedError(command, f"command of {len(line)} bytes, allowed {MAX_COMMAND_BYTES}")
        try:
            self._connection.settimeout(self._timeout_s)
            self._connection.sendall(line)
            answer = json.loads(self._line())
            verdict, message = answer["return"], answer.get("message")
        except TimeoutError as err:
            raise EngineUnavailableError(f"engine: no answer to {command} within {self._timeout_s:g} s") from err
        except OSError as err:
            raise EngineUnavailableError(f"engine: {command}: {err.strerror or err}") from err
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as err:
            raise EngineUnavailableError(f"engine: answer to {command} not understood") from err
        if verdict != "OK":
            raise EngineRefusedError(command, clean_text(str(message), 200))
        return message

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_ANSWER_BYTES:
                raise ValueError("answer too long")
            chunk = self._connection.recv(65536)
            if not chunk:
                raise ConnectionResetError("connection closed")
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _integer(value: Any, what: str) -> int:
    if type(value) is not int or value < 0:
        raise EngineUnavailableError(f"engine: {what} not understood")
    return value


def _only_tenant(message: Any, what: str) -> dict[str, Any]:
    if not isinstance(message, list) or len(message) != 1 or not isinstance(message[0], dict):
        raise EngineUnavailableError(f"engine: {what} not understood")
    return message[0]


def _peer_process_id(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


class EngineControl:
    """The engine, as far as its socket reaches.

    Safe to use from several threads: every call has its own connection.

    Args:
        socket_path: The engine's command socket.
        clock: Bounds the waiting.
        timeout_s: Seconds for one answer; commands that work longer are polled instead.
        identify: Returns a number that tells one run of the engine from the next; a parameter for tests.
    """

    def __init__(
        self,
        socket_path: Path,
        clock: Clock,
        *,
        timeout_s: float = 10.0,
        identify: Callable[[socket.socket], int] | None = None,
    ) -> None:
        self._path = socket_path
        self._clock = clock
        self._timeout_s = timeout_s
        self._identify = identify or _peer_process_id

    @contextlib.contextmanager
    def session(self) -> Iterator[EngineSession]:
        """Open a connection for several commands.

        Raises:
            EngineUnavailableError: Nobody listens, or it is not the engine.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._timeout_s)
            try:
                connection.connect(str(self._path))
                process_id = self._identify(connection)
            except OSError as err:
                raise EngineUnavailableError(f"engine does not listen: {err.strerror or err}") from err
            session = EngineSession(connection, self._timeout_s, process_id)
            try:
                session.greet()
            except EngineRefusedError as err:
                raise EngineUnavailableError(str(err)) from err
            yield session

    def version(self) -> str:
        """Return the engine's version, for example ``8.0.8``."""
        with self.session() as session:
            message = session.ask("version")
        if not isinstance(message, str):
            raise EngineUnavailableError("engine: version not understood")
        return clean_text(message.partition(" ")[0], 32)

    def run_id(self) -> int:
        """Return a number that is another one after the engine was restarted; the engine answers when this returns."""
        with self.session() as session:
            session.ask("uptime")
            return session.process_id

    def pulse(self) -> Pulse:
        """Return for how long the engine has been running and what it has loaded."""
        with self.session() as session:
            return Pulse(_integer(session.ask("uptime"), "uptime"), self._stats(session))

    def ruleset_stats(self) -> RulesetStats:
        """Return how many rules are loaded."""
        with self.session() as session:
            return self._stats(session)

    @staticmethod
    def _stats(session: EngineSession) -> RulesetStats:
        counts = _only_tenant(session.ask("ruleset-stats"), "ruleset-stats")
        return RulesetStats(
            loaded=_integer(counts.get("rules_loaded"), "rules_loaded"),
            failed=_integer(counts.get("rules_failed"), "rules_failed"),
            skipped=_integer(counts.get("rules_skipped"), "rules_skipped"),
        )

    def failed_rules(self, maximum: int = 5) -> list[str]:
        """Return the beginnings of the first rules that the engine could not load."""
        with self.session() as session:
            message = session.ask("ruleset-failed-rules")
        if not isinstance(message, list):
            raise EngineUnavailableError("engine: ruleset-failed-rules not understood")
        texts = [item.get("rule") for item in message[:maximum] if isinstance(item, dict)]
        return [clean_text(str(text), 120) for text in texts]

    def reload_rules(self, *, timeout_s: float, stop: threading.Event) -> RulesetStats:
        """Make the engine read rules and digest lists again while it goes on inspecting.

        The engine's own "done" says nothing about how it went (a file full of errors is "done" too): the numbers
        returned are asked for afterwards and the caller has to look at them. Entries of datasets are not read again.

        Args:
            timeout_s: Seconds for the whole reload; 40 000 rules took 22 s on the development machine.
            stop: Ends the waiting, not the reload.

        Raises:
            EngineUnavailableError: The engine went away or did not finish in time.
            EngineRefusedError: It does not want to.
        """
        deadline = self._clock.monotonic() + timeout_s
        with self.session() as session:
            before = self._reload_time(session)
            while not self._start_reload(session):
                self._wait(deadline, stop)
            while self._reload_time(session) == before:
                self._wait(deadline, stop)
            return self._stats(session)

    @staticmethod
    def _start_reload(session: EngineSession) -> bool:
        try:
            session.ask("ruleset-reload-nonblocking")
        except EngineRefusedError as err:
            if _BUSY not in err.answer:
                raise
            return False  # a reload that somebody began earlier; ours has to come after it
        return True

    @staticmethod
    def _reload_time(session: EngineSession) -> str:
        return str(_only_tenant(session.ask("ruleset-reload-time"), "ruleset-reload-time").get("last_reload"))

    def _wait(self, deadline: float, stop: threading.Event) -> None:
        if stop.wait(_RELOAD_POLL_S):
            raise EngineUnavailableError("engine: the agent stops while rules are reloaded")
        if self._clock.monotonic() > deadline:
            raise EngineUnavailableError("engine: reload of the rules did not end in time")

    def change_dataset(self, name: str, changes: Iterable[tuple[bool, bytes]]) -> DatasetChange:
        """Put entries into a dataset of strings or take them out; each acts at once.

        Idempotent: an entry to remove may be absent, one to add may be there already. Costs about 80 µs an entry.

        Args:
            name: The dataset.
            changes: Whether the entry is added (else removed), and the entry.

        Raises:
            EngineUnavailableError: The engine went away; some of the changes may have been made.
            EngineRefusedError: It has no such dataset, or does not take an entry.
        """
        added = removed = 0
        with self.session() as session:
            for is_added, value in changes:
                data = base64.b64encode(value).decode("ascii")
                command = "dataset-add" if is_added else "dataset-remove"
                try:
                    session.ask(command, setname=name, settype="string", datavalue=data)
                except EngineRefusedError as err:
                    if is_added or "set not found" in err.answer:
                        raise
                    continue
                added += is_added
                removed += not is_added
        return DatasetChange(added=added, removed=removed)

    def has_entry(self, name: str, value: bytes) -> bool:
        """Return whether a dataset of strings holds `value`."""
        data = base64.b64encode(value).decode("ascii")
        with self.session() as session:
            try:
                session.ask("dataset-lookup", setname=name, settype="string", datavalue=data)
            except EngineRefusedError as err:
                if "item not found" not in err.answer:
                    raise
                return False
        return True

    def reopen_logs(self) -> None:
        """Make the engine open its log files anew at its next write (after they were renamed)."""
        with self.session() as session:
            session.ask("reopen-log-files")

    def shutdown(self) -> None:
        """Ask the engine to end; its supervisor starts it again with the configuration of then."""
        with self.session() as session:
            session.ask("shutdown")
