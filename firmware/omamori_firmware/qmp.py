"""QEMU's control channel: one command, one answer, over a unix socket.

Events are kept in a bounded list for whoever asks; nothing is interpreted here.
"""

import json
import socket
import threading
from collections import deque
from pathlib import Path
from typing import Any

from omamori_firmware.errors import MachineError

_MAX_LINE_BYTES = 4 << 20
_MAX_EVENTS = 256


class QMP:
    """A connection to one machine's control channel; commands from several threads take turns."""

    def __init__(self, path: Path, *, timeout_s: float = 30.0) -> None:
        """Connect and leave the greeting behind.

        Args:
            path: The socket.
            timeout_s: Seconds to wait for each answer.

        Raises:
            MachineError: Nobody answers.
        """
        self._lock = threading.Lock()
        self._buffer = b""
        self.events: deque[dict[str, Any]] = deque(maxlen=_MAX_EVENTS)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
            self._read()
            self.command("qmp_capabilities")
        except OSError as err:
            self._socket.close()
            raise MachineError(f"the machine's control channel {path} does not answer ({err})") from err

    def command(self, name: str, /, **arguments: Any) -> Any:
        """Send a command and return its result.

        Args:
            name: QMP command.
            **arguments: Its arguments; `_` stands for `-`.

        Raises:
            MachineError: QEMU refused the command, or is gone.
        """
        request = {"execute": name, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        with self._lock:
            try:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
                while True:
                    answer = self._read()
                    if "event" in answer:
                        self.events.append(answer)
                    elif "error" in answer:
                        raise MachineError(f"QEMU refused {name}: {answer['error'].get('desc')}")
                    elif "return" in answer:
                        return answer["return"]
            except (OSError, ValueError) as err:
                raise MachineError(f"the machine's control channel broke at {name} ({err})") from err

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise ValueError("answer too long")
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("closed by the machine")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ConnectionError("answer is not an object")
        return answer
