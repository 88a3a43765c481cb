"""How the key of kernel images is replaced, and that what boxes get is what a machine's firmware takes."""

from __future__ import annotations

import shutil
import struct
import subprocess  # noqa: TID251 - asks openssl whether the signature is one
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from omamori_ota import cli
from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.firmware import secureboot_keys
from omamori_ota.firmware.bundle_keys import load_certificate
from omamori_ota.firmware.signed_variable import MAX_BYTES, signed_addition
from omamori_ota.keys import KeyDirectory

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f").bytes_le


def clock() -> datetime:
    return NOW


@pytest.fixture
def place(tmp_path: Path, key_directory: KeyDirectory) -> Path:
    shutil.copytree(key_directory.path, tmp_path / "keys")
    return tmp_path / "keys"


def der(path: Path) -> bytes:
    return load_certificate(path).public_bytes(Encoding.DER)


def added(change: bytes) -> list[bytes]:
    """Return the certificates of a change."""
    lists = change[16 + struct.unpack_from("<I", change, 16)[0] :]
    found = []
    while lists:
        assert lists[:16] == X509
        total, head, entry = struct.unpack_from("<III", lists, 16)
        assert (total, head) == (28 + entry, 0)
        found.append(lists[44:total])
        lists = lists[total:]
    return found


def is_signed(change: bytes, variable: str, kek: Path, scratch: Path) -> bool:
    length = struct.unpack_from("<I", change, 16)[0]
    revision, kind = struct.unpack_from("<HH", change, 20)
    assert (revision, kind) == (0x0200, 0x0EF1)
    signature, lists = change[40 : 16 + length], change[16 + length :]
    # openssl wants the wrapping that the firmware does not want.
    tagged = b"\xa0\x82" + struct.pack(">H", len(signature)) + signature
    inside = bytes.fromhex("06092a864886f70d010702") + tagged
    (scratch / "p7").write_bytes(b"\x30\x82" + struct.pack(">H", len(inside)) + inside)
    signed = variable.encode("utf-16-le") + SECURITY + struct.pack("<I", 0x67) + change[:16] + lists
    (scratch / "signed").write_bytes(signed)
    line = ["openssl", "smime", "-verify", "-binary", "-inform", "DER", "-in", str(scratch / "p7"), "-noverify"]
    line += ["-content", str(scratch / "signed"), "-certfile", str(kek), "-nointern", "-out", "/dev/null"]
    return subprocess.run(line, capture_output=True, timeout=30, check=False).returncode == 0


def test_three_steps(place: Path, tmp_path: Path) -> None:
    old = der(place / "secureboot/db.crt")
    kek = place / "secureboot/KEK.crt"
    secureboot_keys.prepare(place, clock)
    new = der(place / "secureboot/db.next.crt")
    addition = (place / "trust/secureboot/db-append.auth").read_bytes()
    assert added(addition) == [old, new]
    assert addition[:16] == struct.pack("<HBBBBBBIhBB", 2030, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0)
    assert is_signed(addition, "db", kek, tmp_path)
    assert not is_signed(addition, "dbx", kek, tmp_path), "a signature is for one variable"
    assert not is_signed(addition, "db", place / "secureboot/PK.crt", tmp_path)
    assert der(place / "trust/db.crt") == old, "images are signed with the old key until it is adopted"
    with pytest.raises(RejectedError):
        secureboot_keys.prepare(place, clock)

    secureboot_keys.adopt(place)
    assert der(place / "secureboot/db.crt") == der(place / "trust/db.crt") == new
    key = load_pem_private_key((place / "secureboot/db.key").read_bytes(), None)
    assert key.public_key() == load_certificate(place / "secureboot/db.crt").public_key()
    assert not (place / "trust/secureboot/dbx-append.auth").exists()
    with pytest.raises(RejectedError):
        secureboot_keys.adopt(place)
    with pytest.raises(RejectedError, match="not retired"):
        secureboot_keys.prepare(place, clock)

    secureboot_keys.retire(place, clock)
    revocation = (place / "trust/secureboot/dbx-append.auth").read_bytes()
    assert added(revocation) == [old]
    assert is_signed(revocation, "dbx", kek, tmp_path)
    with pytest.raises(RejectedError):
        secureboot_keys.retire(place, clock)


def test_second_change_revokes_both(place: Path) -> None:
    olds = []
    for _ in range(2):
        olds.append(der(place / "secureboot/db.crt"))
        secureboot_keys.prepare(place, clock)
        secureboot_keys.adopt(place)
        secureboot_keys.retire(place, clock)
    assert added((place / "trust/secureboot/dbx-append.auth").read_bytes()) == olds
    assert added((place / "trust/secureboot/db-append.auth").read_bytes())[-1] == der(place / "secureboot/db.crt")


def test_an_interrupted_adoption_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = der(place / "secureboot/db.crt")
    secureboot_keys.prepare(place, clock)
    new = der(place / "secureboot/db.next.crt")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_args, **_options: (_ for _ in ()).throw(OSError("power")))
        with pytest.raises(OSError, match="power"):
            secureboot_keys.adopt(place)
    secureboot_keys.adopt(place)
    assert der(place / "secureboot/db.crt") == new
    assert der(place / "secureboot/db.previous.crt") == old


def test_no_more_than_boxes_read(place: Path) -> None:
    kek = load_certificate(place / "secureboot/KEK.crt")
    key = load_pem_private_key((place / "secureboot/KEK.key").read_bytes(), None)
    one = load_certificate(place / "secureboot/db.crt")
    count = MAX_BYTES // len(one.public_bytes(Encoding.DER))
    assert len(signed_addition("db", [one] * (count - 6), kek, key, NOW)) <= MAX_BYTES  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="boxes read"):
        signed_addition("db", [one] * (count + 1), kek, key, NOW)  # type: ignore[arg-type]


def test_commands(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in ("prepare", "adopt", "retire"):
        assert cli.main(["secureboot", step, str(place)]) == 0
    assert "revocation" in capsys.readouterr().out
    assert cli.main(["secureboot", "adopt", str(place)]) != 0
    assert x509.load_pem_x509_certificates((place / "secureboot/db.retired.pem").read_bytes())
