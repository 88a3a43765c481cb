"""Renewal over mutual TLS, and what the operator sees of those who do not get in. Clients: ours, curl and OpenSSL."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import ssl
import subprocess  # noqa: TID251 - the second client is a program
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7

from omamori_ota import certificates, keys, pki
from omamori_ota.attempts import AttemptLog, Cause
from omamori_ota.boxes import RevocationReason, new_claim
from omamori_ota.clock import system_clock
from omamori_ota.enrolment_server import CA_PATH, ENROL_PATH, RENEW_PATH, EnrolmentServer
from omamori_ota.enrolment_service import make_server
from omamori_ota.keys import DEVICE_CA, KeyDirectory
from omamori_ota.registry import Registry
from omamori_ota.revocation import revoke
from omamori_ota.roles import Lifetimes

from .cloud_rig import wait_for
from .test_ota_enrolment import LIMITS, SERIAL, ServiceConfig, basic, request

Answer = tuple[int, bytes, http.client.HTTPMessage]
# In TLS 1.3 a client hears of a refused certificate after its own handshake: by an alert, or by a closed connection.
REFUSED = (ssl.SSLError, ConnectionError)
POST = {"Content-Type": "application/pkcs10"}


class Site:
    """An enrolment server whose clock a test moves, and a box."""

    def __init__(self, place: Path, operator: KeyDirectory) -> None:
        self.place = place
        self.keys = operator
        pki.issue_server(self.keys, place / "tls", ["127.0.0.1", "localhost"], system_clock)
        self.registry = Registry(place / "boxes.db", self.keys.authority_certificate(DEVICE_CA))
        self.later = timedelta(0)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.claim = self.register()
        self.server: EnrolmentServer

    def clock(self) -> datetime:
        return system_clock() + self.later

    def register(self, *, is_held: bool = False) -> str:
        claim = new_claim()
        with self.registry.changing() as change:
            change.add(SERIAL, claim, system_clock(), is_held=is_held)
        return claim

    def config(self) -> ServiceConfig:
        return ServiceConfig(
            keys=self.keys.path,
            registry=self.registry.path,
            listen=("127.0.0.1", 0),
            tls_directory=self.place / "tls",
            limits=LIMITS,
        )

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def context(self, certificate: x509.Certificate | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.keys.path / "trust/service-ca.pem"))
        if certificate is not None:
            (self.place / "box.key").write_bytes(
                self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
            (self.place / "box.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
            context.load_cert_chain(self.place / "box.crt", self.place / "box.key")
        return context

    def ask(self, path: str, headers: dict[str, str], certificate: x509.Certificate | None = None) -> Answer:
        tls = self.context(certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls, timeout=20)
        try:
            connection.request("POST", path, request(self.key), POST | headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def enrol(self, **more: str) -> Answer:
        return self.ask(ENROL_PATH, basic(SERIAL, self.claim) | more)

    def renew(self, certificate: x509.Certificate | None) -> Answer:
        return self.ask(RENEW_PATH, {}, certificate)

    def causes(self) -> dict[str, str]:
        return {item.cause: item.who for item in AttemptLog(self.registry.path).attempts()}


def one(answer: Answer) -> x509.Certificate:
    assert answer[0] == 200, answer[1]
    (certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer[1]))
    return certificate


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> KeyDirectory:
    return keys.init(tmp_path_factory.mktemp("operator") / "keys", system_clock, Lifetimes())


@pytest.fixture
def site(tmp_path: Path, operator: KeyDirectory) -> Iterator[Site]:
    found = Site(tmp_path, operator)
    with make_server(found.config(), found.clock) as server:
        found.server = server
        worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        worker.start()
        yield found
        server.shutdown()
        worker.join()


def test_certificate_renews_itself_without_the_claim(site: Site) -> None:
    first = one(site.enrol())
    assert one(site.renew(first)) == first
    site.later = timedelta(days=61)
    second = one(site.renew(first))
    assert second.public_key() == first.public_key()
    assert second.not_valid_after_utc - first.not_valid_after_utc > timedelta(days=60)
    assert one(site.renew(first)) == second
    assert site.causes() == {Cause.ENROLLED: SERIAL}


def test_renewal_without_a_certificate_or_with_another_authoritys(site: Site) -> None:
    status, body, _ = site.renew(None)
    assert status == 403
    assert ENROL_PATH in json.loads(body)["hint"]
    stranger_key = ec.generate_private_key(ec.SECP256R1())
    stranger = certificates.self_signed_authority("Omamori device CA", stranger_key, system_clock())
    forged = certificates.device_certificate(SERIAL, site.key.public_key(), stranger, stranger_key, system_clock())
    with pytest.raises(REFUSED):
        site.renew(forged)


def test_service_certificate_does_not_renew_itself_as_a_box(site: Site) -> None:
    authority, key = site.keys.authority(DEVICE_CA)
    made = certificates.client_certificate("ingest", site.key.public_key(), authority, key, system_clock())
    status, body, _ = site.renew(made)
    assert (status, json.loads(body)["cause"]) == (403, Cause.CERTIFICATE_UNKNOWN)


def test_expired_certificate_is_refused_by_the_handshake_and_the_operator_sees_it(site: Site) -> None:
    authority, key = site.keys.authority(DEVICE_CA)
    long_ago = system_clock() - timedelta(days=200)
    expired = certificates.device_certificate(SERIAL, site.key.public_key(), authority, key, long_ago)
    with pytest.raises(REFUSED):
        site.renew(expired)
    wait_for(lambda: site.causes() == {Cause.CERTIFICATE_EXPIRED: "127.0.0.1"}, "the attempt in the log")
    assert one(site.enrol()).public_key() == expired.public_key()


def test_held_box_is_told_when_to_come_again(site: Site) -> None:
    site.claim = site.register(is_held=True)
    status, body, headers = site.enrol()
    assert (status, json.loads(body)["cause"], headers["Retry-After"]) == (202, Cause.WAITING, "600")
    with site.registry.changing() as change:
        change.hold(SERIAL, is_held=False)
    one(site.enrol())
    assert site.causes() == {Cause.WAITING: SERIAL, Cause.ENROLLED: SERIAL}


def test_revoked_box_is_told_so_and_seen(site: Site) -> None:
    certificate = one(site.enrol())
    revoke(site.registry, SERIAL, RevocationReason.STOLEN, system_clock)
    for answer in (site.enrol(), site.renew(certificate)):
        assert (answer[0], json.loads(answer[1])["cause"]) == (403, Cause.REVOKED)
    assert site.causes()[Cause.REVOKED] == SERIAL


def test_strangers_are_told_nothing_and_seen_apart(site: Site) -> None:
    answers = [
        site.ask(ENROL_PATH, basic(SERIAL, new_claim())),
        site.ask(ENROL_PATH, basic("ZA35-999999", site.claim)),
    ]
    assert answers[0][:2] == answers[1][:2]
    assert b"cause" not in answers[0][1]
    assert site.causes() == {Cause.WRONG_CLAIM: SERIAL, Cause.UNKNOWN_SERIAL: "ZA35-999999"}


@pytest.mark.parametrize(
    ("behind", "is_seen"), [(timedelta(minutes=50), False), (timedelta(days=400), True), (-timedelta(days=2), True)]
)
def test_box_with_a_wrong_clock_is_seen(site: Site, behind: timedelta, is_seen: bool) -> None:
    one(site.enrol(Date=format_datetime(datetime.now(UTC) - behind, usegmt=True)))
    assert (Cause.CLOCK_WRONG in site.causes()) is is_seen


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 01 Jan 99999 00:00:00 GMT", "x" * 5000])
def test_date_of_another_form_is_overlooked(site: Site, date: str) -> None:
    one(site.enrol(Date=date))
    assert site.causes() == {Cause.ENROLLED: SERIAL}


def test_box_that_finds_our_certificate_expired_or_unknown_is_seen(site: Site) -> None:
    begun = system_clock()
    for context, cause, begins in (
        (site.context(), Cause.CLOCK_WRONG, begun - timedelta(days=200)),
        (site.context(), Cause.CLOCK_WRONG, begun + timedelta(days=200)),
        (ssl.create_default_context(), Cause.SERVER_NOT_TRUSTED, begun),
    ):
        (site.registry.path.parent / "boxes.db-attempts").unlink()
        pki.issue_server(site.keys, site.place / "tls", ["127.0.0.1"], lambda at=begins: at, replace=True)  # type: ignore[misc]
        with make_server(site.config(), site.clock) as server:
            worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            worker.start()
            try:
                port = int(server.server_address[1])
                connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
                with pytest.raises(ssl.SSLCertVerificationError):
                    connection.request("GET", CA_PATH)
                connection.close()
                wait_for(lambda cause=cause: cause in site.causes(), str(cause))
            finally:
                server.shutdown()
                worker.join()


def test_curl_and_openssl_enrol_and_renew(site: Site) -> None:
    """A client that is not ours: request by OpenSSL, HTTPS by curl, PKCS#7 read by OpenSSL."""
    if shutil.which("curl") is None or shutil.which("openssl") is None:
        pytest.skip("curl or openssl is not installed")

    def call(line: str) -> bytes:
        ran = subprocess.run(line.split(), capture_output=True, timeout=30, check=False, cwd=site.place)
        assert ran.returncode == 0, ran.stderr.decode()
        return ran.stdout

    call("openssl ecparam -name prime256v1 -genkey -noout -out curl.key")
    call(f"openssl req -new -key curl.key -subj /CN={SERIAL} -outform DER -out curl.csr")
    call("openssl base64 -in curl.csr -out curl.b64")
    (site.place / "curlrc").write_text(f'user = "{SERIAL}:{site.claim}"\n')
    url = f"https://127.0.0.1:{site.port}"
    common = f"curl -sS --fail --cacert {site.keys.path}/trust/service-ca.pem"
    post = f"{common} -H Content-Type:application/pkcs10 --data-binary @curl.b64"
    for path, options, out in (
        (CA_PATH, common, "cacerts"),
        (ENROL_PATH, f"{post} -K curlrc", "first"),
        (RENEW_PATH, f"{post} --key curl.key --cert first.pem", "second"),
    ):
        call(f"{options} -o {out}.b64 {url}{path}")
        call(f"openssl base64 -d -in {out}.b64 -out {out}.p7")
        call(f"openssl pkcs7 -inform DER -in {out}.p7 -print_certs -out {out}.pem")
    assert b"second.pem: OK" in call("openssl verify -CAfile cacerts.pem -purpose sslclient second.pem")
