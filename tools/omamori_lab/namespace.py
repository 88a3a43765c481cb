"""Network namespaces: made, entered, left and deleted.

A namespace is entered by a program (`command`: argument list with nsenter, same process id throughout) or by a short
thread of ours that opens sockets there (`call`): a socket stays in the namespace it was made in. No thread that
serves something ever changes its namespace.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from .errors import LabError
from .journal import NETNS, Journal, end_process, processes_inside
from .run import run

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_WITH_RESOLVER = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One named network namespace.

    Args:
        journal: Where its existence is noted before it is made.
        role: What it stands for; its name is ``om<run>-<role>``.
    """

    def __init__(self, journal: Journal, role: str) -> None:
        self._journal = journal
        self.role = role
        self.name = f"om{journal.run_id}-{role}"
        self.path = NETNS / self.name

    def create(self) -> None:
        """Make it, with its loopback up."""
        self._journal.add_namespace(self.name)
        run(["ip", "netns", "add", self.name], timeout_s=10, hint="the lab needs root")
        self.configure(["link set lo up"])

    def delete(self) -> None:
        """End what still runs inside, then remove it."""
        for mark in processes_inside(self.name):
            end_process(mark)
        if self.path.exists():
            run(["ip", "netns", "delete", self.name], timeout_s=10)
        self._journal.remove_namespace(self.name)

    def configure(self, commands: Sequence[str]) -> None:
        """Run `ip` commands inside, for example ``link set eth0 up``."""
        run(["ip", "-n", self.name, "-batch", "-"], timeout_s=15, stdin="\n".join(commands) + "\n")

    def sysctl(self, **values: int) -> None:
        """Write settings below net/, with slashes as double underscores: ``ipv4__ip_forward=1``."""

        def write() -> None:
            for name, value in values.items():
                Path(f"/proc/sys/net/{name.replace('__', '/')}").write_text(f"{value}\n")

        self.call(write)

    def command(self, argv: Sequence[str | Path], *, resolver: Path | None = None) -> list[str]:
        """Return the argument list that runs a program inside.

        Args:
            argv: The program and its arguments.
            resolver: File that the program shall see as /etc/resolv.conf, in a mount namespace that ends with it.
        """
        words = ["nsenter", f"--net={self.path}"]
        if resolver is not None:
            words += ["unshare", "--mount", "--propagation", "private", "sh", "-c", _WITH_RESOLVER, "sh", str(resolver)]
        else:
            words.append("--")
        return [*words, *map(str, argv)]

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread that is inside, and return its result or raise its exception."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                self._enter()
                outcome.append(function())
            except BaseException as err:  # noqa: BLE001 - handed over to the caller's thread
                failure.append(err)

        thread = threading.Thread(target=inside, name=f"in {self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def listen_tcp(self, address: str, port: int) -> socket.socket:
        """Return a listening TCP socket inside."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def make() -> socket.socket:
            return socket.create_server((address, port), family=family, backlog=64)

        return self.call(make)

    def bind_udp(self, address: str, port: int = 0) -> socket.socket:
        """Return a bound UDP socket inside."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((address, port))
            return made

        return self.call(make)

    def accepts(self, address: str, port: int) -> bool:
        """Whether something inside accepts TCP connections at an address of this namespace."""

        def attempt() -> bool:
            try:
                socket.create_connection((address, port), timeout=1).close()
            except OSError:
                return False
            return True

        return self.call(attempt)

    def open_tap(self, name: str) -> int:
        """Make a tap inside and return its descriptor; the tap lives as long as the descriptor.

        The virtio header is on, so that segmentation and checksum offloads of the guest work.
        """

        def make() -> int:
            handle = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
                fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            except OSError:
                os.close(handle)
                raise
            return handle

        return self.call(make)

    def _enter(self) -> None:
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(handle, _CLONE_NEWNET) != 0:
                raise LabError(
                    f"cannot enter {self.name}: {os.strerror(ctypes.get_errno())}", hint="the lab needs root"
                )
        finally:
            os.close(handle)
