"""The enrolment server over real HTTPS on loopback: the round trip, and what each bound answers."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import signal
import socket
import ssl
import subprocess  # noqa: TID251 - starts the real command
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from omamori_ota import keys, pki
from omamori_ota.boxes import new_claim
from omamori_ota.clock import system_clock
from omamori_ota.enrolment import Enrolled
from omamori_ota.enrolment_server import CA_PATH, ENROL_PATH, EnrolmentServer, ServerLimits
from omamori_ota.enrolment_service import ServiceConfig, make_server
from omamori_ota.keys import DEVICE_CA, KeyDirectory
from omamori_ota.registry import Registry
from omamori_ota.roles import Lifetimes

SERIAL = "ZA35-000001"
LIMITS = ServerLimits(silence_s=0.5, request_s=1.5, connections=4, requests_per_minute=1000)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("operator")
    made = keys.init(place / "keys", system_clock, Lifetimes())
    pki.issue_server(made, place / "tls", ["127.0.0.1"], system_clock)
    return place


@pytest.fixture
def config(operator: Path, tmp_path: Path) -> ServiceConfig:
    return ServiceConfig(
        keys=operator / "keys",
        registry=tmp_path / "registry.db",
        listen=("127.0.0.1", 0),
        tls_directory=operator / "tls",
        limits=LIMITS,
    )


@pytest.fixture
def claim(config: ServiceConfig) -> str:
    claim = new_claim()
    authority = KeyDirectory(config.keys).authority_certificate(DEVICE_CA)
    with Registry(config.registry, authority).changing() as change:
        change.add(SERIAL, claim, datetime.now(UTC))
    return claim


@pytest.fixture
def server(config: ServiceConfig) -> Iterator[EnrolmentServer]:
    with make_server(config, system_clock) as server:
        worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        worker.start()
        yield server
        server.shutdown()
        worker.join()


class Client:
    def __init__(self, server: EnrolmentServer, operator: Path) -> None:
        self.address = server.server_address[:2]
        self.tls = ssl.create_default_context(cafile=str(operator / "tls/ca.pem"))

    def connect(self) -> ssl.SSLSocket:
        raw = socket.create_connection(self.address, timeout=10)
        return self.tls.wrap_socket(raw, server_hostname="127.0.0.1")

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        host, port = self.address
        connection = http.client.HTTPSConnection(str(host), int(port), context=self.tls, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def enrol(self, claim: str, body: bytes, serial: str = SERIAL) -> tuple[int, bytes, http.client.HTTPMessage]:
        return self.ask("POST", ENROL_PATH, body, {**basic(serial, claim), "Content-Type": "application/pkcs10"})


def basic(serial: str, claim: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{serial}:{claim}".encode()).decode()}


def request(key: ec.EllipticCurvePrivateKey, name: str = SERIAL) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.encodebytes(signed.public_bytes(serialization.Encoding.DER))


@pytest.fixture
def client(server: EnrolmentServer, operator: Path) -> Client:
    return Client(server, operator)


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_round_trip(client: Client, claim: str, key: ec.EllipticCurvePrivateKey, operator: Path) -> None:
    status, body, headers = client.enrol(claim, request(key))
    assert status == 200
    assert headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    (certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
    assert certificate.public_key() == key.public_key()
    status, body, _ = client.ask("GET", CA_PATH)
    (authority,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
    certificate.verify_directly_issued_by(authority)
    assert authority == KeyDirectory(operator / "keys").authority_certificate(DEVICE_CA)


def test_power_cut_after_the_answer_does_not_strand_the_box(
    client: Client, claim: str, key: ec.EllipticCurvePrivateKey
) -> None:
    assert client.enrol(claim, request(key))[1] == client.enrol(claim, request(key))[1]


def test_claim_used_twice_is_a_conflict(client: Client, claim: str, key: ec.EllipticCurvePrivateKey) -> None:
    client.enrol(claim, request(key))
    status, body, _ = client.enrol(claim, request(ec.generate_private_key(ec.SECP256R1())))
    assert status == 409
    assert json.loads(body)["hint"]


def test_unauthorised_answers_are_identical(client: Client, claim: str, key: ec.EllipticCurvePrivateKey) -> None:
    post = {"Content-Type": "application/pkcs10"}
    answers = [
        client.enrol(new_claim(), request(key)),
        client.enrol(claim, request(key), "ZA35-999999"),
        client.enrol(claim, request(key), "not a serial"),
        client.ask("POST", ENROL_PATH, request(key), post),
        client.ask("POST", ENROL_PATH, request(key), post | {"Authorization": "Basic !!!"}),
        client.ask("POST", ENROL_PATH, request(key), post | {"Authorization": "Bearer x"}),
    ]
    assert {answer[:2] for answer in answers} == {(401, answers[0][1])}
    assert all(answer[2]["WWW-Authenticate"].startswith("Basic") for answer in answers)


def test_body_at_the_bound_is_read_and_one_byte_more_is_not(client: Client, claim: str) -> None:
    assert client.enrol(claim, b"\n" * LIMITS.body_bytes)[0] == 400
    assert client.enrol(claim, b"\n" * (LIMITS.body_bytes + 1))[0] == 413
    assert client.enrol(claim, b"\n" * 60_000)[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/.well-known/est/serverkeygen", 404),
        ("GET", ENROL_PATH + "?x=1", 404),
        ("GET", ENROL_PATH, 405),
        ("POST", CA_PATH, 405),
        ("DELETE", ENROL_PATH, 501),
    ],
)
def test_other_paths_and_methods(client: Client, method: str, path: str, status: int) -> None:
    answer = client.ask(method, path, b"" if method == "POST" else None)
    assert answer[0] == status
    assert set(json.loads(answer[1])) == {"error", "hint"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain", "Content-Length": "0"}, 415),
        ({"Content-Type": "application/pkcs10", "Transfer-Encoding": "chunked"}, 411),
        ({"Content-Type": "application/pkcs10", "Content-Length": "x"}, 400),
        ({"Content-Type": "application/pkcs10", "Content-Length": "-1"}, 400),
        ({"Content-Type": "application/pkcs10", "Content-Length": "9" * 40}, 413),
        ({f"X-{number}": "1" for number in range(LIMITS.header_fields + 1)}, 431),
        ({"X-Long": "x" * LIMITS.head_bytes}, 431),
    ],
)
def test_malformed_heads(client: Client, headers: dict[str, str], status: int) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with client.connect() as connection:
        connection.sendall(f"POST {ENROL_PATH} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        if status == 413:
            connection.sendall(b"\n" * LIMITS.drained_bytes)
        assert read_all(connection).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize("line", [b"\x16\x03\x01garbage\r\n\r\n", b"POST\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_garbage_gets_an_answer_of_our_own(client: Client, line: bytes) -> None:
    with client.connect() as connection:
        connection.sendall(line)
        answer = read_all(connection)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 "))
    assert b'{"error"' in answer
    assert b"garbage" not in answer


def test_short_body_is_refused_when_the_client_falls_silent(client: Client, claim: str) -> None:
    head = f"POST {ENROL_PATH} HTTP/1.1\r\nContent-Type: application/pkcs10\r\nContent-Length: 100\r\n\r\n"
    with client.connect() as connection:
        connection.sendall(head.encode() + b"short")
        began = time.monotonic()
        assert read_all(connection) == b""
    assert time.monotonic() - began < LIMITS.request_s + 1


def test_slow_client_is_cut_off_although_it_never_falls_silent(client: Client) -> None:
    with client.connect() as connection:
        began = time.monotonic()
        with pytest.raises(OSError):
            drip(connection)
    assert time.monotonic() - began < LIMITS.request_s + 2


def test_request_that_hangs_in_us_is_cut_and_does_not_keep_the_server_from_ending(
    config: ServiceConfig, claim: str, key: ec.EllipticCurvePrivateKey, operator: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()
    server = make_server(config, system_clock)
    server.enrolment.enrol = lambda *_: go_on.wait() and None  # type: ignore[method-assign, assignment]
    worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    worker.start()
    client = Client(server, operator)
    try:
        began = time.monotonic()
        with pytest.raises((OSError, http.client.HTTPException)):
            client.enrol(claim, request(key))
        assert LIMITS.request_s <= time.monotonic() - began < LIMITS.request_s + 2
        assert client.ask("GET", CA_PATH)[0] == 200
        server.shutdown()
        worker.join()
        began = time.monotonic()
        server.server_close()
        assert time.monotonic() - began < LIMITS.request_s + LIMITS.silence_s + 1
        assert "given up: 1" in caplog.text
    finally:
        go_on.set()


def test_request_under_way_ends_before_the_server_does(
    config: ServiceConfig, claim: str, key: ec.EllipticCurvePrivateKey, operator: Path
) -> None:
    server = make_server(config, system_clock)
    enrol = server.enrolment.enrol
    under_way = threading.Event()

    def slowly(serial: str, claim: str, data: bytes) -> Enrolled:
        under_way.set()
        time.sleep(0.5)
        return enrol(serial, claim, data)

    server.enrolment.enrol = slowly  # type: ignore[method-assign]
    worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    worker.start()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(Client(server, operator).enrol, claim, request(key))
        assert under_way.wait(10)
        server.shutdown()
        worker.join()
        server.server_close()
        assert answer.result(10)[0] == 200


def test_connections_beyond_the_bound_are_closed_and_others_go_on(client: Client) -> None:
    held = [socket.create_connection(client.address, timeout=10) for _ in range(LIMITS.connections)]
    time.sleep(0.2)
    with socket.create_connection(client.address, timeout=10) as extra:
        assert extra.recv(1) == b""
    for connection in held:
        connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert client.ask("GET", CA_PATH)[0] == 200
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server did not recover")


def test_plain_text_client_does_no_harm(client: Client) -> None:
    with socket.create_connection(client.address, timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_all(connection)
    assert client.ask("GET", CA_PATH)[0] == 200


def test_too_many_requests_are_told_to_wait(config: ServiceConfig, operator: Path) -> None:
    limits = ServerLimits(requests_per_minute=2)
    with make_server(ServiceConfig(**{**vars(config), "limits": limits}), system_clock) as server:
        worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        worker.start()
        client = Client(server, operator)
        answers = [client.ask("GET", CA_PATH) for _ in range(3)]
        server.shutdown()
        worker.join()
    assert [answer[0] for answer in answers] == [200, 200, 429]
    assert answers[2][2]["Retry-After"] == "60"


def test_log_tells_who_and_what_but_no_claim(
    client: Client, claim: str, key: ec.EllipticCurvePrivateKey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client.enrol(claim, request(key))
    client.enrol("WRONGCLAIM", request(key))
    client.ask("GET", "/secret-path")
    lines = [record.getMessage() for record in caplog.records]
    assert any(f"status=200 serial={SERIAL} issued certificate=" in line for line in lines)
    assert any(f"status=401 serial={SERIAL} " in line for line in lines)
    assert not any(word in line for word in (claim, "WRONGCLAIM", "secret-path") for line in lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_serves_and_ends_with_its_signal(
    config: ServiceConfig, claim: str, key: ec.EllipticCurvePrivateKey, operator: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", "import sys; from omamori_ota.cli import main; sys.exit(main())"]
    command += ["enrolment", "serve", "--keys", str(config.keys), "--registry", str(config.registry)]
    command += ["--listen", "127.0.0.1:0", "--tls-dir", str(config.tls_directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("enrolment: listening on 127.0.0.1:")

        class Address:
            server_address = ("127.0.0.1", int(line.rsplit(":", 1)[1]))

        status, _, _ = Client(Address, operator).enrol(claim, request(key))  # type: ignore[arg-type]
        assert status == 200
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "issued certificate=" in errors
    assert "Traceback" not in errors


def drip(connection: socket.socket) -> None:
    for _ in range(100):
        connection.sendall(b"X")
        time.sleep(0.1)


def read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except (ssl.SSLEOFError, ConnectionResetError):
        pass
    return data
