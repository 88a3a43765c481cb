"""The office's HTTP proxy: a tunnel through it to a named host and port.

TLS with the host itself runs inside, whoever asks for the tunnel; a proxy sees a name and a port, and nothing else.
No login, no search for a proxy. Everything is bounded in bytes and by one deadline.
"""

from __future__ import annotations

import logging
import re
import socket
import time

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 8192
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")

Proxy = tuple[str, int]


class HeadError(ConnectionError):
    """What answers does not speak HTTP as it must, or refuses."""


def connect(host: str, port: int, proxy: Proxy | None, timeout_s: float) -> socket.socket:
    """Return a plain connection: through the proxy if there is one, else directly, and directly if that fails.

    Args:
        host: Name or address; a proxy looks the name up itself.
        port: Port.
        proxy: Host and port of the office's proxy, or None.
        timeout_s: Seconds for each of the two.

    Raises:
        OSError: There is no way there.
    """
    if proxy is not None:
        try:
            return connect_through(proxy, host, port, timeout_s)
        except OSError as err:
            logger.info("%s:%d through %s:%d: %s; trying without it", host, port, *proxy, err)
    return socket.create_connection((host, port), timeout=timeout_s)


def connect_through(proxy: Proxy, host: str, port: int, timeout_s: float) -> socket.socket:
    """Return a plain connection through a proxy; raises `OSError` (`HeadError`) if it does not give one in time."""
    deadline_s = time.monotonic() + timeout_s
    plain = socket.create_connection(proxy, timeout=timeout_s)
    try:
        _ask(plain, host, port, deadline_s)
        plain.settimeout(timeout_s)
    except BaseException:
        plain.close()
        raise
    return plain


def read_head(sock: socket.socket, deadline_s: float, who: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of an HTTP answer, reading not a byte of what follows them.

    Args:
        sock: Where it comes from.
        deadline_s: Until when, monotonic seconds.
        who: For the errors.

    Raises:
        HeadError: It is not one, or too long.
        TimeoutError: It did not come in time.
    """
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        sock.settimeout(left_s(deadline_s))
        byte = sock.recv(1)
        if not byte:
            raise HeadError(f"{who}: ends in the middle of its answer")
        head += byte
        if len(head) > MAX_HEAD_BYTES:
            raise HeadError(f"{who}: an answer of more than {MAX_HEAD_BYTES} bytes")
    first, *rest = bytes(head[:-4]).split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise HeadError(f"{who}: not an HTTP answer")
    headers: dict[str, str] = {}
    for line in rest:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise HeadError(f"{who}: not an HTTP header")
        headers[match[1].decode("ascii").lower()] = match[2].decode("latin-1")
    return int(status[1]), headers


def left_s(deadline_s: float) -> float:
    """Return the seconds until a deadline; raises `TimeoutError` when there are none."""
    seconds = deadline_s - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("takes too long")
    return seconds


def _ask(sock: socket.socket, host: str, port: int, deadline_s: float) -> None:
    target = f"{host}:{port}"
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii"))
    status, _headers = read_head(sock, deadline_s, "proxy")
    if not 200 <= status < 300:
        wanted = " (it wants a login, which is not supported)" if status == 407 else ""
        raise HeadError(f"proxy: refused with {status}{wanted}")
