"""A TUF repository that a test can edit into every wrong shape, and a web server that can misbehave.

The repository is files in a dictionary; nothing is signed unless a method says so, so a test can publish a
timestamp without its snapshot, mix versions, or sign with a key of its own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from sim.pki import Authority

FAR = dt.datetime(2036, 1, 1, tzinfo=dt.UTC)
TARGET = "feed/demo/pack.tar.gz"


def signer() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


class RepositorySimulator:
    """The product's layout: root 2 of 3, targets, `feed/*/*` delegated to `feed`, snapshot, timestamp."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.signers: dict[str, list[CryptoSigner]] = {
            "root": [signer(), signer(), signer()],
            "targets": [signer()],
            "feed": [signer()],
            "snapshot": [signer()],
            "timestamp": [signer()],
        }
        self.root = Root(expires=FAR)
        for role in ("root", "targets", "snapshot", "timestamp"):
            for item in self.signers[role]:
                self.root.add_key(_key(item), role)
        self.root.roles["root"].threshold = 2
        self.targets = Targets(expires=FAR)
        key = _key(self.signers["feed"][0])
        delegated = DelegatedRole("feed", [key.keyid], 1, terminating=True, paths=["feed/*/*"])
        self.targets.delegations = Delegations({key.keyid: key}, {"feed": delegated})
        self.feed = Targets(expires=FAR)
        self.snapshot = Snapshot(expires=FAR, meta={"targets.json": MetaFile(), "feed.json": MetaFile()})
        self.timestamp = Timestamp(expires=FAR)
        self.write_root()
        self.write(self.targets, "targets")
        self.write(self.feed, "feed")
        self.write_snapshot()
        self.write_timestamp()

    @property
    def trusted_root(self) -> bytes:
        """What the image is built with."""
        return self.files["metadata/1.root.json"]

    def encode(self, signed: Signed, signers: Iterable[CryptoSigner]) -> bytes:
        metadata = Metadata(signed)
        for item in signers:
            metadata.sign(item, append=True)
        return metadata.to_bytes(JSONSerializer())

    def write(self, signed: Signed, role: str, *, by: Iterable[CryptoSigner] | None = None) -> bytes:
        """Sign one role's metadata and put it where a client with consistent snapshots looks for it."""
        data = self.encode(signed, self.signers[role] if by is None else by)
        name = "timestamp" if role == "timestamp" else f"{signed.version}.{role}"
        self.files[f"metadata/{name}.json"] = data
        return data

    def write_root(self, *, by: Iterable[CryptoSigner] | None = None) -> None:
        self.write(self.root, "root", by=by)

    def write_snapshot(self) -> None:
        self.snapshot.meta["targets.json"].version = self.targets.version
        self.snapshot.meta["feed.json"].version = self.feed.version
        self.write(self.snapshot, "snapshot")

    def write_timestamp(self) -> None:
        self.timestamp.snapshot_meta.version = self.snapshot.version
        self.write(self.timestamp, "timestamp")

    def put_target(self, data: bytes, custom: Any, *, path: str = TARGET) -> str:
        """Name a pack in the feed role and store it; returns where. Nothing is signed."""
        target = TargetFile.from_data(path, data, ["sha256"])
        target.unrecognized_fields["custom"] = custom
        self.feed.targets[path] = target
        folder, _, name = path.rpartition("/")
        place = f"targets/{folder}/{target.hashes['sha256']}.{name}"
        self.files[place] = data
        return place

    def publish(self, data: bytes, serial: int) -> str:
        """Publish a pack as the product does; returns where it is stored."""
        place = self.put_target(data, {"serial": serial, "format": 1})
        self.sign_all()
        return place

    def sign_all(self) -> None:
        """Raise the versions of feed, snapshot and timestamp and publish them."""
        self.feed.version += 1
        self.write(self.feed, "feed")
        self.resign()

    def resign(self) -> None:
        """Raise the versions of snapshot and timestamp and publish them."""
        self.snapshot.version += 1
        self.write_snapshot()
        self.timestamp.version += 1
        self.write_timestamp()


def _key(item: CryptoSigner) -> Key:
    return item.public_key


Behaviour = Callable[[BaseHTTPRequestHandler], None]


class FileServer:
    """HTTPS on loopback over a dictionary of files. `behaviours` replaces the answer to a path."""

    def __init__(self, files: dict[str, bytes], directory: Path, *, authority: Authority | None = None) -> None:
        self.files = files
        self.behaviours: dict[str, Behaviour] = {}
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.sent: dict[str, int] = {}
        self.connections = 0
        self.keeps_alive = True
        self.stopping = threading.Event()
        authority = authority or Authority("service ca")
        self.ca_file = directory / "service-ca.pem"
        self.ca_file.write_bytes(authority.pem)
        key, certificate = directory / "server.key", directory / "server.crt"
        authority.issue("localhost", client=False, names=("localhost",)).write(key, certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = _Server(self, context)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"https://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: FileServer, context: ssl.SSLContext) -> None:
        self.owner = owner
        self.context = context
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one write: header and body apart would wait for each other
    server: _Server

    def setup(self) -> None:
        self.request.settimeout(20)
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        self.server.owner.connections += 1
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.request.close()

    def do_GET(self) -> None:
        owner = self.server.owner
        path = self.path.lstrip("/")
        owner.requests.append(path)
        if not owner.keeps_alive:
            self.close_connection = True
        behaviour = owner.behaviours.get(path)
        if behaviour is not None:
            behaviour(self)
            return
        data = owner.files.get(path)
        if data is not None and "Range" in self.headers:
            answer_range(self, data)
            return
        answer(self, 404 if data is None else 200, data or b"not found")

    def log_message(self, *_args: Any) -> None:
        pass


def answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    """Send a whole answer."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def answer_range(handler: BaseHTTPRequestHandler, data: bytes, *, cut_after: int | None = None, **headers: str) -> None:
    """Send what ``Range: bytes=a-b`` asks for; with `cut_after`, the connection breaks after so many bytes."""
    owner: FileServer = handler.server.owner  # type: ignore[attr-defined]
    wanted = handler.headers["Range"]
    owner.ranges.append(wanted)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
    handler.send_response(206)
    given = {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"} | headers
    for name, value in given.items():
        handler.send_header(name, value)
    handler.end_headers()
    body = data[start:end] if cut_after is None else data[start : min(end, start + cut_after)]
    path = handler.path.lstrip("/")
    owner.sent[path] = owner.sent.get(path, 0) + len(body)
    handler.wfile.write(body)
    if len(body) < end - start:
        handler.close_connection = True


def status(code: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Return the behaviour of a server that answers so."""
    return lambda handler: answer(handler, code, body, **headers)


def endless(*, code: int = 200) -> Behaviour:
    """Return the behaviour of a server that never stops sending."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(code)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not handler.server.owner.stopping.is_set():  # type: ignore[attr-defined]
                handler.wfile.write(b"x" * 65536)

    return behave


def drip(*, length: int = 1_000_000, pause_s: float = 0.05, headers_too: bool = False) -> Behaviour:
    """Return the behaviour of a server that sends a byte now and then, each in time for any read time-out."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        stopping: threading.Event = handler.server.owner.stopping  # type: ignore[attr-defined]
        if headers_too:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", str(length))
            handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(length):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                if stopping.wait(pause_s):
                    return

    return behave


def cut_off(body: bytes) -> Behaviour:
    """Return the behaviour of a server whose connection breaks half way."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])

    return behave


def tree(directory: Path) -> dict[str, bytes | str]:
    """Return everything below a directory: to show that a refusal changed nothing."""
    return dict(_walk(directory, directory))


def _walk(directory: Path, top: Path) -> Iterator[tuple[str, bytes | str]]:
    for path in sorted(directory.iterdir()):
        name = str(path.relative_to(top))
        if path.is_symlink():
            yield name, f"-> {path.readlink()}"
        elif path.is_dir():
            yield name, "directory"
            yield from _walk(path, top)
        else:
            yield name, path.read_bytes()
