"""The box gets exactly one identity, at any power cut and from any server, or a clear refusal."""

import base64
import dataclasses
import datetime as dt
import logging
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7

from omamori_agent.config import EnrolmentLimits
from omamori_agent.errors import RejectedError, SetupError, TransientError
from omamori_agent.identity import (
    EnrolmentClient,
    EnrolmentPendingError,
    EnrolmentRefusedError,
    EnrolmentUnreachableError,
    Identity,
    IdentityHolder,
    IdentityStore,
    IdentityWorker,
)
from omamori_agent.identity import certificate as rules
from omamori_agent.identity.certificate import CertificateNotYetValidError, CertificateRejectedError
from omamori_protocol.provision import Provision
from sim.box import CLAIM, DEVICE
from sim.clock import ManualClock
from sim.enrolment import SimulatedEnrolment, enrolment_server
from sim.pki import DAY, Authority, key_pem, name
from sim.power import PowerCut, count_steps, power_cut_before
from sim.proxy import Proxy

LIMITS = EnrolmentLimits(timeout_s=5, deadline_s=5, retry_first_s=0.01, retry_cap_s=0.02, refused_retry_s=900)
DEVICE_CA = Authority("Device CA")
SERVICE_CA = Authority("Service CA")


def clock_now() -> ManualClock:
    return ManualClock(now_s=dt.datetime.now(dt.UTC).timestamp())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SimulatedEnrolment]:
    simulated = SimulatedEnrolment(DEVICE_CA, {DEVICE: CLAIM})
    (tmp_path / "ca.pem").write_bytes(SERVICE_CA.pem)
    with enrolment_server(simulated, SERVICE_CA, tmp_path):
        yield simulated


@pytest.fixture
def store(tmp_path: Path) -> IdentityStore:
    return IdentityStore(tmp_path / "identity", DEVICE)


def provision(url: str, claim: str = CLAIM) -> Provision:
    return Provision(
        serial=DEVICE,
        claim=claim,
        enrolment_url=url,
        broker_host="localhost",
        broker_port=1,
        repository_url="https://localhost",
        channel="demo",
    )


def client(
    server: SimulatedEnrolment, tmp_path: Path, claim: str = CLAIM, limits: EnrolmentLimits = LIMITS
) -> EnrolmentClient:
    return EnrolmentClient(provision(server.url, claim), str(tmp_path / "ca.pem"), limits)


class Station:
    """A worker with everything around it."""

    def __init__(self, store: IdentityStore, enroller: object, *, device: str = DEVICE) -> None:
        self.clock = clock_now()
        self.holder = IdentityHolder()
        self.lines: list[str] = []
        self.worker = IdentityWorker(
            device=device,
            store=store,
            enroller=enroller,  # type: ignore[arg-type]
            holder=self.holder,
            limits=LIMITS,
            clock=self.clock,
            report=self.lines.append,
        )


class DirectEnroller:
    """`Enroller` without a network."""

    def __init__(self, issue: Callable[[bytes], list[x509.Certificate]] | None = None) -> None:
        self.requests: list[bytes] = []
        self.renewals: list[Identity] = []
        self.error: Exception | None = None
        self.renewal_error: Exception | None = None
        self.issue = issue or (lambda der: [DEVICE_CA.issue_for_request(der)])

    def enroll(self, request: bytes) -> list[x509.Certificate]:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        return self.issue(request)

    def renew(self, request: bytes, identity: Identity) -> list[x509.Certificate]:
        self.renewals.append(identity)
        if self.renewal_error is not None:
            raise self.renewal_error
        return self.enroll(request)


def test_first_enrolment_over_https(store: IdentityStore, server: SimulatedEnrolment, tmp_path: Path) -> None:
    station = Station(store, client(server, tmp_path))
    assert station.worker.step() == LIMITS.renewal_check_s
    identity = station.holder.get()
    assert identity is not None
    assert station.lines == [f"enrolled device={DEVICE}"]
    assert stat.S_IMODE(store.key_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.key_path.parent.stat().st_mode) == 0o700
    assert identity == store.load(station.clock.now())
    again = Station(store, client(server, tmp_path))
    again.worker.step()
    assert again.holder.get() == identity
    assert len(server.requests) == 1  # the second start asks nobody


def test_request_is_for_the_serial_and_signed_by_a_p256_key(store: IdentityStore) -> None:
    request = x509.load_der_x509_csr(rules.make_request(store.ensure_key(), DEVICE))
    assert request.is_signature_valid
    assert request.subject == name(DEVICE)
    key = request.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_power_cut_at_every_step_never_changes_the_key_the_server_knows(tmp_path: Path) -> None:
    (tmp_path / "dry").mkdir()
    steps = count_steps(Station(IdentityStore(tmp_path / "dry", DEVICE), DirectEnroller()).worker.step)
    assert steps >= 10
    for step in range(1, steps + 1):
        directory = tmp_path / f"cut{step}"
        enroller = DirectEnroller()
        with pytest.raises(PowerCut), power_cut_before(step):
            Station(IdentityStore(directory, DEVICE), enroller).worker.step()
        after = Station(IdentityStore(directory, DEVICE), enroller)
        after.worker.step()
        assert after.holder.get() is not None
        keys = {
            x509.load_der_x509_csr(item)
            .public_key()
            .public_bytes(Encoding.DER, rules.PublicFormat.SubjectPublicKeyInfo)
            for item in enroller.requests
        }
        assert len(keys) <= 1
        key_path = directory / "device.key"
        assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
        assert sorted(item.name for item in directory.iterdir()) == ["device.claim", "device.crt", "device.key"]


def test_unreachable_server_is_asked_again_soon(store: IdentityStore, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(SERVICE_CA.pem)
    enroller = EnrolmentClient(provision("https://localhost:1"), str(tmp_path / "ca.pem"), LIMITS)
    station = Station(store, enroller)
    assert station.worker.step() <= LIMITS.retry_cap_s
    assert station.holder.get() is None
    assert station.lines == []
    with pytest.raises(EnrolmentUnreachableError, match="localhost:1"):
        enroller.enroll(b"x")


def test_enrolment_goes_through_the_offices_proxy(
    store: IdentityStore, server: SimulatedEnrolment, tmp_path: Path
) -> None:
    proxy = Proxy({int(server.url.rpartition(":")[2])})
    behind = dataclasses.replace(provision(server.url), proxy=("127.0.0.1", proxy.port))
    station = Station(store, EnrolmentClient(behind, str(tmp_path / "ca.pem"), LIMITS))
    station.worker.step()
    assert station.holder.get() is not None
    assert len(proxy.requests) == 1
    proxy.close()


def test_back_off_grows_to_its_cap(store: IdentityStore) -> None:
    enroller = DirectEnroller()
    enroller.error = EnrolmentUnreachableError("down")
    station = Station(store, enroller)
    delays = [station.worker.step() for _ in range(6)]
    assert all(0.005 <= delay <= 0.02 for delay in delays)
    enroller.error = None
    assert station.worker.step() == LIMITS.renewal_check_s


def test_server_with_a_certificate_of_another_authority(server: SimulatedEnrolment, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(Authority("Somebody else").pem)
    with pytest.raises(EnrolmentUnreachableError, match="certificate verify failed"):
        client(server, tmp_path).enroll(b"x")
    assert server.requests == []  # the claim was not sent


def test_server_under_another_name(server: SimulatedEnrolment, tmp_path: Path) -> None:
    server.url = server.url.replace("localhost", "127.0.0.1")
    with pytest.raises(EnrolmentUnreachableError, match="certificate verify failed"):
        client(server, tmp_path).enroll(b"x")
    assert server.requests == []


def test_wrong_claim_is_said_on_the_console_once_per_slow_try(
    store: IdentityStore, server: SimulatedEnrolment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "Z" * 26
    station = Station(store, client(server, tmp_path, claim=wrong))
    assert station.worker.step() == LIMITS.refused_retry_s
    assert len(station.lines) == 1
    assert station.lines[0].startswith(f"enrolment refused device={DEVICE} status=401 reason=")
    # The server repeated the claim in its hint; it appears nowhere.
    assert wrong not in caplog.text + station.lines[0]
    assert store.key_path.exists()
    assert not store.certificate_path.exists()


def test_claim_used_by_another_key(store: IdentityStore, server: SimulatedEnrolment, tmp_path: Path) -> None:
    Station(IdentityStore(tmp_path / "thief", DEVICE), client(server, tmp_path)).worker.step()
    station = Station(store, client(server, tmp_path))
    assert station.worker.step() == LIMITS.refused_retry_s
    assert "status=409" in station.lines[0]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_server_in_trouble_is_asked_again(server: SimulatedEnrolment, tmp_path: Path, status: int) -> None:
    server.answer = (status, b"<html>")
    with pytest.raises(TransientError, match=str(status)):
        client(server, tmp_path).enroll(b"x")


@pytest.mark.parametrize("status", [301, 400, 403, 404, 413])
def test_other_refusals(server: SimulatedEnrolment, tmp_path: Path, status: int) -> None:
    server.answer = (status, b'{"error": "bad\\nrequest", "hint": 5}')
    with pytest.raises(EnrolmentRefusedError, match="bad request") as caught:
        client(server, tmp_path).enroll(b"x")
    assert (caught.value.status, caught.value.hint) == (status, "5")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff" * 100, b"[" * 50000])
def test_refusal_without_a_readable_reason(server: SimulatedEnrolment, tmp_path: Path, body: bytes) -> None:
    server.answer = (400, body)
    with pytest.raises(EnrolmentRefusedError, match="no reason given"):
        client(server, tmp_path).enroll(b"x")


def test_answer_one_byte_longer_than_allowed(server: SimulatedEnrolment, tmp_path: Path) -> None:
    limits = EnrolmentLimits(max_response_bytes=1000)
    server.answer = (400, b"x" * 1000)
    with pytest.raises(EnrolmentRefusedError):
        client(server, tmp_path, limits=limits).enroll(b"x")
    server.answer = (400, b"x" * 1001)
    with pytest.raises(EnrolmentUnreachableError, match="larger"):
        client(server, tmp_path, limits=limits).enroll(b"x")


def test_answer_that_drips_for_ever(server: SimulatedEnrolment, tmp_path: Path) -> None:
    server.answer = (200, b"x" * 1000)
    server.drip_s = 0.05
    limits = EnrolmentLimits(deadline_s=0.3)
    with pytest.raises(EnrolmentUnreachableError, match="too long"):
        client(server, tmp_path, limits=limits).enroll(b"x")


def test_image_without_its_service_ca(server: SimulatedEnrolment, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(SetupError, match=r"ca\.pem"):
        client(server, tmp_path).enroll(b"x")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"!!!",
        base64.b64encode(b"no asn.1"),
        base64.b64encode(DEVICE_CA.certificate.public_bytes(Encoding.DER)),
        base64.b64encode(pkcs7.serialize_certificates([DEVICE_CA.certificate] * 5, Encoding.DER)),
    ],
)
def test_answer_that_holds_no_certificates(body: bytes) -> None:
    with pytest.raises(CertificateRejectedError):
        rules.parse_answer(body)


def wrong_answers() -> dict[str, Callable[[ec.EllipticCurvePublicKey], list[x509.Certificate]]]:
    now = dt.datetime.now(dt.UTC)

    def issue(**options: object) -> Callable[[ec.EllipticCurvePublicKey], list[x509.Certificate]]:
        return lambda key: [DEVICE_CA.issue(DEVICE, **({"public_key": key} | options)).certificate]  # type: ignore[arg-type]

    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    extended = x509.Name([*name(DEVICE), *name("second")])
    return {
        "another key": issue(public_key=other),
        "another serial": lambda key: [DEVICE_CA.issue("ZA35-000002", public_key=key).certificate],
        "more than the serial": issue(subject=extended),
        "for servers": issue(client=False),
        "a CA": issue(ca=True),
        "expired": issue(begins=now - 100 * DAY),
        "wrong issuer beside it": lambda key: [
            DEVICE_CA.issue(DEVICE, public_key=key).certificate,
            Authority("Device CA").certificate,
        ],
        "issuer that is no CA": lambda key: [
            DEVICE_CA.issue(DEVICE, public_key=key).certificate,
            DEVICE_CA.issue("Device CA").certificate,
        ],
        "two for our key": lambda key: [
            DEVICE_CA.issue(DEVICE, public_key=key).certificate,
            DEVICE_CA.issue(DEVICE, public_key=key).certificate,
        ],
        "nothing for our key but a CA": lambda _key: [DEVICE_CA.certificate],
    }


@pytest.mark.parametrize("case", wrong_answers())
def test_wrong_certificate_is_refused_and_not_stored(store: IdentityStore, case: str) -> None:
    issue = wrong_answers()[case]
    enroller = DirectEnroller(lambda der: issue(x509.load_der_x509_csr(der).public_key()))  # type: ignore[arg-type]
    station = Station(store, enroller)
    assert station.worker.step() == LIMITS.refused_retry_s
    assert station.holder.get() is None
    assert not store.certificate_path.exists()
    assert station.lines[0].startswith(f"enrolment failed device={DEVICE} reason=")


def test_answer_with_its_issuer_is_kept_with_it(store: IdentityStore) -> None:
    station = Station(store, DirectEnroller(lambda der: [DEVICE_CA.certificate, DEVICE_CA.issue_for_request(der)]))
    station.worker.step()
    assert store.certificate_path.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    assert store.load(station.clock.now()) == station.holder.get()


def test_certificate_of_the_future_means_our_clock_is_behind(store: IdentityStore) -> None:
    begins = dt.datetime.now(dt.UTC) + DAY
    station = Station(store, DirectEnroller(lambda der: [DEVICE_CA.issue_for_request(der, begins=begins)]))
    assert station.worker.step() <= LIMITS.retry_cap_s
    assert station.lines == []
    key = store.ensure_key()
    with pytest.raises(CertificateNotYetValidError, match="begins at"):
        rules.select_chain(
            [DEVICE_CA.issue(DEVICE, public_key=key.public_key(), begins=begins).certificate],
            key,
            DEVICE,
            station.clock.now(),
        )


def test_renewal_after_two_thirds_of_its_life(store: IdentityStore) -> None:
    enroller = DirectEnroller()
    station = Station(store, enroller)
    station.worker.step()
    first = station.holder.get()
    assert first is not None
    station.clock.advance(59 * 86400)
    station.worker.step()
    assert len(enroller.requests) == 1
    station.clock.advance(9 * 86400)  # two thirds, and the spread
    enroller.error = EnrolmentUnreachableError("down")
    assert station.worker.step() <= LIMITS.retry_cap_s
    assert station.holder.get() == first
    enroller.error = EnrolmentRefusedError("revoked", status=401)
    assert station.worker.step() == LIMITS.refused_retry_s
    assert station.holder.get() == first
    begins = dt.datetime.fromtimestamp(station.clock.now(), dt.UTC)
    enroller.error = None
    enroller.issue = lambda der: [DEVICE_CA.issue_for_request(der, begins=begins)]
    station.worker.step()
    second = station.holder.get()
    assert second is not None
    assert second.expires_s > first.expires_s
    assert station.lines == [f"enrolled device={DEVICE}"]
    assert store.load(station.clock.now()) == second
    assert enroller.renewals == [first] * 3


def test_boxes_of_one_batch_renew_on_different_days(tmp_path: Path) -> None:
    begins = dt.datetime.now(dt.UTC)
    days = set()
    for number in range(20):
        serial = f"ZA35-{number:06}"
        enroller = DirectEnroller(lambda der, at=begins: [DEVICE_CA.issue_for_request(der, begins=at)])  # type: ignore[misc]
        station = Station(IdentityStore(tmp_path / serial, serial), enroller, device=serial)
        station.worker.step()
        for day in range(59, 70):
            station.clock.now_s = begins.timestamp() + day * 86400
            station.worker.step()
            if enroller.renewals:
                days.add(day)
                break
        assert enroller.renewals
    assert min(days) >= 60
    assert len(days) >= 4


@pytest.mark.parametrize("cause", ["certificate-unknown", "revoked", ""])
def test_certificate_that_the_server_does_not_take_falls_back_to_the_claim(store: IdentityStore, cause: str) -> None:
    enroller = DirectEnroller()
    station = Station(store, enroller)
    station.worker.step()
    station.clock.advance(70 * 86400)
    begins = dt.datetime.fromtimestamp(station.clock.now(), dt.UTC)
    enroller.issue = lambda der: [DEVICE_CA.issue_for_request(der, begins=begins)]
    enroller.renewal_error = EnrolmentRefusedError("no", status=403, cause=cause)
    key = store.key_path.read_bytes()
    assert station.worker.step() == LIMITS.renewal_check_s
    assert (len(enroller.renewals), len(enroller.requests)) == (1, 2)
    assert store.key_path.read_bytes() == key


def test_expired_certificate_is_not_shown_to_the_server(store: IdentityStore) -> None:
    enroller = DirectEnroller()
    station = Station(store, enroller)
    station.worker.step()
    station.clock.advance(91 * 86400)
    begins = dt.datetime.fromtimestamp(station.clock.now(), dt.UTC)
    enroller.issue = lambda der: [DEVICE_CA.issue_for_request(der, begins=begins)]
    station.worker.step()
    assert enroller.renewals == []
    assert len(enroller.requests) == 2


def test_revoked_key_is_replaced_once_when_the_claim_is_good(store: IdentityStore) -> None:
    enroller = DirectEnroller()
    old = store.ensure_key().public_key()

    def issue(der: bytes) -> list[x509.Certificate]:
        if x509.load_der_x509_csr(der).public_key() == old:
            raise EnrolmentRefusedError("revoked", status=409, cause="key-revoked")
        return [DEVICE_CA.issue_for_request(der)]

    enroller.issue = issue
    station = Station(store, enroller)
    assert station.worker.step() == LIMITS.renewal_check_s
    assert store.ensure_key().public_key() != old
    assert store.key_path.with_name("device.key.unusable").exists()
    enroller.error = EnrolmentRefusedError("revoked", status=409, cause="key-revoked")
    second = Station(IdentityStore(store.key_path.parent.parent / "other", DEVICE), enroller)
    before = len(enroller.requests)
    assert second.worker.step() == LIMITS.refused_retry_s
    assert len(enroller.requests) == before + 2  # not for ever


def test_new_claim_from_the_factory_enrols_again(tmp_path: Path) -> None:
    directory = tmp_path / "identity"
    enroller = DirectEnroller()
    Station(IdentityStore(directory, DEVICE, "FIRST"), enroller).worker.step()
    Station(IdentityStore(directory, DEVICE, "FIRST"), enroller).worker.step()
    assert len(enroller.requests) == 1
    assert b"FIRST" not in b"".join(item.read_bytes() for item in directory.iterdir())
    again = Station(IdentityStore(directory, DEVICE, "SECOND"), enroller)
    enroller.error = EnrolmentUnreachableError("down")
    again.worker.step()
    assert again.holder.get() is not None  # the old one serves until there is a new one
    enroller.error = None
    again.worker.step()
    assert (len(enroller.requests), enroller.renewals) == (3, [])  # the claim decides, not the certificate
    Station(IdentityStore(directory, DEVICE, "SECOND"), enroller).worker.step()
    assert len(enroller.requests) == 3


def test_box_of_a_version_that_noted_no_claim_goes_on(store: IdentityStore) -> None:
    enroller = DirectEnroller()
    Station(store, enroller).worker.step()
    mark = store.key_path.parent / "device.claim"
    mark.unlink()
    Station(store, enroller).worker.step()
    assert len(enroller.requests) == 1
    assert mark.exists()


def test_waiting_for_approval_is_said_and_asked_again_when_told(
    store: IdentityStore, server: SimulatedEnrolment, tmp_path: Path
) -> None:
    server.answer = (202, b'{"error": "somebody has to approve this box first", "cause": "waiting-for-approval"}')
    server.retry_after = "600"
    station = Station(store, client(server, tmp_path))
    assert 600 <= station.worker.step() <= 601
    assert station.lines == [
        f"enrolment waiting device={DEVICE} reason=enrolment waits: somebody has to approve this box first"
    ]
    for text, seconds in (("99999999", 86400), ("9999999999", 0), ("-1", 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0)):
        server.retry_after = text
        with pytest.raises(EnrolmentPendingError) as waiting:
            client(server, tmp_path).enroll(b"x")
        assert waiting.value.retry_after_s == seconds


def test_stored_certificate_that_expired_is_asked_for_again(store: IdentityStore) -> None:
    enroller = DirectEnroller()
    Station(store, enroller).worker.step()
    station = Station(store, enroller)
    station.clock.advance(91 * 86400)
    begins = dt.datetime.fromtimestamp(station.clock.now(), dt.UTC)
    enroller.issue = lambda der: [DEVICE_CA.issue_for_request(der, begins=begins)]
    station.worker.step()
    assert station.holder.get() is not None
    assert enroller.requests[0] != b""
    assert len(enroller.requests) == 2


@pytest.mark.parametrize("junk", [b"", b"no key", key_pem(ec.generate_private_key(ec.SECP384R1()))])
def test_unusable_key_is_set_aside_and_replaced(store: IdentityStore, junk: bytes) -> None:
    Station(store, DirectEnroller()).worker.step()
    store.key_path.write_bytes(junk)
    station = Station(store, DirectEnroller())
    station.worker.step()
    assert station.holder.get() is not None
    assert store.key_path.with_name("device.key.unusable").read_bytes() == junk
    assert store.certificate_path.with_name("device.crt.unusable").exists()


def test_key_of_another_kind_is_refused() -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(RejectedError):
        rules.load_key(pem)


@pytest.mark.parametrize("junk", [b"", b"no certificate", DEVICE_CA.pem, DEVICE_CA.pem * 5])
def test_unusable_certificate_is_asked_for_again_with_the_same_key(store: IdentityStore, junk: bytes) -> None:
    enroller = DirectEnroller()
    Station(store, enroller).worker.step()
    key = store.key_path.read_bytes()
    store.certificate_path.write_bytes(junk)
    station = Station(store, enroller)
    station.worker.step()
    assert station.holder.get() is not None
    assert store.key_path.read_bytes() == key
    assert len(enroller.requests) == 2


def test_full_disk_is_a_clear_line_and_a_slow_retry(store: IdentityStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omamori_agent.identity.store.write_atomic", no_space)
    station = Station(store, DirectEnroller())
    assert station.worker.step() == LIMITS.refused_retry_s
    assert "No space left" in station.lines[0]


def test_worker_ends_when_told(store: IdentityStore) -> None:
    stop = threading.Event()
    station = Station(store, DirectEnroller())
    thread = threading.Thread(target=station.worker.run, args=(stop,))
    thread.start()
    assert station.holder.wait(10) is not None
    stop.set()
    thread.join(1)
    assert not thread.is_alive()


def test_waiting_for_an_identity_that_does_not_come() -> None:
    assert IdentityHolder().wait(0.01) is None
