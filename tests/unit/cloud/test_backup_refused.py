"""What is no backup, or no place for one, changes nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from omamori_cloud.errors import BackupError, CloudError, SchemaError
from omamori_cloud.store import backup
from omamori_cloud.store.backup import read_backup, write_backup
from omamori_cloud.store.database import newest_revision

from .makers import Bench, OpenElsewhere, alert
from .test_migrations import content


def test_a_store_with_rows_is_never_overwritten(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "backup.gz"
    write_backup(bench.engine, path)
    assert read_backup(bench.engine, path).rows["events"] == 0  # it is empty: nothing to lose
    bench.say(alert(seq=1))
    before = content(bench.engine)
    with pytest.raises(BackupError, match="not empty"):
        read_backup(bench.engine, path)
    assert content(bench.engine) == before


def test_a_database_of_something_else_is_left_alone(elsewhere: OpenElsewhere, tmp_path: Path, bench: Bench) -> None:
    write_backup(bench.engine, tmp_path / "backup.gz")
    other = elsewhere()
    with other.begin() as connection:
        connection.execute(text("CREATE TABLE accounts (id INTEGER)"))
    with pytest.raises(BackupError, match="something else"):
        read_backup(other, tmp_path / "backup.gz")


def test_a_file_is_never_replaced(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "backup.gz").write_text("precious")
    with pytest.raises(BackupError, match="exists"):
        write_backup(bench.engine, tmp_path / "backup.gz")
    assert (tmp_path / "backup.gz").read_text() == "precious"


def test_a_place_that_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(BackupError):
        write_backup(bench.engine, tmp_path / "nowhere" / "backup.gz")


def test_nothing_to_back_up(elsewhere: OpenElsewhere, tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        write_backup(elsewhere(), tmp_path / "backup.gz")
    assert not (tmp_path / "backup.gz").exists()


def lines_of(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).splitlines(keepends=True)


def sealed(lines: list[bytes]) -> bytes:
    """Return a file of these lines with a hash that fits."""
    end = json.dumps({"sha256": hashlib.sha256(b"".join(lines)).hexdigest()}).encode() + b"\n"
    return gzip.compress(b"".join(lines) + end)


def damages(whole: Path) -> Iterator[tuple[str, bytes]]:
    data, lines = whole.read_bytes(), lines_of(whole)
    yield "empty", b""
    yield "no gzip", b"SQLite format 3\0" * 100
    yield "cut off", data[: len(data) // 2]
    yield "last line missing", gzip.compress(b"".join(lines[:-1]))
    yield "a bit flipped inside", gzip.compress(b"".join(lines).replace(b"phishing", b"qhishing"))
    rows = [number for number, line in enumerate(lines) if b"phishing" in line]
    yield "a row missing", sealed([*lines[: rows[0]], *lines[rows[0] + 1 : -1]])
    yield "a row too many", sealed([*lines[: rows[0]], *lines[rows[0] : rows[0] + 1] * 2, *lines[rows[0] + 1 : -1]])
    yield "a column missing", sealed([line.replace(b'"seq",', b"") for line in lines[:-1]])
    yield "another format", sealed([lines[0].replace(b'"omamori-backup":1', b'"omamori-backup":2'), *lines[1:-1]])
    yield "no JSON", sealed([lines[0], b"[1,\n", *lines[1:-1]])
    yield "deep nesting", sealed([lines[0], b"[" * 100_000 + b"\n", *lines[1:-1]])
    yield "a line too long", sealed([lines[0], b'"' + b"x" * backup.MAX_LINE_BYTES + b'"\n', *lines[1:-1]])
    yield "a newer program", sealed([lines[0].replace(newest_revision().encode(), b"9999"), *lines[1:-1]])
    start = next(number for number, line in enumerate(lines) if b'"table":"settings"' in line)
    yield "a table missing", sealed([*lines[:start], *lines[start + 3 : -1]])


def restore(engine: Engine, path: Path, name: str) -> None:
    read_backup(engine, path)
    pytest.fail(f"taken: {name}")


def test_damaged_backups_change_nothing(bench: Bench, elsewhere: OpenElsewhere, tmp_path: Path) -> None:
    bench.say(alert(seq=1))
    whole = tmp_path / "whole.gz"
    write_backup(bench.engine, whole)
    other, path = elsewhere(), tmp_path / "damaged.gz"
    for name, data in damages(whole):
        path.write_bytes(data)
        with pytest.raises(CloudError):
            restore(other, path, name)
        assert content(other) == {}, name
    with pytest.raises(BackupError):
        read_backup(other, tmp_path / "missing.gz")
    read_backup(other, whole)
    assert len(content(other)["events"]) == 1
