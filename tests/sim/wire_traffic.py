"""What the tests of the data plane with a real engine share: a small feed, servers, clients, the control socket."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omamori_firmware.dataplane.engine import NativeEngine
from omamori_lab.native_wire import INTERNET_IPV4, NativeLane

# The industry's harmless test file, in pieces so that no scanner takes this file for it.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR" + b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
MEBI = 1 << 20
META = "metadata:omamori_function dangerous-site, omamori_severity 2"
RULES = f"""\
drop:packet dns any any -> any any (msg:"dns"; dns.query; to_lowercase; domain; dataset:isset,dangerous; {META}; sid:1;)
drop http any any -> any any (msg:"http"; http.host; to_lowercase; domain; dataset:isset,dangerous; {META}; sid:2;)
drop http any any -> any any (msg:"http exact"; http.host; to_lowercase; dataset:isset,dangerous; {META}; sid:3;)
drop tls any any -> any any (msg:"tls"; tls.sni; to_lowercase; domain; dataset:isset,dangerous; {META}; sid:4;)
drop tcp any any -> any any (msg:"file"; filesha256:malware.sha256; metadata:omamori_function virus; sid:5;)
drop udp any any -> any 5000 (msg:"bytes"; content:"forbidden"; sid:6;)
alert http any any -> any any (msg:"logged"; http.uri; content:"/logged"; sid:7;)
drop tls any 8443 -> any any (msg:"answer"; flow:to_client; tls.version:1.3; {META}; sid:8;)
"""


def write_feed(directory: Path) -> Path:
    engine = directory / "engine"
    engine.mkdir(parents=True)
    (engine / "datasets.yaml").write_text(
        "%YAML 1.1\n---\ndatasets:\n  dangerous:\n    type: string\n    load: dangerous.lst\n"
    )
    listed = ("malware.test", "bad.host.example.co.jp")
    (engine / "dangerous.lst").write_bytes(b"".join(base64.b64encode(name.encode()) + b"\n" for name in listed))
    (engine / "malware.sha256").write_text(hashlib.sha256(EICAR).hexdigest() + "\n")
    (engine / "all.rules").write_text(RULES)
    return directory


class Control:
    """The engine's control socket."""

    def __init__(self, path: Path, *, timeout_s: float = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        self._socket.connect(str(path))
        assert self._exchange({"version": "0.2"})["return"] == "OK"

    def __call__(self, command: str, **arguments: str) -> Any:
        return self._exchange({"command": command, **({"arguments": arguments} if arguments else {})})

    def close(self) -> None:
        self._socket.close()

    def _exchange(self, message: dict[str, Any]) -> Any:
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        answer = b""
        while True:
            block = self._socket.recv(1 << 16)
            if not block:
                raise ConnectionError("the engine has ended")
            answer += block
            with contextlib.suppress(ValueError):
                return json.loads(answer)


@contextlib.contextmanager
def serving(
    lane: NativeLane, port: int, handle: Callable[[socket.socket], None], *, address: str = INTERNET_IPV4
) -> Iterator[None]:
    """Serve TCP connections in the internet, one thread each."""
    listener = lane.internet.listen_tcp(address, port)
    threads = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(2)
            threads.append(threading.Thread(target=attend, args=(connection,)))
            threads[-1].start()

    def attend(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            handle(connection)

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(10)
        for thread in threads:
            thread.join(10)


def http(body: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        if connection.recv(1 << 16):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)

    return answer


def fetch(
    lane: NativeLane,
    *,
    host: str = "good.test",
    path: str = "/",
    port: int = 80,
    address: str = INTERNET_IPV4,
    timeout_s: float = 2.0,
) -> bytes:
    """Return what a client in the office gets, as far as it comes."""

    def connect() -> socket.socket:
        return socket.create_connection((address, port), timeout=timeout_s)

    got = bytearray()
    with lane.office.call(connect) as client, contextlib.suppress(TimeoutError):
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        while block := client.recv(1 << 16):
            got += block
    return bytes(got.partition(b"\r\n\r\n")[2])


class Trouble:
    """An engine that does not answer, until `end`."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._pid: int | None = None

    def stop(self) -> None:
        """Let it do nothing from now on."""
        self._pid = self._engine.pid
        os.kill(self._pid, signal.SIGSTOP)

    def end(self) -> None:
        """Let it go on, if it is still there."""
        if self._pid is not None and not self._engine.has_ended():
            os.kill(self._pid, signal.SIGCONT)
        self._pid = None
