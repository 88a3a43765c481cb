"""What a process did to the files of a directory, and the states in which a power cut may leave them.

The model of a disk: what was written to a file before its last sync is there. Of what was written since, any part may
be there, sector by sector. Names (made, removed, renamed) become durable in their order, at the latest with the next
sync of anything.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import subprocess  # noqa: TID251 - the compiler, and the process that is watched
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SECTOR = 512
MARK = "mark"


@dataclasses.dataclass(frozen=True)
class Change:
    """One entry of the log; a `mark` is the watched process' own."""

    operation: str
    offset: int
    path: str
    data: bytes


def watcher(work: Path) -> Path:
    """Compile the library that notes what a process does."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = work / "write_log.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-Wall", "-Wextra", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def watched_run(
    arguments: Sequence[str], directory: Path, work: Path, *, library: Path | None = None, check: bool = True
) -> list[Change]:
    """Run a program to its end and return what it changed below `directory`.

    The program finds the descriptor for its own marks in OMAMORI_WRITE_LOG_FD. `library` is what `watcher` made.
    """
    library = library or watcher(work)
    log_path = work / "write.log"
    with log_path.open("wb") as log:
        environment = {
            "LD_PRELOAD": str(library),
            "OMAMORI_WRITE_LOG_FD": str(log.fileno()),
            "OMAMORI_WRITE_LOG_ROOT": f"{directory}/",
            "PATH": "/usr/bin:/bin",
        }
        subprocess.run(arguments, env=environment, pass_fds=[log.fileno()], check=check, capture_output=not check)
    return list(_parse(log_path.read_bytes()))


def _parse(data: bytes) -> Iterator[Change]:
    at = 0
    while at < len(data):
        end = data.index(b"\n", at)
        operation, offset, length, path = data[at:end].decode().split(" ", 3)
        at = end + 1 + int(length)
        yield Change(operation, int(offset), path, data[end + 1 : at])


def cut_states(
    changes: Sequence[Change], chance: random.Random, variants: int
) -> Iterator[tuple[dict[str, bytes], list[str]]]:
    """Return, for a cut after each change, some possible contents of the directory and the marks made before."""
    for number in range(len(changes) + 1):
        marks = [change.path for change in changes[:number] if change.operation == MARK]
        done = [change for change in changes[:number] if change.operation != MARK]
        states = [_survivors(done, chance, share) for share in (0.0, 1.0)]
        states += [_survivors(done, chance, chance.random()) for _ in range(variants - 2)]
        for state in states[:variants]:
            yield state, marks


def _survivors(done: Sequence[Change], chance: random.Random, share: float) -> dict[str, bytes]:
    """Apply what is durable, and about `share` of the rest."""
    last_sync = {change.path: number for number, change in enumerate(done) if change.operation == "sync"}
    names_durable = max(last_sync.values(), default=-1)
    names_kept = names_durable + round(share * (len(done) - 1 - names_durable))
    files: dict[str, bytearray] = {}
    synced_name = dict(last_sync)
    for number, change in enumerate(done):
        if change.operation in {"unlink", "rename"}:
            if number > names_kept:
                continue
            content = files.pop(change.path, bytearray())
            if change.operation == "rename":
                target = change.data.decode()
                files[target] = content
        elif change.operation == "truncate":
            if number <= synced_name.get(change.path, -1) or chance.random() < share:
                content = files.setdefault(change.path, bytearray())
                del content[change.offset :]
                content.extend(bytes(change.offset - len(content)))
        elif change.operation == "write":
            is_durable = number <= _sync_after(done, number, change.path)
            _write(files.setdefault(change.path, bytearray()), change, chance, 1.0 if is_durable else share)
    return {path: bytes(content) for path, content in files.items()}


def _sync_after(done: Sequence[Change], number: int, path: str) -> int:
    """Return the position of the sync that covers a write, or -1; a file may be renamed or removed in between."""
    for later in range(number + 1, len(done)):
        change = done[later]
        if change.path == path:
            if change.operation == "sync":
                return later
            if change.operation in {"unlink", "rename"}:
                return -1
    return -1


def _write(content: bytearray, change: Change, chance: random.Random, share: float) -> None:
    at = change.offset
    data = change.data
    while data:
        length = SECTOR - at % SECTOR
        piece, data = data[:length], data[length:]
        if share >= 1.0 or chance.random() < share:
            content.extend(bytes(max(0, at - len(content))))
            content[at : at + len(piece)] = piece
        at += len(piece)
