"""The log of attempts: what the operator sees, and its bounds. And registers of the format before."""

from __future__ import annotations

import json
import sqlite3
import stat
from pathlib import Path

import pytest

from omamori_ota import attempts, cli
from omamori_ota.attempts import AttemptLog, Cause
from omamori_ota.boxes import ClaimState, hash_claim, new_claim
from omamori_ota.errors import SetupError
from omamori_ota.keys import DEVICE_CA, KeyDirectory
from omamori_ota.registry import Registry

from .conftest import START, ManualClock
from .test_enrolment import SERIAL
from .test_renewal import Site


@pytest.fixture
def log(tmp_path: Path) -> AttemptLog:
    return AttemptLog(tmp_path / "registry.db")


def test_attempts_that_end_alike_are_one_row(log: AttemptLog, clock: ManualClock, tmp_path: Path) -> None:
    log.note(SERIAL, Cause.WRONG_CLAIM, clock(), address="192.0.2.1")
    clock.advance(minutes=5)
    log.note(SERIAL, Cause.WRONG_CLAIM, clock(), address="192.0.2.2", skew_s=-7)
    log.note(SERIAL, Cause.ENROLLED, clock(), address="192.0.2.3", key_hash=b"k" * 32)
    enrolled, wrong = sorted(log.attempts(), key=lambda item: item.cause)
    assert (wrong.count, wrong.address, wrong.skew_s) == (2, "192.0.2.2", -7)
    assert (wrong.first_at, wrong.last_at) == (START, clock())
    assert (enrolled.count, enrolled.key_hash) == (1, b"k" * 32)
    assert stat.S_IMODE((tmp_path / "registry.db-attempts").stat().st_mode) == 0o600


def test_strangers_beyond_the_bound_push_out_the_oldest_stranger_and_no_box(
    log: AttemptLog, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MAX_STRANGERS", 3)
    log.note(SERIAL, Cause.KEY_MISMATCH, clock(), address="192.0.2.1")
    for number in range(4):
        clock.advance(seconds=1)
        log.note(f"ZA99-00000{number}", Cause.UNKNOWN_SERIAL, clock(), address="192.0.2.2")
    assert [item.who for item in log.attempts()] == ["ZA99-000003", "ZA99-000002", "ZA99-000001", SERIAL]


def test_bound_of_rows_of_boxes(log: AttemptLog, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_KNOWN", 2)
    for cause in (Cause.REVOKED, Cause.KEY_MISMATCH, Cause.WAITING):
        clock.advance(seconds=1)
        log.note(SERIAL, cause, clock(), address="192.0.2.1")
    assert [item.cause for item in log.attempts()] == [Cause.WAITING, Cause.KEY_MISMATCH]


def test_file_that_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "registry.db-attempts").write_text("SQLite it is not, but long enough to be looked at. " * 20)
    with pytest.raises(SetupError, match="not a log of attempts"):
        AttemptLog(tmp_path / "registry.db")


def test_every_cause_has_a_meaning() -> None:
    assert all(cause.meaning for cause in Cause)


def test_operator_sees_who_waits_and_why(
    registry: Registry, key_directory: KeyDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [str(key_directory.path), str(tmp_path / "registry.db")]
    assert cli.main(["enrolments", *place]) == 0
    assert capsys.readouterr().out == "nobody waits\n"
    with registry.changing() as change:
        change.add(SERIAL, new_claim(), START, is_held=True)
    log = AttemptLog(tmp_path / "registry.db")
    log.note(SERIAL, Cause.WAITING, START, address="192.0.2.1", key_hash=b"\xab" * 32)
    log.note("ZA35-000002", Cause.ENROLLED, START, address="192.0.2.1")
    assert cli.main(["enrolments", *place, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["who"], row["box"], row["cause"], row["key_sha256"]) == (SERIAL, "issued", Cause.WAITING, "ab" * 32)
    assert cli.main(["enrolments", *place]) == 0
    text = capsys.readouterr().out
    assert SERIAL in text
    assert "claim approve" in text
    assert "ZA35-000002" not in text
    assert cli.main(["claim", "approve", *place, SERIAL]) == 0
    box = registry.find(SERIAL)
    assert box is not None
    assert not box.is_held
    assert cli.main(["claim", "approve", *place, "ZA35-000009"]) == 1


def test_register_of_the_format_before_is_taken_over(tmp_path: Path, key_directory: KeyDirectory) -> None:
    path = tmp_path / "old.db"
    authority = key_directory.authority_certificate(DEVICE_CA)
    site = Site(Registry(tmp_path / "registry.db", authority), key_directory, ManualClock())
    certificate = site.enrol()
    box = site.registry.find(SERIAL)
    assert box is not None
    with sqlite3.connect(tmp_path / "registry.db") as new, sqlite3.connect(path) as old:
        about = dict(new.execute("SELECT key, value FROM about"))
        old.execute("CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT")
        old.executemany("INSERT INTO about VALUES (?, ?)", [("format", "1"), ("authority", about["authority"])])
        old.execute(
            "CREATE TABLE boxes (serial TEXT PRIMARY KEY, claim_hash BLOB NOT NULL, state TEXT NOT NULL,"
            " key_hash BLOB, certificate BLOB, made_s INTEGER NOT NULL, enrolled_s INTEGER) STRICT"
        )
        used = (SERIAL, box.claim_hash, "used", box.key_hash, box.certificate, 1, 2)
        issued = ("ZA35-000002", hash_claim("ZA35-000002", "X"), "issued", None, None, 1, None)
        old.executemany("INSERT INTO boxes VALUES (?, ?, ?, ?, ?, ?, ?)", [used, issued])
    for _ in range(2):  # the second time it is new already
        registry = Registry(path, authority)
        assert [item.state for item in registry.boxes()] == [ClaimState.USED, ClaimState.ISSUED]
        with registry.changing() as change:
            known = change.certificate(certificate.serial_number)
        assert known is not None
        assert known.serial == SERIAL
