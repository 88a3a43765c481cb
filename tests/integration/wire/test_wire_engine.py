"""The whole data plane with the real engine and the box's own configuration: block, log, bypass, fail open."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_agent.gate import Gate
from omamori_agent.gate.layout import Counter
from omamori_firmware import enter
from omamori_firmware.dataplane.engine import (
    BOX_CACHE,
    BOX_CONFIGURATION,
    BOX_FEED,
    BOX_RUN,
    NativeEngine,
    adapt_configuration,
)
from omamori_firmware.errors import ToolError
from omamori_firmware.recipe import source_tree
from omamori_firmware.run import run
from omamori_lab.native_wire import INTERNET_IPV4, INTERNET_IPV6, OFFICE_IPV4, NativeLane
from omamori_lab.waiting import wait_for
from sim.wire_traffic import EICAR, MEBI, Control, fetch, http, serving, write_feed

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def protected(programs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeLane]:
    """A lane whose engine runs; tests must leave it running."""
    made = NativeLane()
    made.start()
    try:
        made.install_wire(programs[0])
        made.prepare_engine(programs[1], write_feed(tmp_path_factory.mktemp("feed") / "feed")).start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def engine(protected: NativeLane) -> NativeEngine:
    assert protected.engine is not None
    return protected.engine


@pytest.fixture
def gate(protected: NativeLane) -> Iterator[Gate]:
    assert protected.wire is not None
    opened = Gate(protected.wire.pins)
    yield opened
    opened.close()


@pytest.fixture
def control(engine: NativeEngine) -> Iterator[Control]:
    opened = Control(engine.control_socket)
    yield opened
    opened.close()


def alerts(engine: NativeEngine) -> list[dict[str, Any]]:
    return [json.loads(line) for line in engine.events.read_text().splitlines()]


def query(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def resolves(lane: NativeLane, name: str, source: socket.socket) -> bool:
    server = lane.internet.bind_udp(INTERNET_IPV4, 53)
    server.settimeout(0.5)
    with server:
        source.sendto(query(name), (INTERNET_IPV4, 53))
        with contextlib.suppress(TimeoutError):
            data, client = server.recvfrom(600)
            answer = data[:2] + b"\x81\x80" + data[4:6] + data[4:6] + bytes(4) + data[12:]
            server.sendto(answer + b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([198, 51, 100, 10]), client)
            return bool(source.recv(600))
    return False


@pytest.mark.parametrize("port", [80, 8081])
def test_listed_file_does_not_arrive_over_http_on_any_port(
    protected: NativeLane, engine: NativeEngine, port: int
) -> None:
    seen = len(alerts(engine))
    with serving(protected, port, http(EICAR)):
        assert EICAR not in fetch(protected, port=port)
    with serving(protected, port, http(b"harmless")):
        assert fetch(protected, port=port) == b"harmless"
    (alert,) = alerts(engine)[seen:]
    assert alert["event_type"] == "alert"
    assert alert["alert"]["action"] == "blocked"
    assert alert["alert"]["metadata"] == {"omamori_function": ["virus"]}
    assert alert["direction"] == "to_client"
    assert (alert["src_ip"], alert["dest_ip"], alert["src_port"]) == (INTERNET_IPV4, OFFICE_IPV4, port)
    assert (alert["flow"]["src_ip"], alert["flow"]["dest_port"]) == (OFFICE_IPV4, port)
    assert alert["files"][0]["sha256"] == hashlib.sha256(EICAR).hexdigest()


def test_listed_file_of_several_mebibytes_is_recognised_at_its_end(protected: NativeLane, control: Control) -> None:
    body = os.urandom(6 * MEBI)
    assert protected.engine is not None
    feed = Path(protected.engine._feed)
    before = (feed / "engine" / "malware.sha256").read_text()
    with serving(protected, 80, http(body)):
        assert fetch(protected, timeout_s=5) == body
        (feed / "engine" / "malware.sha256").write_text(before + hashlib.sha256(body).hexdigest() + "\n")
        assert control("reload-rules")["return"] == "OK"
        assert len(fetch(protected, timeout_s=2)) < len(body)
    (feed / "engine" / "malware.sha256").write_text(before)
    assert control("reload-rules")["return"] == "OK"


@pytest.mark.parametrize(
    ("host", "is_blocked"),
    [
        ("malware.test", True),
        ("www.MALWARE.test", True),
        ("bad.host.example.co.jp", True),
        ("host.example.co.jp", False),
        ("notmalware.test", False),
    ],
)
def test_http_host_below_a_listed_domain_is_blocked_and_its_neighbours_are_not(
    protected: NativeLane, host: str, is_blocked: bool
) -> None:
    with serving(protected, 80, http(b"page")):
        assert fetch(protected, host=host, timeout_s=1) == (b"" if is_blocked else b"page")


def test_one_blocked_dns_query_does_not_cost_the_other_queries_of_the_same_port(protected: NativeLane) -> None:
    with protected.office.bind_udp(OFFICE_IPV4, 5353) as resolver:
        resolver.settimeout(1)
        assert resolves(protected, "good.test", resolver)
        assert not resolves(protected, "wWw.MaLware.test", resolver)
        assert resolves(protected, "other.test", resolver)
        assert not resolves(protected, "malware.test", resolver)
        assert resolves(protected, "good.test", resolver)


def test_domain_added_at_run_time_is_blocked_at_once_and_survives_a_reload(
    protected: NativeLane, control: Control
) -> None:
    entry = {"setname": "dangerous", "settype": "string", "datavalue": base64.b64encode(b"late.test").decode()}
    with serving(protected, 80, http(b"page")):
        assert fetch(protected, host="www.late.test") == b"page"
        assert control("dataset-add", **entry)["return"] == "OK"
        assert fetch(protected, host="www.late.test", timeout_s=1) == b""
        assert control("reload-rules")["return"] == "OK"
        assert fetch(protected, host="www.late.test", timeout_s=1) == b""
        assert control("dataset-remove", **entry)["return"] == "OK"
        assert fetch(protected, host="www.late.test") == b"page"


def test_logged_request_passes_and_is_reported(protected: NativeLane, engine: NativeEngine) -> None:
    seen = len(alerts(engine))
    with serving(protected, 80, http(b"page")):
        assert fetch(protected, path="/logged/x") == b"page"
    (alert,) = alerts(engine)[seen:]
    assert (alert["alert"]["action"], alert["alert"]["signature_id"]) == ("allowed", 7)
    assert (alert["http"]["hostname"], alert["http"]["url"]) == ("good.test", "/logged/x")


def fetch_tls(lane: NativeLane, name: str, *, port: int = 443, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> int:
    """Download over TLS from the office; return the number of bytes that came."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version

    def connect() -> socket.socket:
        return socket.create_connection((INTERNET_IPV4, port), timeout=2)

    count = 0
    with lane.office.call(connect) as plain, context.wrap_socket(plain, server_hostname=name) as client:
        client.sendall(b"go")
        while block := client.recv(1 << 16):
            count += len(block)
    return count


def secure_server(certificate: Path, size: int) -> Callable[[socket.socket], None]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(2)
            secure.sendall(bytes(size))

    return serve


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def test_tls_leaves_the_queue_after_its_handshake(
    protected: NativeLane, gate: Gate, certificate: Path, version: ssl.TLSVersion
) -> None:
    size = 20 * MEBI
    before = gate.counters()
    with serving(protected, 443, secure_server(certificate, size)):
        assert fetch_tls(protected, "good.test", version=version) == size
        with pytest.raises((TimeoutError, ssl.SSLError, OSError)):
            fetch_tls(protected, "www.malware.test", version=version)
    after = gate.counters()
    grown = {counter: after[counter].bytes - before[counter].bytes for counter in Counter}
    assert grown[Counter.BYPASSED] > size
    assert grown[Counter.INSPECTED] < size / 20
    assert after[Counter.LEARNED].packets - before[Counter.LEARNED].packets == 1


def test_only_tls_1_3_leaves_with_the_hello_of_the_server(protected: NativeLane, gate: Gate, certificate: Path) -> None:
    def is_gone_after_the_hello(version: ssl.TLSVersion, port: int) -> bool:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = version
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(received, sent, server_hostname="good.test")

        def connect() -> socket.socket:
            return socket.create_connection((INTERNET_IPV4, port), timeout=5)

        with serving(protected, port, secure_server(certificate, 1)), protected.office.call(connect) as client:
            while not sent.pending:
                with contextlib.suppress(ssl.SSLWantReadError):
                    session.do_handshake()
            client.sendall(sent.read())
            while not sent.pending:  # until it would answer the whole flight of the server
                received.write(client.recv(1 << 16))
                with contextlib.suppress(ssl.SSLWantReadError):
                    session.do_handshake()
            return is_bypassed(gate, port)

    assert is_gone_after_the_hello(ssl.TLSVersion.TLSv1_3, 1443)
    assert not is_gone_after_the_hello(ssl.TLSVersion.TLSv1_2, 1444)


def test_tls_stopped_for_its_answer_does_not_leave_the_queue(
    protected: NativeLane, gate: Gate, certificate: Path
) -> None:
    # The rule fits the packet with the server's hello: the one that would otherwise end the inspection.
    learned = gate.counters()[Counter.LEARNED].packets
    with serving(protected, 8443, secure_server(certificate, MEBI)):
        with pytest.raises((TimeoutError, ssl.SSLError, OSError)):
            fetch_tls(protected, "good.test", port=8443)
        assert fetch_tls(protected, "good.test", port=8443, version=ssl.TLSVersion.TLSv1_2) == MEBI
    assert gate.counters()[Counter.LEARNED].packets - learned == 1


def ssh_packet(message: int, *fields: bytes) -> bytes:
    """An unencrypted SSH packet (RFC 4253, section 6)."""
    body = bytes([message]) + b"".join(struct.pack("!I", len(field)) + field for field in fields)
    padding = 4 + -(len(body) + 9) % 8
    return struct.pack("!IB", 1 + len(body) + padding, padding) + body + bytes(padding)


def ssh_offer() -> bytes:
    words = [b"curve25519-sha256", b"ssh-ed25519", *[b"aes128-ctr"] * 2, *[b"hmac-sha2-256"] * 2, *[b"none"] * 2]
    lists = b"".join(struct.pack("!I", len(word)) + word for word in (*words, b"", b""))
    body = b"\x14" + bytes(16) + lists + bytes(5)
    padding = 4 + -(len(body) + 9) % 8
    return struct.pack("!IB", 1 + len(body) + padding, padding) + body + bytes(padding)


def test_ssh_leaves_the_queue_after_its_key_exchange(protected: NativeLane, gate: Gate) -> None:
    new_keys = ssh_packet(21)
    asked = b"SSH-2.0-OpenSSH_9.8\r\n", ssh_offer(), ssh_packet(30, bytes(32)), new_keys, os.urandom(64)
    answered = b"SSH-2.0-OpenSSH_9.9\r\n", ssh_offer(), ssh_packet(31, bytes(51), bytes(32), bytes(83)), new_keys
    before_keys = []

    def serve(connection: socket.socket) -> None:
        for request, reply in zip(asked, (*answered, os.urandom(MEBI)), strict=True):
            assert receive_all(connection, len(request)) == request
            connection.sendall(reply)

    with serving(protected, 22, serve):
        client = protected.office.call(lambda: socket.create_connection((INTERNET_IPV4, 22), timeout=5))
        with client:
            for request, reply in zip(asked, (*answered, bytes(MEBI)), strict=True):
                before_keys.append(is_bypassed(gate, 22))
                client.sendall(request)
                assert len(receive_all(client, len(reply))) == len(reply)
            assert is_bypassed(gate, 22)
    assert not any(before_keys[:4])


def receive_all(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (block := connection.recv(size - len(got))):
        got += block
    return got


def test_quic_leaves_the_queue_after_twenty_packets(protected: NativeLane, gate: Gate) -> None:
    target = os.urandom(8)
    initial = b"\xc3\0\0\0\1\x08" + target + b"\x08" + os.urandom(8) + b"\0" + struct.pack("!H", 0x4000 | 1150)
    server = protected.internet.bind_udp(INTERNET_IPV4, 443)
    client = protected.office.bind_udp(OFFICE_IPV4, 7000)
    with server, client:
        server.settimeout(5)
        client.settimeout(5)
        for number in range(40):
            data = b"\x41" + target + os.urandom(1000) if number else initial + os.urandom(1150)
            client.sendto(data, (INTERNET_IPV4, 443))
            server.sendto(server.recv(2000), (OFFICE_IPV4, 7000))
            client.recv(2000)
            if number == 15:
                assert not is_bypassed(gate, 7000)
        assert is_bypassed(gate, 7000)


@pytest.mark.parametrize("is_upload", [False, True], ids=["download", "upload"])
def test_bulk_of_an_unknown_protocol_leaves_the_queue_and_arrives_intact(
    protected: NativeLane, gate: Gate, is_upload: bool
) -> None:
    data = os.urandom(MEBI) * 60
    digest = hashlib.sha256()

    def receive(connection: socket.socket) -> None:
        while block := connection.recv(1 << 18):
            digest.update(block)

    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    before = gate.counters()
    with serving(protected, 9000, receive if is_upload else send):
        client = protected.office.call(lambda: socket.create_connection((INTERNET_IPV4, 9000), timeout=20))
        with client:
            (send if is_upload else receive)(client)
            if is_upload:
                client.recv(1)
    after = gate.counters()
    assert digest.digest() == hashlib.sha256(data).digest()
    assert after[Counter.LEARNED].packets - before[Counter.LEARNED].packets == 1
    assert after[Counter.BYPASSED].bytes - before[Counter.BYPASSED].bytes > len(data) / 2


def is_bypassed(gate: Gate, port: int) -> bool:
    return any(port in (flow.a_port, flow.b_port) for flow in gate.bypassed_flows())


def test_large_http_download_leaves_the_queue_at_the_depth_of_file_hashing(protected: NativeLane, gate: Gate) -> None:
    body = os.urandom(MEBI) * 60
    before = gate.counters()
    with serving(protected, 80, http(body)):
        assert fetch(protected, timeout_s=5) == body
    after = gate.counters()
    assert after[Counter.LEARNED].packets - before[Counter.LEARNED].packets == 1
    inspected = after[Counter.INSPECTED].bytes - before[Counter.INSPECTED].bytes
    assert 20 * MEBI < inspected < 30 * MEBI


@pytest.mark.parametrize(("port", "leaves"), [(6000, True), (53, False)], ids=["any port", "the port of DNS"])
def test_bulk_over_udp_leaves_the_queue_except_where_names_are_asked(
    protected: NativeLane, gate: Gate, port: int, leaves: bool
) -> None:
    server = protected.internet.bind_udp(INTERNET_IPV4, port)
    client = protected.office.bind_udp(OFFICE_IPV4, 6000)
    with server, client:
        server.settimeout(1)
        client.settimeout(1)
        for _ in range(2000):
            client.sendto(os.urandom(1000), (INTERNET_IPV4, port))
            server.sendto(server.recv(2000)[:100], (OFFICE_IPV4, 6000))
            client.recv(2000)
        assert any({flow.a_port, flow.b_port} == {port, 6000} for flow in gate.bypassed_flows()) == leaves


def test_new_block_stops_a_flow_that_was_already_bypassed(protected: NativeLane, gate: Gate) -> None:
    stop = threading.Event()
    received = [0]

    def send(connection: socket.socket) -> None:
        block = bytes(1 << 18)
        while not stop.is_set():
            connection.sendall(block)

    def receive(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := client.recv(1 << 18):
                received[0] += len(block)

    with serving(protected, 9001, send):
        client = protected.office.call(lambda: socket.create_connection((INTERNET_IPV4, 9001), timeout=3))
        reader = threading.Thread(target=receive, args=(client,))
        reader.start()
        try:
            wait_for(lambda: is_bypassed(gate, 9001), "bypass", timeout_s=20)
            gate.sync_block([ipaddress.ip_network(f"{INTERNET_IPV4}/32")])
            time.sleep(0.2)
            at_block = received[0]
            time.sleep(0.5)
            assert received[0] == at_block
            record = next(record for record in gate.drain_blocked() if record.sport == 9001)
            assert str(record.src) == INTERNET_IPV4
        finally:
            gate.sync_block([])
            stop.set()
            reader.join(10)
            client.close()


def test_tagged_and_tunnelled_packets_are_inspected(protected: NativeLane) -> None:
    """VLAN and PPPoE frames reach the engine: the same harmless bytes pass, the forbidden ones do not."""
    macs = {name: protected_mac(namespace) for name, namespace in (("i", protected.internet), ("o", protected.office))}
    sender = protected.office.call(lambda: open_packet_socket(0))
    watcher = protected.internet.call(lambda: open_packet_socket(3))
    watcher.settimeout(0.4)
    with sender, watcher:
        for kind, head in (
            (0x0800, b""),
            (0x8100, struct.pack("!HH", 10, 0x0800)),
            (0x8864, b"\x11\x00\x00\x07" + struct.pack("!HH", 39, 0x0021)),
        ):
            for word, expected in ((b"permitted", True), (b"forbidden", False)):
                frame = macs["i"] + macs["o"] + struct.pack("!H", kind) + head + udp_packet(word)
                sender.send(frame)
                assert came(watcher, word) == expected, (hex(kind), word)


def protected_mac(namespace: Any) -> bytes:
    def read() -> bytes:
        made = open_packet_socket(0)
        with made:
            return bytes(made.getsockname()[4])

    return bytes(namespace.call(read))


def open_packet_socket(protocol: int) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    made.bind(("eth0", protocol))
    return made


def came(watcher: socket.socket, word: bytes) -> bool:
    deadline = time.monotonic() + 0.8
    with contextlib.suppress(TimeoutError):
        while time.monotonic() < deadline:
            if word in watcher.recv(4096):
                return True
    return False


def udp_packet(payload: bytes) -> bytes:
    body = struct.pack("!HHHH", 40000, 5000, 8 + len(payload), 0) + payload
    ends = ipaddress.ip_address(OFFICE_IPV4).packed + ipaddress.ip_address(INTERNET_IPV4).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + body


def test_running_connections_survive_a_killed_and_a_returning_engine(
    protected: NativeLane, engine: NativeEngine
) -> None:
    """A conversation over one connection goes on while the engine dies, is absent, and comes back."""

    def echo(connection: socket.socket) -> None:
        while data := connection.recv(100):
            connection.sendall(data)

    def ask(client: socket.socket, rounds: int) -> None:
        for number in range(rounds):
            client.sendall(b"%05d" % number)
            assert client.recv(100) == b"%05d" % number

    with serving(protected, 9000, echo):
        client = protected.office.call(lambda: socket.create_connection((INTERNET_IPV4, 9000), timeout=5))
        with client:
            ask(client, 50)
            engine.kill()
            ask(client, 200)
            engine.start()
            ask(client, 200)
    with serving(protected, 80, http(EICAR)):
        assert fetch(protected, timeout_s=1) == b""


def test_bypassed_bulk_does_not_notice_that_the_engine_dies(
    protected: NativeLane, engine: NativeEngine, gate: Gate
) -> None:
    data = os.urandom(MEBI) * 300
    digest = hashlib.sha256()

    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    with serving(protected, 9002, send):
        client = protected.office.call(lambda: socket.create_connection((INTERNET_IPV4, 9002), timeout=10))
        with client:
            received = 0
            is_killed = False
            while block := client.recv(1 << 18):
                digest.update(block)
                received += len(block)
                if not is_killed and is_bypassed(gate, 9002):
                    engine.kill()
                    is_killed = True
    assert is_killed
    assert received == len(data)
    assert digest.digest() == hashlib.sha256(data).digest()
    engine.start()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("all.rules", "drop http any any -> any any (nonsense; sid:1;)\n"),
        ("all.rules", "drop http any any -> any any (http.host; dataset:isset,undeclared; sid:1;)\n"),
        ("dangerous.lst", "not base64!\n"),
        ("dangerous.lst", None),
        ("malware.sha256", None),
        ("datasets.yaml", None),
    ],
    ids=["unknown keyword", "undeclared list", "broken list", "absent list", "absent hashes", "absent declarations"],
)
def test_feed_that_does_not_load_is_refused_by_the_engine_s_own_test(
    programs: tuple[Path, Path], tmp_path: Path, file: str, content: str | None
) -> None:
    feed = write_feed(tmp_path / "feed")
    engine_test(programs[1], tmp_path, feed)
    if content is None:
        (feed / "engine" / file).unlink()
    else:
        (feed / "engine" / file).write_text(content)
    with pytest.raises(ToolError) as caught:
        engine_test(programs[1], tmp_path, feed)
    assert caught.value.exit_code == 1


def engine_test(tree: Path, directory: Path, feed: Path) -> None:
    """Test a feed in any directory with the box's configuration, the way the agent does."""
    files = source_tree().engine
    places = {BOX_CONFIGURATION: files, BOX_FEED: feed, BOX_RUN: directory, BOX_CACHE: directory}
    (directory / "eve").mkdir(exist_ok=True)
    (directory / "engine").mkdir(exist_ok=True)
    configuration = directory / "test.yaml"
    configuration.write_text(adapt_configuration((files / "suricata.yaml").read_text(), places))
    run(enter.command(tree, "tools", [directory, files], ["suricata", "-T", "-c", configuration]), timeout_s=60)


def test_ipv6_is_inspected_like_ipv4(protected: NativeLane, engine: NativeEngine) -> None:
    with serving(protected, 80, http(EICAR), address=INTERNET_IPV6):
        assert fetch(protected, address=INTERNET_IPV6, timeout_s=1) == b""
    alert = wait_for(lambda: [entry for entry in alerts(engine) if ":" in entry["src_ip"]], "alert", timeout_s=3)[-1]
    assert ipaddress.ip_address(alert["src_ip"]) == ipaddress.ip_address(INTERNET_IPV6)
