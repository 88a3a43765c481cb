"""A key that is not a file: where it is made, when it is not, and what stays on disk when it cannot be used.

The TPM here is a stand-in; tests/integration/test_tpm.py has a real one (in software) and the real library.
"""

from __future__ import annotations

import datetime as dt
import logging
import stat
import subprocess  # noqa: TID251 - a process of its own for what changes libcrypto's state
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from omamori_agent.identity import TPM, IdentityStore
from omamori_agent.identity.certificate import make_request
from omamori_agent.identity.tpm import TPMKey, TPMUnavailableError, is_tpm_key
from sim.box import DEVICE
from sim.pki import name

from .test_identity import DEVICE_CA, LIMITS, DirectEnroller, Station


class SoftTPM:
    """Keeps keys in memory; the file holds a number."""

    def __init__(self) -> None:
        self.keys: dict[bytes, ec.EllipticCurvePrivateKey] = {}
        self.is_locked = False

    def make_key(self) -> TPMKey:
        self._check()
        pem = b"-----BEGIN TSS2 PRIVATE KEY-----\n%d\n-----END TSS2 PRIVATE KEY-----\n" % len(self.keys)
        self.keys[pem] = ec.generate_private_key(ec.SECP256R1())
        return self.load_key(pem)

    def load_key(self, pem: bytes) -> TPMKey:
        self._check()
        if pem not in self.keys:
            raise TPMUnavailableError("TPM: does not know the stored key")
        return TPMKey(self, pem, self.keys[pem].public_key())

    def sign(self, pem: bytes, data: bytes) -> bytes:
        self._check()
        return self.keys[pem].sign(data, ec.ECDSA(hashes.SHA256()))

    def _check(self) -> None:
        if self.is_locked:
            raise TPMUnavailableError("TPM: locked")


@pytest.fixture
def tpm() -> SoftTPM:
    return SoftTPM()


def store_in(tmp_path: Path, tpm: SoftTPM | None) -> IdentityStore:
    return IdentityStore(tmp_path / "identity", DEVICE, tpm=tpm)


def test_key_is_made_in_the_tpm_and_the_box_enrols_with_it(tmp_path: Path, tpm: SoftTPM) -> None:
    store = store_in(tmp_path, tpm)
    station = Station(store, DirectEnroller())
    assert station.worker.step() == LIMITS.renewal_check_s
    assert is_tpm_key(store.key_path.read_bytes())
    assert stat.S_IMODE(store.key_path.stat().st_mode) == 0o600
    again = Station(store_in(tmp_path, tpm), DirectEnroller())
    again.worker.step()
    assert again.holder.get() == station.holder.get()
    assert len(tpm.keys) == 1


@pytest.mark.parametrize("serial", [DEVICE, "A" * 32])
def test_request_is_what_every_reader_takes(tpm: SoftTPM, serial: str) -> None:
    key = tpm.make_key()
    request = x509.load_der_x509_csr(make_request(key, serial))
    assert request.is_signature_valid
    assert request.subject == name(serial)
    assert request.public_key() == key.public_key()
    assert list(request.extensions) == []


def test_tpm_that_makes_no_key_leaves_a_box_with_a_file(
    tmp_path: Path, tpm: SoftTPM, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    tpm.is_locked = True
    store = store_in(tmp_path, tpm)
    assert Station(store, DirectEnroller()).worker.step() == LIMITS.renewal_check_s
    assert not is_tpm_key(store.key_path.read_bytes())
    assert "the key becomes a file" in caplog.text
    tpm.is_locked = False  # the key stays the one that the server knows
    assert isinstance(store_in(tmp_path, tpm).ensure_key(), ec.EllipticCurvePrivateKey)


@pytest.mark.parametrize("what", ["locked", "another", "none"])
def test_tpm_that_does_not_answer_is_waited_for_and_nothing_is_changed(tmp_path: Path, tpm: SoftTPM, what: str) -> None:
    Station(store_in(tmp_path, tpm), DirectEnroller()).worker.step()
    before = {item.name: item.read_bytes() for item in (tmp_path / "identity").iterdir()}
    found: SoftTPM | None = tpm
    if what == "locked":
        tpm.is_locked = True
    else:
        found = SoftTPM() if what == "another" else None
    enroller = DirectEnroller()
    station = Station(store_in(tmp_path, found), enroller)
    assert station.worker.step() <= LIMITS.retry_cap_s
    assert station.holder.get() is None
    assert enroller.requests == []
    assert {item.name: item.read_bytes() for item in (tmp_path / "identity").iterdir()} == before
    back = Station(store_in(tmp_path, tpm), enroller)
    tpm.is_locked = False
    back.worker.step()
    assert back.holder.get() is not None
    assert enroller.requests == []


def test_revoked_key_is_followed_by_another_of_the_tpm(tmp_path: Path, tpm: SoftTPM) -> None:
    store = store_in(tmp_path, tpm)
    first, second = store.ensure_key(), store.replace_key()
    assert first.public_key() != second.public_key()
    assert isinstance(second, TPMKey)


def test_board_without_a_tpm(tmp_path: Path) -> None:
    assert TPM.of_board(tmp_path / "tpmrm0") is None
    (tmp_path / "tpmrm0").touch()
    assert TPM.of_board(tmp_path / "tpmrm0") is not None


def test_library_without_its_tpm_says_so_and_tls_goes_on(tmp_path: Path) -> None:
    """Also where the provider is not installed at all, as on a box of another image."""
    issued = DEVICE_CA.issue("localhost", begins=dt.datetime.now(dt.UTC))
    issued.write(tmp_path / "key", tmp_path / "crt")
    program = f"""
import ssl
from omamori_agent.identity.tpm import TPM, TPMUnavailableError
for call in (lambda tpm: tpm.make_key(), lambda tpm: tpm.load_key(b"x"), lambda tpm: tpm.sign(b"x", b"y")):
    try:
        call(TPM("device:{tmp_path}/nothing"))
    except TPMUnavailableError as err:
        print(err)
ssl.create_default_context().load_cert_chain("{tmp_path}/crt", "{tmp_path}/key")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.count("cannot be loaded") == 3
