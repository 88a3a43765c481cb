"""A firmware over bad networks: a real web server, a line that fails byte by byte, and the box's own fetcher.

What is counted is what the line carried, so a byte that was fetched twice cannot hide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import subprocess  # noqa: TID251 - starts a web server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.firmware.errors import UpdateRefusedError, UpdateWaitsError
from omamori_agent.firmware.fetch import BundleFetcher
from omamori_agent.firmware.limits import FirmwareLimits
from omamori_agent.firmware.release import PayloadTarget
from omamori_agent.firmware.store import FirmwareStore
from omamori_agent.firmware.stream import HTTPSStream, RateCap, make_fetcher
from omamori_lab.waiting import wait_for
from omamori_protocol.firmware_release import Payload, PayloadKind
from omamori_protocol.vocabulary import FirmwareReason, Slot
from sim.box import box_config
from sim.firmware_box import apply_here
from sim.firmware_release import ReleaseSource, noise
from sim.pki import Authority
from sim.rough_line import RoughLine, Weather

pytestmark = pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx")

MIB = 1024 * 1024
SOURCE = ReleaseSource(version="1.1.0", bundle=noise("networks", 12 * MIB + 12_345), segment_bytes=MIB)
INDEX, PACKED = SOURCE.payload(delta=False)
FULL = Payload(kind=PayloadKind.FULL, base="", path="firmware/x/1.1.0/full.index", length=1)
LIMITS = FirmwareLimits(batch_bytes=5 * MIB, reserve_bytes=0)
# What the box reads at a time, and a TLS record and a handshake beside it.
CHUNK = 32 * 1024
OVERHEAD = 16 * 1024
NEVER = threading.Event()
CONFIG = """daemon off;
master_process off;
pid {state}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  default_type application/octet-stream;
  access_log off;
  client_body_temp_path {state}/body;
  proxy_temp_path {state}/proxy;
  fastcgi_temp_path {state}/fastcgi;
  uwsgi_temp_path {state}/uwsgi;
  scgi_temp_path {state}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {state}/tls.crt;
    ssl_certificate_key {state}/tls.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    root {state}/www;
    location /elsewhere {{ return 302 /payload; }}
    location /moved {{ return 308 https://localhost:1/payload; }}
    location /gone {{ return 410; }}
    location /busy {{ return 503; }}
  }}
}}
"""


class Net:
    """A store, a web server with one payload, the line between, and what fetches."""

    def __init__(self, directory: Path, line: RoughLine, ca_file: Path) -> None:
        self.line = line
        self.ca_file = ca_file
        self.paths = box_config(directory / "box").paths
        self.limits = LIMITS
        self.name = "payload"
        self.restart()

    def restart(self) -> None:
        """The agent starts anew."""
        self.store = FirmwareStore(self.paths.firmware, reserve_bytes=0)
        self.store.load()
        self.fetcher = BundleFetcher(self.store, self.paths.slot_devices(Slot.A), self.limits, run=apply_here)
        self.stream = HTTPSStream(make_fetcher(self.ca_file, self.store.download, self.limits), self.limits)

    def obtain(self) -> None:
        url = f"https://localhost:{self.line.port}/{self.name}"
        target = PayloadTarget(url, INDEX, INDEX.encode(), INDEX.payload_length)
        self.fetcher.obtain(target, FULL, self.stream, RateCap(0, lambda _seconds: None), NEVER)

    def obtain_often(self, times: int, *, restarts: bool = False) -> list[FirmwareReason]:
        """Try until it is whole; return what it waited for."""
        reasons: list[FirmwareReason] = []
        for _ in range(times):
            try:
                self.obtain()
            except UpdateWaitsError as err:
                reasons.append(err.reason)
                if restarts:
                    self.restart()
            else:
                return reasons
        raise AssertionError(f"not whole after {times} tries")

    def is_whole(self) -> bool:
        return self.store.bundle.read_bytes() == SOURCE.bundle


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    state = tmp_path_factory.mktemp("nginx")
    authority = Authority("service ca")
    (state / "ca.pem").write_bytes(authority.pem)
    authority.issue("localhost", client=False, names=("localhost",)).write(state / "tls.key", state / "tls.crt")
    (state / "www").mkdir()
    (state / "www" / "payload").write_bytes(PACKED)
    (state / "www" / "short").write_bytes(PACKED[: 3 * MIB])
    (state / "www" / "long").write_bytes(PACKED + b"more")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (state / "nginx.conf").write_text(CONFIG.format(state=state, port=port))
    process = subprocess.Popen(["nginx", "-e", "stderr", "-c", str(state / "nginx.conf")], stderr=subprocess.PIPE)

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        wait_for(answers, "nginx", timeout_s=20)
        yield port, state / "ca.pem"
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture
def net(server: tuple[int, Path], tmp_path: Path) -> Iterator[Net]:
    port, ca_file = server
    with RoughLine(port) as line:
        yield Net(tmp_path, line, ca_file)


def test_a_good_line_carries_every_byte_once(net: Net) -> None:
    net.obtain()
    assert net.is_whole()
    assert net.line.carried < len(PACKED) * 1.01 + OVERHEAD


@pytest.mark.parametrize("has_new_agent", [False, True])
def test_line_that_is_cut_at_every_mib(net: Net, has_new_agent: bool) -> None:
    net.line.weather = Weather(cut_after=MIB)
    reasons = net.obtain_often(40, restarts=has_new_agent)
    assert net.is_whole()
    assert set(reasons) == {FirmwareReason.UNREACHABLE}
    assert len(reasons) >= 12
    wasted = net.line.carried - len(PACKED)
    assert wasted <= len(reasons) * (CHUNK + OVERHEAD), f"{wasted // len(reasons)} bytes a cut"


def test_line_that_stalls_again_and_again(net: Net) -> None:
    net.limits = dataclasses.replace(LIMITS, read_timeout_s=0.5)
    net.restart()
    net.line.weather = Weather(stall_after=3 * MIB)
    reasons = net.obtain_often(12)
    assert net.is_whole()
    assert set(reasons) == {FirmwareReason.UNREACHABLE}
    assert net.line.carried - len(PACKED) <= len(reasons) * (CHUNK + OVERHEAD)


def test_slow_line_is_enough(net: Net) -> None:
    net.line.weather = Weather(bytes_per_s=6 * MIB)
    net.obtain()
    assert net.is_whole()
    assert net.line.connections == 1


def test_line_that_crawls_is_left_and_taken_up(net: Net) -> None:
    net.limits = dataclasses.replace(LIMITS, request_s=0.5, min_bytes_per_s=8 * MIB)
    net.restart()
    net.line.weather = Weather(bytes_per_s=256 * 1024)
    with pytest.raises(UpdateWaitsError, match="too slow"):
        net.obtain()
    came = sum(path.stat().st_size for path in net.store.download.glob("packed.*"))
    assert came > 0
    net.limits = LIMITS
    net.restart()
    net.line.weather = Weather()
    net.obtain()
    assert net.is_whole()
    assert net.line.carried - len(PACKED) <= 2 * (CHUNK + OVERHEAD) + MIB // 4  # what lay in the sockets


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("short", "another range"),
        ("long", "another range"),
        ("elsewhere", "HTTP status 302"),
        ("moved", "HTTP status 308"),
        ("gone", "HTTP status 410"),
        ("busy", "HTTP status 503"),
        ("nothing", "HTTP status 404"),
    ],
)
def test_server_without_what_was_signed(net: Net, name: str, text: str) -> None:
    net.name = name
    with pytest.raises((UpdateWaitsError, UpdateRefusedError), match=text):
        net.obtain()
    assert not any(path.stat().st_size for path in (net.store.bundle, *net.store.download.glob("packed.*")))
    net.name = "payload"
    net.obtain()
    assert net.is_whole()
