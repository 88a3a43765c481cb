"""The serial line as a file descriptor: a terminal device, a pseudo-terminal or a unix socket.

It moves bytes and knows nothing of frames. A line that is gone raises; opening it again is the caller's decision.
"""

import os
import select
import socket
import stat
import termios
import tty
from pathlib import Path
from typing import Self

from omamori_hw.errors import LinkLostError

_SPEED = termios.B115200
_READ = 4096
_WRITE_TIMEOUT_S = 1.0


class Line:
    """An open line; usable as a context manager that closes it."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open descriptor; it becomes non-blocking."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        """Return the line."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Close the line."""
        self.close()

    def read(self, timeout_s: float) -> bytes:
        """Return what has come, waiting for it at most so long; nothing when nothing came.

        Raises:
            LinkLostError: The other end is gone.
        """
        try:
            readable, _, _ = select.select([self._descriptor], [], [], max(timeout_s, 0))
            if not readable:
                return b""
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as err:
            raise LinkLostError(f"the line to the supervisor broke ({err})") from err
        if not data:
            raise LinkLostError("the line to the supervisor was closed")
        return data

    def write(self, data: bytes) -> None:
        """Send all bytes.

        Raises:
            LinkLostError: The other end is gone, or has taken nothing for a second.
        """
        while data:
            try:
                _, writable, _ = select.select([], [self._descriptor], [], _WRITE_TIMEOUT_S)
                if not writable:
                    raise LinkLostError("the line to the supervisor takes nothing")
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                continue
            except (OSError, ValueError) as err:
                raise LinkLostError(f"the line to the supervisor broke ({err})") from err

    def close(self) -> None:
        """Close the descriptor; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_line(path: Path) -> Line:
    """Open a terminal device (raw, 115200 baud, 8N1, no flow control) or connect to a unix socket.

    Raises:
        LinkLostError: It is not there, or is neither.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISSOCK(mode):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(path))
            except OSError:
                connection.close()
                raise
            return Line(connection.detach())
        if not stat.S_ISCHR(mode):
            raise LinkLostError(f"{path} is no serial line")
        return Line(_open_terminal(path))
    except (OSError, termios.error) as err:
        raise LinkLostError(f"the line {path} to the supervisor cannot be opened ({err})") from err


def _open_terminal(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        mode = termios.tcgetattr(descriptor)
        mode[2] = mode[2] & ~(termios.CSTOPB | termios.PARENB | termios.CRTSCTS) | termios.CLOCAL | termios.CREAD
        mode[4] = mode[5] = _SPEED
        termios.tcsetattr(descriptor, termios.TCSANOW, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
