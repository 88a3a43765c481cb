"""Opens the socket that the page listens on, or takes over one that the parent process opened.

Without a login the loopback address is the fence: any other address is refused unless the operator insists.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from .errors import ListenError

_BACKLOG = 128
_INHERITED = re.compile(r"fd://(\d{1,4})")
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)|(localhost)):(\d{1,5})")


def open_listener(spec: str, *, allow_remote: bool) -> socket.socket:
    """Return a listening socket.

    Args:
        spec: ``127.0.0.1:8080``, ``[::1]:8080``, or ``fd://3`` for a socket that was inherited already listening.
        allow_remote: Permit an address that other machines can reach.

    Raises:
        ListenError: Not such a specification, an address that is not permitted, in use, or not a listening socket.
    """
    inherited = _INHERITED.fullmatch(spec)
    listener = _take_over(int(inherited[1])) if inherited else _open(spec, allow_remote=allow_remote)
    try:
        _check_reach(str(listener.getsockname()[0]), allow_remote=allow_remote)
    except ListenError:
        listener.close()
        raise
    return listener


def describe(listener: socket.socket) -> str:
    """Return the page's address for people, for example ``http://127.0.0.1:8080/``."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _check_reach(address: str, *, allow_remote: bool) -> None:
    if allow_remote or ipaddress.ip_address(address.split("%", 1)[0]).is_loopback:
        return
    raise ListenError(
        f"listen: {address} can be reached from other machines, and the page has no login",
        hint="use 127.0.0.1, or give --allow-remote if something in front of it asks for a password",
    )


def _take_over(descriptor: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=descriptor)
    except OSError as err:
        raise ListenError(f"listen: descriptor {descriptor} is not a socket: {err.strerror}") from err
    internet = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not internet or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()  # it is not ours to close
        raise ListenError(f"listen: descriptor {descriptor} is not a listening TCP socket")
    listener.set_inheritable(False)
    return listener


def _open(spec: str, *, allow_remote: bool) -> socket.socket:
    match = _ADDRESS.fullmatch(spec)
    port = int(match[4]) if match else 0
    if match is None or port > 65535:
        raise ListenError(f"listen: {spec[:60]!r} is not an address", hint="127.0.0.1:8080, [::1]:8080 or fd://3")
    host = match[1] or match[2] or "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError as err:
        raise ListenError(f"listen: {host!r} is not an IP address", hint="127.0.0.1:8080") from err
    _check_reach(host, allow_remote=allow_remote)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as err:
        listener.close()
        raise ListenError(f"listen: {spec}: {err.strerror}") from err
    return listener
