"""An enrolment server on loopback with a true TLS interface, whose answers a test can bend."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7

from .pki import Authority


class SimulatedEnrolment:
    """What the server does with a request; every attribute may be changed while it runs.

    Attributes:
        claims: Claim of each serial that may enrol.
        issue: Makes the certificates of an answer out of a request.
        answer: If set, (status, body) that is sent whatever was asked.
        retry_after: Value of that header, if any.
        drip_s: Seconds between two bytes of the body.
    """

    def __init__(self, device_ca: Authority, claims: dict[str, str]) -> None:
        self.device_ca = device_ca
        self.claims = claims
        self.issue: Callable[[bytes], list[x509.Certificate]] = lambda der: [self.device_ca.issue_for_request(der)]
        self.answer: tuple[int, bytes] | None = None
        self.drip_s = 0.0
        self.retry_after = ""
        self.keys: dict[str, bytes] = {}
        self.requests: list[bytes] = []
        self.url = ""

    def respond(self, path: str, authorization: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer."""
        self.requests.append(body)
        if self.answer is not None:
            return self.answer
        if path != "/.well-known/est/simpleenroll":
            return 404, b""
        serial, _, claim = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if self.claims.get(serial) != claim:
            return 401, _error("serial and claim do not belong together", f"you sent {claim}")
        der = base64.b64decode(body, validate=True)
        key = x509.load_der_x509_csr(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if self.keys.setdefault(serial, key) != key:
            return 409, _error("this claim was used by another key", "issue a new claim")
        return 200, base64.encodebytes(pkcs7.serialize_certificates(self.issue(der), Encoding.DER))


def _error(error: str, hint: str) -> bytes:
    return json.dumps({"error": error, "hint": hint}).encode()


@contextlib.contextmanager
def enrolment_server(simulated: SimulatedEnrolment, service_ca: Authority, directory: Path) -> Iterator[None]:
    """Serve on loopback; sets `simulated.url`."""
    service_ca.issue("localhost", client=False, names=("localhost",)).write(
        directory / "est.key", directory / "est.crt"
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "est.crt", directory / "est.key")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = simulated.respond(self.path, self.headers["Authorization"], body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            if simulated.retry_after:
                self.send_header("Retry-After", simulated.retry_after)
            self.end_headers()
            with contextlib.suppress(OSError):
                if not simulated.drip_s:
                    self.wfile.write(answer)
                for offset in range(len(answer) if simulated.drip_s else 0):
                    self.wfile.write(answer[offset : offset + 1])
                    time.sleep(simulated.drip_s)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            return

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            return  # refused handshakes are what some tests are about

    with Server(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        simulated.url = f"https://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
