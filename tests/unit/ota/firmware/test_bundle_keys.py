"""Who may sign bundles, and how one authority follows the other without a box being left behind."""

from __future__ import annotations

import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.firmware import bundle_keys
from omamori_ota.keys import KeyDirectory

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def clock() -> datetime:
    return NOW


@pytest.fixture
def place(tmp_path: Path, key_directory: KeyDirectory) -> Path:
    shutil.copytree(key_directory.path, tmp_path / "keys")
    return tmp_path / "keys"


def signer(place: Path) -> x509.Certificate:
    return bundle_keys.load_certificate(place / "bundle/bundle.crt")


def accepts(trust: bytes, certificate: x509.Certificate) -> bool:
    for authority in x509.load_pem_x509_certificates(trust):
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, InvalidSignature):
            continue
        return True
    return False


def trust(place: Path) -> bytes:
    return (place / bundle_keys.TRUST).read_bytes()


def test_certificate_is_for_code_signing_only(place: Path) -> None:
    certificate = signer(place)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CODE_SIGNING]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert accepts(trust(place), certificate)
    for name in ("bundle/bundle.key", "pki/bundle-ca.key"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600


def test_renewed_key_is_another_one_under_the_same_authority(place: Path) -> None:
    before, anchors = signer(place), trust(place)
    bundle_keys.renew(place, clock)
    assert signer(place).public_key() != before.public_key()
    assert trust(place) == anchors
    assert accepts(anchors, signer(place))


def test_authority_changes_in_two_releases_and_no_box_is_left_behind(place: Path) -> None:
    oldest = trust(place)  # in the image of a box that has not been updated
    bundle_keys.prepare(place, clock)
    first_release = trust(place)
    assert accepts(oldest, signer(place))  # which installs the release that carries both
    with pytest.raises(RejectedError, match="still signed under the old"):
        bundle_keys.retire(place)
    bundle_keys.adopt(place, clock)
    assert accepts(first_release, signer(place))
    assert not accepts(oldest, signer(place))
    bundle_keys.retire(place)
    second_release = trust(place)
    assert len(x509.load_pem_x509_certificates(second_release)) == 1
    assert accepts(second_release, signer(place))
    bundle_keys.renew(place, clock)
    assert accepts(second_release, signer(place))
    assert not list(place.rglob("*.next.*"))


def test_a_stolen_authority_signs_for_nobody_after_its_retirement(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "thief")
    bundle_keys.prepare(place, clock)
    bundle_keys.adopt(place, clock)
    bundle_keys.retire(place)
    bundle_keys.renew(tmp_path / "thief", clock)
    assert not accepts(trust(place), signer(tmp_path / "thief"))


def test_steps_come_in_their_order(place: Path) -> None:
    for step in (lambda: bundle_keys.adopt(place, clock), lambda: bundle_keys.retire(place)):
        with pytest.raises(RejectedError, match="no other bundle authority"):
            step()
    bundle_keys.prepare(place, clock)
    with pytest.raises(RejectedError, match="prepared already"):
        bundle_keys.prepare(place, clock)


def test_cut_in_the_last_step_is_taken_up(place: Path) -> None:
    bundle_keys.prepare(place, clock)
    bundle_keys.adopt(place, clock)
    (place / "pki/bundle-ca.next.key").replace(place / "pki/bundle-ca.key")
    bundle_keys.retire(place)
    bundle_keys.renew(place, clock)
    assert accepts(trust(place), signer(place))


def test_older_directory_says_what_it_lacks(place: Path) -> None:
    shutil.rmtree(place / "bundle")
    with pytest.raises(SetupError, match="no key that signs bundles"):
        bundle_keys.renew(place, clock)
    assert bundle_keys.complete(place, clock) == ["bundle/bundle"]
    assert bundle_keys.complete(place, clock) == []
    (place / "bundle/bundle.crt").write_bytes(b"junk")
    with pytest.raises(SetupError, match="not a certificate"):
        signer(place)
