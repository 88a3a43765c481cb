"""The key directory: whole, private, never overwritten."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from omamori_ota import keys
from omamori_ota.errors import SetupError
from omamori_ota.keys import KeyDirectory
from omamori_ota.metadata import check_signed_by
from omamori_ota.roles import DELEGATED, FEED, FIRMWARE, KEY_NAMES, ROLES, ROOT, TOP_LEVEL, Lifetimes
from omamori_protocol.cose import load_public_keys

from .conftest import START


def test_all_files_of_the_contract_are_there_and_secrets_are_private(key_directory: KeyDirectory) -> None:
    found = {str(path.relative_to(key_directory.path)) for path in key_directory.path.rglob("*") if path.is_file()}
    expected = {f"tuf/{name}.pem" for name in KEY_NAMES}
    expected |= {f"secureboot/{name}.{kind}" for name in ("PK", "KEK", "db") for kind in ("key", "crt")}
    expected |= {f"pki/{name}.{kind}" for name in ("device-ca", "service-ca", "bundle-ca") for kind in ("key", "crt")}
    expected |= {"trust/root.json", "trust/service-ca.pem", "trust/db.crt", "trust/PK.crt", "trust/KEK.crt"}
    expected |= {"desired/desired.pem", "trust/desired.pem"}
    expected |= {"bundle/bundle.key", "bundle/bundle.crt", "trust/bundle-ca.pem"}
    assert found == expected
    assert stat.S_IMODE(key_directory.path.stat().st_mode) == 0o700
    for path in key_directory.path.rglob("*"):
        if path.suffix in (".pem", ".key") and "trust" not in path.parts:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_trust_holds_no_private_key(key_directory: KeyDirectory) -> None:
    for path in (key_directory.path / "trust").iterdir():
        assert b"PRIVATE" not in path.read_bytes()


def test_occupied_directory_is_refused_and_untouched(tmp_path: Path) -> None:
    place = tmp_path / "keys"
    place.mkdir()
    (place / "mine").write_text("precious")
    with pytest.raises(SetupError, match="exists already"):
        keys.init(place, lambda: pytest.fail("must refuse first"), Lifetimes())  # type: ignore[arg-type, return-value]
    assert [path.name for path in place.iterdir()] == ["mine"]
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_failure_on_the_way_leaves_nothing(
    tmp_path: Path, key_directory: KeyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError("no entropy")

    monkeypatch.setattr("omamori_ota.certificates.new_secure_boot_key", fail)
    with pytest.raises(OSError, match="no entropy"):
        keys.init(tmp_path / "keys", lambda: key_directory.trusted_root().signed.expires, Lifetimes())
    assert list(tmp_path.iterdir()) == []


def test_root_needs_two_of_three_and_is_signed(key_directory: KeyDirectory) -> None:
    root = key_directory.trusted_root()
    check_signed_by(root.signed, ROOT, root)
    assert root.signed.consistent_snapshot
    assert root.signed.roles["root"].threshold == 2
    assert len(root.signed.roles["root"].keyids) == 3
    root.signatures.popitem()
    check_signed_by(root.signed, ROOT, root)
    root.signatures.popitem()
    with pytest.raises(SetupError):
        check_signed_by(root.signed, ROOT, root)


def test_roles_share_no_key_and_delegations_share_no_path() -> None:
    assert len(set(KEY_NAMES)) == len(KEY_NAMES)
    assert set(TOP_LEVEL) | set(DELEGATED) == set(ROLES)
    assert ROLES[FIRMWARE].paths == ("firmware/*/*/*",)
    assert ROLES[FEED].paths == ("feed/*/*",)
    assert not any(ROLES[name].is_online for name in ("root", "targets", "firmware"))


def test_secure_boot_keys_are_rsa_2048_and_authorities_p256(key_directory: KeyDirectory) -> None:
    for name in keys.SECURE_BOOT:
        certificate = x509.load_pem_x509_certificate((key_directory.path / f"secureboot/{name}.crt").read_bytes())
        public = certificate.public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        assert public.key_size == 2048
        assert certificate.issuer == certificate.subject
        assert (key_directory.path / f"trust/{name}.crt").read_bytes().startswith(b"-----BEGIN CERTIFICATE")
    for name in (keys.DEVICE_CA, keys.SERVICE_CA):
        certificate, key = key_directory.authority(name)
        assert isinstance(key.curve, ec.SECP256R1)
        assert certificate.public_key() == key.public_key()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert constraints.ca
        assert constraints.path_length == 0


def test_directory_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="not a key directory") as caught:
        KeyDirectory(tmp_path)
    assert "keys init" in caught.value.hint


def old_directory(tmp_path: Path, key_directory: KeyDirectory) -> Path:
    """Return a copy as an older version made it."""
    place = tmp_path / "keys"
    shutil.copytree(key_directory.path, place)
    shutil.rmtree(place / "desired")
    shutil.rmtree(place / "bundle")
    for name in ("trust/desired.pem", "trust/bundle-ca.pem", "pki/bundle-ca.key", "pki/bundle-ca.crt"):
        (place / name).unlink()
    return place


def test_older_directory_gets_what_it_lacks_and_nothing_else_changes(
    tmp_path: Path, key_directory: KeyDirectory
) -> None:
    place = old_directory(tmp_path, key_directory)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with pytest.raises(SetupError, match=r"desired\.pem is not there") as caught:
        KeyDirectory(place).desired_key()
    assert "keys complete" in caught.value.hint
    assert keys.complete(place, lambda: START) == [
        "desired/desired.pem",
        "trust/desired.pem",
        "pki/bundle-ca",
        "trust/bundle-ca.pem",
        "bundle/bundle",
    ]
    assert all(path.read_bytes() == data for path, data in before.items())
    assert stat.S_IMODE((place / "desired/desired.pem").stat().st_mode) == 0o600
    (trusted,) = load_public_keys((place / "trust/desired.pem").read_bytes())
    assert trusted.public_bytes_raw() == KeyDirectory(place).desired_key().public_key().public_bytes_raw()
    assert keys.complete(place, lambda: START) == []


def test_public_half_that_is_lost_is_made_from_the_key(tmp_path: Path, key_directory: KeyDirectory) -> None:
    place = old_directory(tmp_path, key_directory)
    keys.complete(place, lambda: START)
    public = (place / "trust/desired.pem").read_bytes()
    (place / "trust/desired.pem").unlink()
    assert keys.complete(place, lambda: START) == ["trust/desired.pem"]
    assert (place / "trust/desired.pem").read_bytes() == public


def test_key_that_is_no_ed25519_key(tmp_path: Path, key_directory: KeyDirectory) -> None:
    place = old_directory(tmp_path, key_directory)
    (place / "desired").mkdir()
    for data in (b"junk", (place / "pki/device-ca.key").read_bytes()):
        (place / "desired/desired.pem").write_bytes(data)
        with pytest.raises(SetupError):
            KeyDirectory(place).desired_key()


def test_only_a_key_directory_is_completed(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="not a key directory"):
        keys.complete(tmp_path, lambda: START)
