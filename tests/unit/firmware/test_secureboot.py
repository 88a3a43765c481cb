"""What a box does with a change of Secure Boot's keys; a directory of files plays the firmware's variables."""

from __future__ import annotations

import shutil
import struct
import subprocess  # noqa: TID251 - runs the program under test
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from omamori_firmware import installer
from omamori_firmware.recipe import source_tree
from omamori_ota import certificates
from omamori_ota.firmware.signed_variable import MAX_BYTES, certificate_lists, signed_addition

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECURITY = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
SHA256 = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328").bytes_le
KEY = certificates.new_secure_boot_key()
KEK, OLD, NEW = (certificates.secure_boot_certificate(name, KEY, NOW) for name in ("KEK", "old", "new"))


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    directory = tmp_path_factory.mktemp("slots")
    installer.build_chooser(directory, source=source_tree().slots)
    return directory / installer.KEY_CHANGER


class Rig:
    """A machine whose db has the old certificate, and whose slot A is signed with it."""

    def __init__(self, program: Path, top: Path) -> None:
        self._program = program
        self.top = top
        for name in ("sys/firmware/efi/efivars", "usr/lib/omamori/secureboot", "dev/omamori"):
            (top / name).mkdir(parents=True)
        self.write("db", certificate_lists([OLD]))
        self.fill("a", OLD)
        self.fill("b")

    def variable(self, name: str) -> Path:
        return self.top / f"sys/firmware/efi/efivars/{name}-{SECURITY}"

    def write(self, name: str, data: bytes) -> None:
        self.variable(name).write_bytes(struct.pack("<I", 0x27) + data)

    def read(self, name: str) -> bytes:
        path = self.variable(name)
        return path.read_bytes()[4:] if path.exists() else b""

    def fill(self, slot: str, *signers: x509.Certificate, sectors: int = 8192, at: int = 1_048_576 - 100) -> None:
        """Write a boot partition in which these certificates lie, the first across the end of what is read at once."""
        data = bytearray(8 << 20)
        struct.pack_into("<H", data, 11, 512)
        struct.pack_into("<I", data, 32, sectors)
        data[510:512] = b"\x55\xaa"
        for number, signer in enumerate(signers):
            data[at + 8192 * number : at + 8192 * number + len(der(signer))] = der(signer)
        (self.top / f"dev/omamori/slot_{slot}").write_bytes(data)

    def bring(self, variable: str, *added: x509.Certificate) -> bytes:
        assert isinstance(KEY, rsa.RSAPrivateKey)
        change = signed_addition(variable, added, KEK, KEY, NOW)
        self.put(variable, change)
        return change

    def put(self, variable: str, data: bytes) -> None:
        (self.top / f"usr/lib/omamori/secureboot/{variable}-append.auth").write_bytes(data)

    def run(self) -> subprocess.CompletedProcess[str]:
        line = [str(self._program), "--root", str(self.top)]
        return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)

    def ok(self) -> str:
        done = self.run()
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def rig(program: Path, tmp_path: Path) -> Rig:
    return Rig(program, tmp_path)


def test_an_image_without_changes_does_nothing(rig: Rig) -> None:
    before = rig.read("db")
    assert rig.ok() == ""
    assert rig.read("db") == before
    assert not rig.variable("dbx").exists()


def test_a_certificate_is_added_once(rig: Rig) -> None:
    rig.bring("db", OLD, NEW)
    assert "db has what this image brings" in rig.ok()
    once = rig.read("db")
    assert once.startswith(certificate_lists([OLD]))
    assert der(NEW) in once
    assert rig.ok() == "", "at the next start nothing is left to be done"
    assert rig.read("db") == once


def test_lists_of_another_kind_in_the_variable_are_passed_over(rig: Rig) -> None:
    digest = SHA256 + struct.pack("<III", 28 + 48, 0, 48) + bytes(48)
    rig.write("db", digest + certificate_lists([OLD]) + digest + certificate_lists([NEW]))
    rig.bring("db", OLD, NEW)
    assert rig.ok() == ""


def test_revoked_only_when_no_slot_is_signed_with_it(rig: Rig) -> None:
    rig.bring("dbx", OLD)
    assert "slot A is signed with what shall be revoked" in rig.ok()
    assert not rig.variable("dbx").exists()
    rig.fill("a", NEW)
    rig.fill("b", NEW, OLD)
    assert "slot B is signed with" in rig.ok()
    assert not rig.variable("dbx").exists()
    rig.fill("b", NEW)
    assert "dbx has what this image brings" in rig.ok()
    assert rig.read("dbx") == certificate_lists([OLD])
    rig.fill("b", OLD)  # whatever happens later: it is done
    assert rig.ok() == ""


def test_rests_behind_the_file_system_do_not_count(rig: Rig) -> None:
    rig.bring("dbx", OLD)
    rig.fill("a", NEW)
    rig.fill("b", OLD, sectors=8192, at=8192 * 512 + 100)
    # Read in pieces of a mebibyte, the file system's end is such a piece's end.
    rig.ok()
    assert rig.read("dbx") == certificate_lists([OLD])


def test_a_slot_that_cannot_be_read_counts_as_signed(rig: Rig) -> None:
    rig.bring("dbx", OLD)
    rig.fill("a", NEW)
    (rig.top / "dev/omamori/slot_b").unlink()
    assert "slot B" in rig.ok()
    assert not rig.variable("dbx").exists()


def test_what_is_not_signed_or_no_list_of_certificates_is_refused(rig: Rig) -> None:
    change = rig.bring("db", NEW)
    head = struct.unpack_from("<I", change, 16)[0]
    start, lists = change[: 16 + head], change[16 + head :]
    digest = SHA256 + struct.pack("<III", 28 + 48, 0, 48) + bytes(48)
    bad = {
        "nothing": b"",
        "only a time": change[:16],
        "no certificates": start,
        "a signature longer than the file": change[:16] + struct.pack("<I", len(change)) + change[20:],
        "a signature of nothing": change[:16] + struct.pack("<I", 0) + change[20:],
        "cut off": change[:-1],
        "something behind": change + b"x",
        "digests": start + digest,
        "digests behind certificates": change + digest,
        "a list longer than the file": start + lists[:16] + struct.pack("<I", len(lists) + 1) + lists[20:],
        "a list without room": start + lists[:16] + struct.pack("<I", 27) + lists[20:],
        "an endless list": start + lists[:16] + struct.pack("<III", 28, 0, 0) + lists[28:],
        "a head longer than the list": start + lists[:20] + struct.pack("<I", 0xFFFFFFF0) + lists[24:],
        "entries without content": start + lists[:24] + struct.pack("<I", 16) + lists[28:],
        "one byte too many": change + bytes(MAX_BYTES + 1 - len(change)),
    }
    before = rig.read("db")
    for what, data in bad.items():
        rig.put("db", data)
        assert rig.run().returncode == 1, what
        assert rig.read("db") == before, what
    rig.put("db", change)
    rig.ok()


def test_a_change_of_db_that_fails_does_not_keep_dbx_from_being_tried(rig: Rig) -> None:
    rig.put("db", b"nonsense")
    rig.bring("dbx", OLD)
    rig.fill("a", NEW)
    assert rig.run().returncode == 1
    assert rig.read("dbx") == certificate_lists([OLD])


def test_a_machine_without_variables_is_left_alone(rig: Rig) -> None:
    rig.bring("db", NEW)
    shutil.rmtree(rig.top / "sys")
    assert "no firmware variables" in rig.ok()
