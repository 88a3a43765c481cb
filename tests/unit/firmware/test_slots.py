"""The boot chooser, with a directory of files for the firmware's variables: entries, trials, commits and their ends.

A power cut is played by running a command while one of its steps cannot be done, or by leaving out what would follow.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess  # noqa: TID251 - runs the program under test
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware import disk, installer
from omamori_firmware.recipe import source_tree

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
EROFS = b"\0" * 1024 + b"\xe2\xe1\xf5\xe0"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    directory = tmp_path_factory.mktemp("slots")
    installer.build_chooser(directory, source=source_tree().slots)
    return directory / installer.CHOOSER


class Rig:
    """A machine: its variables, its disk's partitions, what it remembers on the data partition."""

    def __init__(self, program: Path, top: Path) -> None:
        self._program = program
        self.top = top
        self.variables = top / "sys/firmware/efi/efivars"
        self.state = top / "var/lib/omamori/boot"
        self.running = top / "run/omamori/boot"
        for path in (self.variables, self.state, top / "run/omamori", top / "dev/omamori", top / "sys/class/block"):
            path.mkdir(parents=True)
        for path in (top / "usr/lib/omamori/slots", top / "var/lib/omamori/migration"):
            path.mkdir(parents=True)
        (top / "usr/lib/omamori/slots/partitions").write_text(installer.partition_file())
        (top / "usr/lib/omamori/data-version").write_text("1\n")
        self.partition("slot_a", 1, 2048)
        self.partition("slot_b", 2, 133120)
        (top / "dev/omamori/root_a").write_bytes(EROFS)
        (top / "dev/omamori/root_b").write_bytes(bytes(4096))

    def partition(self, name: str, number: int, start: int) -> None:
        link = self.top / "dev/omamori" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/dev/vda{number}")
        facts = self.top / f"sys/class/block/vda{number}"
        facts.mkdir(exist_ok=True)
        for fact, value in (("partition", number), ("start", start), ("size", 131072)):
            (facts / fact).write_text(f"{value}\n")

    def fill_other(self) -> None:
        (self.top / "dev/omamori/root_b").write_bytes(EROFS)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        line = [str(self._program), "--root", str(self.top), *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)

    def ok(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, slot: str | None = None) -> dict[str, Any]:
        """Switch the machine on as its firmware would, and return what the box is told."""
        if slot is None:
            slot = self.firmware_choice()
        shutil.rmtree(self.running, ignore_errors=True)
        (self.top / "run/omamori/slot").write_text(f"{slot}\n")
        self.ok("boot")
        return dict(json.loads((self.running / "boot.json").read_text()))

    def firmware_choice(self) -> str:
        chosen = self.read("BootNext")
        if chosen is not None:
            self.path("BootNext").unlink()
            return self.name(struct.unpack("<H", chosen)[0])
        for number in self.order():
            if self.name(number):
                return self.name(number)
        return "A"  # the first partition with a loader

    def path(self, name: str) -> Path:
        return self.variables / f"{name}-{GLOBAL}"

    def read(self, name: str) -> bytes | None:
        return self.path(name).read_bytes()[4:] if self.path(name).exists() else None

    def write(self, name: str, data: bytes) -> None:
        self.path(name).write_bytes(struct.pack("<I", 7) + data)

    def order(self) -> list[int]:
        raw = self.read("BootOrder") or b""
        return [number for (number,) in struct.iter_unpack("<H", raw)]

    def name(self, number: int) -> str:
        raw = self.read(f"Boot{number:04X}") or b""
        text = raw[6:].decode("utf-16-le", errors="replace").split("\0")[0]
        return text.removeprefix("omamori-") if text.startswith("omamori-") else ""

    def names(self) -> list[str]:
        return [self.name(number) for number in self.order()]

    def trial(self) -> dict[str, Any]:
        """Go as far as the first start of slot B."""
        self.start()
        self.fill_other()
        self.ok("set-state", "B", "bad")
        self.ok("set-primary", "B")
        return self.start()


@pytest.fixture
def rig(program: Path, tmp_path: Path) -> Rig:
    return Rig(program, tmp_path / "machine")


def test_new_box_gets_an_entry_for_each_slot(rig: Rig) -> None:
    told = rig.start()
    assert told == {
        "format": 1,
        "slot": "A",
        "committed": "A",
        "is_trial": False,
        "reason": "normal",
        "attempt": None,
        "other": {"slot": "B", "state": "empty"},
    }
    assert rig.names() == ["A"]
    assert sorted(rig.name(number) for number in (0, 1)) == ["A", "B"]
    assert rig.path("BootOrder").read_bytes()[:4] == struct.pack("<I", 7)


def test_an_entry_names_partition_and_loader_as_the_specification_says(rig: Rig) -> None:
    rig.start()
    (number,) = (number for number in (0, 1) if rig.name(number) == "B")
    raw = rig.read(f"Boot{number:04X}")
    assert raw is not None
    attributes, path_bytes = struct.unpack_from("<IH", raw)
    title = "omamori-B\0".encode("utf-16-le")
    assert attributes == 1
    assert raw[6 : 6 + len(title)] == title
    path = raw[6 + len(title) :]
    assert len(path) == path_bytes
    kind, sub, size, partition, start, sectors = struct.unpack_from("<BBHIQQ", path)
    assert (kind, sub, size, partition, start, sectors) == (4, 1, 42, 2, 133120, 131072)
    assert uuid.UUID(bytes_le=path[24:40]) == disk.guid("slot_b")
    assert path[40:42] == b"\x02\x02"
    kind, sub, size = struct.unpack_from("<BBH", path, 42)
    assert (kind, sub) == (4, 4)
    assert path[46 : 42 + size].decode("utf-16-le") == "\\EFI\\BOOT\\BOOTX64.EFI\0"
    assert path[42 + size :] == b"\x7f\xff\x04\x00"


def test_disk_with_large_sectors_is_counted_in_them(rig: Rig) -> None:
    queue = rig.top / "sys/class/block/queue"
    queue.mkdir()
    (queue / "logical_block_size").write_text("4096\n")
    rig.start()
    (number,) = (number for number in (0, 1) if rig.name(number) == "B")
    raw = rig.read(f"Boot{number:04X}") or b""
    assert struct.unpack_from("<QQ", raw, 6 + 20 + 8) == (133120 // 8, 131072 // 8)


def test_trial_is_one_start(rig: Rig) -> None:
    told = rig.trial()
    assert (told["slot"], told["committed"], told["is_trial"], told["reason"]) == ("B", "A", True, "trial")
    assert told["attempt"] == {"slot": "B", "end": "started"}
    assert (rig.running / "trial").exists()
    assert rig.names() == ["A"]
    told = rig.start()
    assert (told["slot"], told["is_trial"], told["reason"]) == ("A", False, "normal")
    assert told["attempt"] == {"slot": "B", "end": "interrupted"}
    assert told["other"] == {"slot": "B", "state": "bad"}
    assert not (rig.running / "trial").exists()
    assert rig.start()["attempt"] == {"slot": "B", "end": "interrupted"}


def test_committed_slot_stays(rig: Rig) -> None:
    rig.trial()
    assert rig.run("deadline").returncode == 1
    rig.trial()
    rig.ok("set-state", "B", "good")
    assert rig.names() == ["B", "A"]
    assert not (rig.running / "trial").exists()
    rig.ok("deadline")
    for _ in range(2):
        told = rig.start()
        assert (told["slot"], told["committed"], told["is_trial"], told["attempt"]) == ("B", "B", False, None)
        assert told["other"] == {"slot": "A", "state": "good"}


def test_rauc_is_told_the_truth(rig: Rig) -> None:
    rig.trial()
    assert rig.ok("get-current") == "B\n"
    assert rig.ok("get-primary") == "A\n"
    assert [rig.ok("get-state", slot) for slot in "AB"] == ["good\n", "bad\n"]
    rig.ok("set-state", "B", "good")
    assert rig.ok("get-primary") == "B\n"
    assert [rig.ok("get-state", slot) for slot in "AB"] == ["good\n", "good\n"]
    rig.ok("set-primary", "A")
    assert rig.ok("get-primary") == "A\n"


def test_activation_can_be_taken_back(rig: Rig) -> None:
    rig.start()
    rig.fill_other()
    rig.ok("set-primary", "B")
    rig.ok("set-primary", "A")
    assert rig.read("BootNext") is None
    told = rig.start()
    assert (told["slot"], told["attempt"]) == ("A", None)


def test_slot_that_is_written_is_not_started_meanwhile(rig: Rig) -> None:
    rig.trial()
    rig.ok("set-state", "B", "good")
    rig.ok("set-state", "A", "bad")
    assert rig.names() == ["B"]
    rig.ok("set-primary", "A")
    rig.ok("set-state", "A", "bad")
    assert rig.read("BootNext") is None


def test_last_slot_is_not_taken_out(rig: Rig) -> None:
    rig.start()
    assert rig.run("set-state", "A", "bad").returncode == 1
    assert rig.names() == ["A"]


def test_empty_slot_gets_no_trial(rig: Rig) -> None:
    rig.start()
    assert rig.run("set-primary", "B").returncode == 1
    assert rig.read("BootNext") is None


@pytest.mark.parametrize("command", ["deadline", "migration"])
def test_trial_ends_with_a_reason(rig: Rig, command: str) -> None:
    rig.trial()
    assert rig.run(command).returncode == 1
    assert rig.start()["attempt"] == {"slot": "B", "end": command}
    assert rig.run(command).returncode == 0


def test_fifth_failure_of_a_trial_ends_it(rig: Rig) -> None:
    rig.trial()
    assert [rig.run("strike").returncode for _ in range(5)] == [0, 0, 0, 0, 1]
    assert rig.start()["attempt"] == {"slot": "B", "end": "crash-loop"}


def test_failures_outside_a_trial_end_nothing(rig: Rig) -> None:
    rig.start()
    assert {rig.run("strike").returncode for _ in range(20)} == {0}
    rig.trial()
    rig.ok("set-state", "B", "good")
    assert {rig.run("strike").returncode for _ in range(20)} == {0}


def test_activation_that_never_reached_the_kernel_is_told(rig: Rig) -> None:
    rig.start()
    rig.fill_other()
    rig.ok("set-primary", "B")
    rig.path("BootNext").unlink()  # used up by a start that ended before the box could say anything
    assert rig.start()["attempt"] == {"slot": "B", "end": "never-started"}


def test_trial_that_ends_before_our_service_has_been_one(rig: Rig) -> None:
    rig.start()
    rig.fill_other()
    rig.ok("set-primary", "B")
    rig.path("BootNext").unlink()
    (rig.top / "run/omamori/slot").write_text("B\n")
    rig.ok("starting")  # the initrd, which found the root file system; what came then panicked
    assert rig.start()["attempt"] == {"slot": "B", "end": "interrupted"}


def test_cut_between_intent_and_bootnext_leaves_the_old_slot(rig: Rig) -> None:
    rig.start()
    rig.fill_other()
    (rig.state / "attempt").write_text("B set\n")
    told = rig.start()
    assert (told["slot"], told["attempt"]) == ("A", {"slot": "B", "end": "never-started"})


def test_cut_before_bootorder_is_no_commit(rig: Rig) -> None:
    rig.trial()
    (rig.state / "attempt").write_text("B committing\n")
    told = rig.start()
    assert (told["slot"], told["committed"], told["attempt"]) == ("A", "A", {"slot": "B", "end": "interrupted"})


def test_cut_after_bootorder_is_a_commit(rig: Rig) -> None:
    rig.trial()
    rig.ok("set-state", "B", "good")
    (rig.state / "attempt").write_text("B committing\n")
    (rig.state / "committed").write_text("A\n")
    told = rig.start()
    assert (told["slot"], told["committed"], told["reason"], told["attempt"]) == ("B", "B", "normal", None)
    assert (rig.state / "committed").read_text() == "B\n"


def forget_all(rig: Rig) -> None:
    for path in rig.variables.iterdir():
        path.unlink()


def shuffle(rig: Rig) -> None:
    rig.write("BootOrder", struct.pack("<2H", *reversed(rig.order())))


@pytest.mark.parametrize("happens", [forget_all, shuffle])
def test_firmware_that_forgets_what_was_committed_is_reminded(rig: Rig, happens: Callable[[Rig], None]) -> None:
    rig.trial()
    rig.ok("set-state", "B", "good")
    rig.start()
    happens(rig)
    told = rig.start()
    assert (told["slot"], told["committed"], told["is_trial"], told["reason"]) == ("A", "B", False, "restored")
    assert rig.names() == ["B", "A"]
    told = rig.start()
    assert (told["slot"], told["reason"]) == ("B", "normal")


def test_firmware_that_prefers_the_new_slot_does_not_commit_it(rig: Rig) -> None:
    rig.trial()
    b = next(number for number in (0, 1) if rig.name(number) == "B")
    rig.write("BootOrder", struct.pack("<2H", b, *rig.order()))
    told = rig.start()
    assert (told["slot"], told["committed"], told["reason"]) == ("B", "A", "restored")


def test_firmware_that_takes_the_second_slot_is_told_as_fallback(rig: Rig) -> None:
    rig.trial()
    rig.ok("set-state", "B", "good")
    told = rig.start("A")
    assert (told["slot"], told["committed"], told["is_trial"], told["reason"]) == ("A", "B", False, "fallback")
    assert rig.names() == ["B", "A"]


def test_other_systems_come_after_ours(rig: Rig) -> None:
    for number, title in ((0, "Windows"), (7, "UEFI Misc Device")):
        rig.write(f"Boot{number:04X}", struct.pack("<IH", 1, 4) + f"{title}\0".encode("utf-16-le") + b"\x7f\xff\4\0")
    rig.write("BootOrder", struct.pack("<2H", 7, 0))
    rig.start("A")
    assert rig.names() == ["A", "", ""]
    assert rig.order()[1:] == [7, 0]


def test_entry_of_another_disk_is_put_right_and_copies_go(rig: Rig) -> None:
    rig.start()
    right = {name: rig.read(f"Boot{number:04X}") for number in (0, 1) for name in rig.name(number)}
    b = next(number for number in (0, 1) if rig.name(number) == "B")
    wrong = bytearray(right["B"] or b"")
    wrong[40] ^= 1
    rig.write(f"Boot{b:04X}", bytes(wrong))
    rig.write("Boot0009", right["A"] or b"")
    rig.write("BootOrder", struct.pack("<2H", 9, *rig.order()))
    rig.start("A")
    assert rig.read(f"Boot{b:04X}") == right["B"]
    assert not rig.path("Boot0009").exists() or rig.names() == ["A"]
    assert rig.names() == ["A"]


def test_machine_without_variables_starts(rig: Rig) -> None:
    shutil.rmtree(rig.variables)
    told = rig.start("A")
    assert (told["slot"], told["committed"], told["reason"]) == ("A", "A", "no-variables")
    assert rig.run("set-primary", "B").returncode == 1


def test_variables_that_cannot_be_written_do_not_stop_the_start(rig: Rig) -> None:
    for name in ("BootOrder", "Boot0000"):
        rig.path(name).symlink_to("/nowhere/at/all")
    told = rig.start("A")
    assert told["slot"] == "A"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("BootOrder", b"\1"),
        ("BootOrder", b"\xff" * 4096),
        ("BootOrder", b"\xff" * 4097),
        ("BootNext", b""),
        ("BootNext", b"\0" * 3),
        ("Boot0000", b""),
        ("Boot0000", b"\xff" * 4096),
        ("Boot0000", b"\xff" * 8192),
        ("Boot00", b"x"),
    ],
)
def test_rubbish_in_the_variables_is_lived_with(rig: Rig, name: str, data: bytes) -> None:
    rig.write(name, data)
    told = rig.start("A")
    assert told["slot"] == "A"
    assert rig.names()[0] == "A"


@pytest.mark.parametrize("text", ["", "B", "B ", "C set\n", "B done\n", "B set\n\n", "x" * 5000])
def test_rubbish_in_the_attempt_counts_as_none(rig: Rig, text: str) -> None:
    (rig.state / "attempt").write_text(text)
    assert rig.start()["attempt"] is None


@pytest.mark.parametrize(
    ("present", "wanted", "expected"), [(None, "1", False), (None, "2", True), ("2", "2", False), ("3", "2", True)]
)
def test_data_of_another_version_are_noticed(rig: Rig, present: str | None, wanted: str, expected: bool) -> None:
    (rig.top / "usr/lib/omamori/data-version").write_text(f"{wanted}\n")
    if present is not None:
        (rig.top / "var/lib/omamori/migration/version").write_text(f"{present}\n")
    rig.start()
    assert (rig.running / "migrate").exists() is expected


def test_migration_that_was_cut_is_noticed(rig: Rig) -> None:
    (rig.top / "var/lib/omamori/migration/journal.json").write_text("{}")
    rig.start()
    assert (rig.running / "migrate").exists()


@pytest.mark.parametrize("words", [[], ["set-state", "C", "good"], ["set-state", "A", "fine"], ["get-state"], ["x"]])
def test_wrong_usage_changes_nothing(rig: Rig, words: list[str]) -> None:
    assert rig.run(*words).returncode == 2
    assert not list(rig.variables.iterdir())


def both_good(rig: Rig) -> None:
    rig.trial()
    rig.ok("set-state", "B", "good")
    rig.start()


def test_slot_that_gets_nowhere_three_times_gives_way_once(rig: Rig) -> None:
    both_good(rig)
    assert [rig.run("starting").returncode for _ in range(4)] == [0, 0, 0, 1]
    told = rig.start()
    assert (told["slot"], told["committed"], told["reason"]) == ("A", "B", "fallback")
    assert {rig.run("starting").returncode for _ in range(9)} == {0}
    assert rig.start()["slot"] == "B"


def update_from_fallback(rig: Rig) -> None:
    """The slot that was good before runs for once, and the committed one is about to be written anew."""
    both_good(rig)
    assert [rig.run("starting").returncode for _ in range(4)] == [0, 0, 0, 1]
    assert rig.start()["reason"] == "fallback"
    rig.ok("set-state", "B", "bad")


def test_update_from_a_fallback_is_a_trial_like_any_other(rig: Rig) -> None:
    update_from_fallback(rig)
    rig.ok("set-primary", "B")
    told = rig.start()
    assert (told["slot"], told["committed"], told["is_trial"], told["reason"]) == ("B", "A", True, "trial")
    told = rig.start()
    assert (told["slot"], told["reason"], told["attempt"]) == ("A", "normal", {"slot": "B", "end": "interrupted"})


def test_cut_while_the_committed_slot_is_written_anew_does_not_start_it(rig: Rig) -> None:
    update_from_fallback(rig)
    for _ in range(2):
        told = rig.start()
        assert (told["slot"], told["committed"], told["reason"]) == ("A", "A", "normal")
        assert rig.names() == ["A"]


def test_slot_that_gets_somewhere_stays(rig: Rig) -> None:
    both_good(rig)
    for _ in range(4):
        assert [rig.run("starting").returncode for _ in range(3)] == [0, 0, 0]
        rig.ok("settled")
    assert rig.start()["slot"] == "B"


def test_slot_without_a_good_other_goes_on_trying(rig: Rig) -> None:
    rig.start()
    rig.fill_other()
    assert {rig.run("starting").returncode for _ in range(9)} == {0}
    assert rig.run("rescue").returncode == 1
    assert rig.read("BootNext") is None


def test_trial_is_not_counted(rig: Rig) -> None:
    rig.trial()
    assert {rig.run("starting").returncode for _ in range(9)} == {0}
    assert rig.start()["slot"] == "A"


def test_root_that_cannot_be_opened_starts_the_other_once(rig: Rig) -> None:
    both_good(rig)
    shutil.rmtree(rig.top / "dev")
    shutil.rmtree(rig.top / "usr")
    rig.ok("rescue")
    assert rig.firmware_choice() == "A"


def test_machine_without_variables_is_not_held_up(rig: Rig) -> None:
    shutil.rmtree(rig.variables)
    (rig.top / "run/omamori/slot").write_text("A\n")
    assert {rig.run("starting").returncode for _ in range(9)} == {0}
