"""The real engine and the gate together: nothing the engine would stop gets through by using an old flow's numbers."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.gate import Counter, Gate, Uninspected
from omamori_lab.native_wire import INTERNET_IPV4, OFFICE_IPV4, NativeLane
from omamori_lab.waiting import wait_for
from sim.wire_traffic import serving, write_feed

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

MEBI = 1 << 20
BULK = 12 * MEBI
# The engine lets pass for one second what has the numbers of a flow it has finished with (flow-timeouts).
FORGETS_S = 1.2
FORBIDDEN = b"GET / HTTP/1.1\r\nHost: malware.test\r\n\r\n"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage"


@pytest.fixture(scope="module")
def protected(programs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeLane]:
    made = NativeLane()
    made.start()
    try:
        made.install_wire(programs[0])
        made.prepare_engine(programs[1], write_feed(tmp_path_factory.mktemp("feed") / "feed")).start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def gate(protected: NativeLane) -> Iterator[Gate]:
    assert protected.wire is not None
    opened = Gate(protected.wire.pins)
    yield opened
    opened.close()


def connect(lane: NativeLane, server_port: int, client_port: int) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(3)
        try:
            made.bind((OFFICE_IPV4, client_port))
            made.connect((INTERNET_IPV4, server_port))
        except OSError:
            made.close()
            raise
        return made

    return lane.office.call(make)


def is_bypassed(gate: Gate, *ports: int) -> bool:
    return any({flow.a_port, flow.b_port} == set(ports) for flow in gate.bypassed_flows())


def ask(client: socket.socket, request: bytes) -> bytes:
    """Send a request; return what comes back, empty when it was stopped."""
    got = bytearray()
    with contextlib.suppress(TimeoutError):
        client.sendall(request)
        client.settimeout(1)
        while block := client.recv(1 << 16):
            got += block
    return bytes(got)


def count_alerts(lane: NativeLane) -> int:
    assert lane.engine is not None
    return len(lane.engine.events.read_text().splitlines())


def answer(connection: socket.socket) -> None:
    """Answer a request with a page, and a number with so many bytes."""
    if request := connection.recv(1 << 16):
        connection.sendall(PAGE if request.startswith(b"GET") else os.urandom(MEBI) * (int(request) // MEBI))


def test_stopped_connection_stays_stopped_however_often_it_is_tried_again(protected: NativeLane, gate: Gate) -> None:
    """The client's own retransmissions, more data, and answers of the server: nothing of it is ever bypassed."""
    before = gate.uninspected()
    with serving(protected, 8100, answer), contextlib.closing(connect(protected, 8100, 42000)) as client:
        assert ask(client, FORBIDDEN) == b""
        for _ in range(3):
            assert ask(client, b"x" * 4000) == b""
        assert not is_bypassed(gate, 8100, 42000)
    after = gate.uninspected()
    assert after[Uninspected.NO_VERDICT] == before[Uninspected.NO_VERDICT]


@pytest.mark.parametrize("pause_s", [FORGETS_S, 9.0])
def test_new_connection_with_the_numbers_of_a_bypassed_one_is_inspected(
    protected: NativeLane, gate: Gate, pause_s: float
) -> None:
    client_port = 42010 + int(pause_s)
    with serving(protected, 8101, answer):
        with contextlib.closing(connect(protected, 8101, client_port)) as client:
            assert len(ask(client, b"%d" % BULK)) == BULK
            assert is_bypassed(gate, 8101, client_port)
        time.sleep(pause_s)
        told = count_alerts(protected)
        with contextlib.closing(connect(protected, 8101, client_port)) as client:
            assert not is_bypassed(gate, 8101, client_port)
            assert ask(client, FORBIDDEN) == b""
            assert not is_bypassed(gate, 8101, client_port)
        wait_for(lambda: count_alerts(protected) > told, "the alert", timeout_s=10)


def test_new_connection_with_the_numbers_of_a_bypassed_tls_connection_is_inspected(
    protected: NativeLane, gate: Gate, certificate: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE

    def serve(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) == b"\x16":
            with context.wrap_socket(connection, server_side=True) as secure:
                answer(secure)
        else:
            answer(connection)

    with serving(protected, 8104, serve):
        plain = connect(protected, 8104, 42004)
        with plain, trusting.wrap_socket(plain, server_hostname="good.test") as client:
            assert len(ask(client, b"%d" % MEBI)) == MEBI
            assert is_bypassed(gate, 8104, 42004)
        time.sleep(FORGETS_S)
        told = count_alerts(protected)
        with contextlib.closing(connect(protected, 8104, 42004)) as client:
            assert ask(client, FORBIDDEN) == b""
            assert not is_bypassed(gate, 8104, 42004)
        wait_for(lambda: count_alerts(protected) > told, "the alert", timeout_s=10)


def test_bypassed_connection_is_inspected_again_after_the_epoch_was_raised(protected: NativeLane, gate: Gate) -> None:
    """Past the depth of the stream nobody looks at further requests; once the gate has forgotten, the engine does."""

    def serve(connection: socket.socket) -> None:
        while request := connection.recv(1 << 16):
            size = 24 * MEBI if b"large" in request else 4
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))

    with serving(protected, 80, serve), contextlib.closing(connect(protected, 80, 42005)) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: good.test\r\n\r\n")
        received = 0
        while received < 24 * MEBI:
            received += len(client.recv(1 << 18))
        assert is_bypassed(gate, 80, 42005)
        time.sleep(FORGETS_S)
        gate.raise_epoch()
        assert ask(client, FORBIDDEN) == b""


def test_new_connection_with_the_numbers_of_a_stopped_one_does_not_get_through(
    protected: NativeLane, gate: Gate
) -> None:
    with serving(protected, 8102, answer):
        with contextlib.closing(connect(protected, 8102, 42002)) as client:
            assert ask(client, FORBIDDEN) == b""
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends with a RST
        with (
            contextlib.suppress(OSError),  # the engine goes on stopping these numbers for a while
            contextlib.closing(connect(protected, 8102, 42002)) as client,
        ):
            assert ask(client, FORBIDDEN) == b""
        assert not is_bypassed(gate, 8102, 42002)


def test_raised_epoch_sends_a_running_flow_through_the_engine_without_disturbing_it(
    protected: NativeLane, gate: Gate
) -> None:
    stop = threading.Event()

    def send(connection: socket.socket) -> None:
        while not stop.is_set():
            connection.sendall(bytes(MEBI))

    with serving(protected, 8103, send), contextlib.closing(connect(protected, 8103, 42003)) as client:
        try:
            wait_for(lambda: client.recv(1 << 18) and is_bypassed(gate, 8103, 42003), "bypass", timeout_s=30, every_s=0)
            gate.raise_epoch()
            before = gate.counters()[Counter.INSPECTED].packets
            wait_for(
                lambda: client.recv(1 << 18) and gate.counters()[Counter.INSPECTED].packets > before + 100,
                "the flow in the queue",
                timeout_s=30,
                every_s=0,
            )
        finally:
            stop.set()
