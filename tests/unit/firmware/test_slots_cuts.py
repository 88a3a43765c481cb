"""Long lives of a machine whose power fails again and again, at any write of the boot chooser: chosen by chance.

Updates, trials, commits, withdrawals, fallbacks and restarts follow each other. After each start: what was started is
whole, only what was committed once runs without being on trial, and nothing half-written is ever first.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess  # noqa: TID251 - compiles the program under test
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware import installer
from omamori_firmware.recipe import source_tree
from sim.write_log import Change, watched_run, watcher

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
EROFS = b"\0" * 1024 + b"\xe2\xe1\xf5\xe0"
HALF = ""
LIVES, STEPS = 12, 40
CUT = 0.15  # share of the commands that a power cut ends
ON_TRIAL = ("commit", "commit", "commit", "settled", "cut", "deadline")
OTHERWISE = ("update", "cut", "cut", "cuts", "settled", "withdraw")


class Machine:
    """Variables, the chooser's files, and what is in the slots; switched off and on."""

    def __init__(self, program: Path, library: Path, top: Path, chance: random.Random) -> None:
        self.program, self.library, self.top, self.chance = program, library, top, chance
        self.variables = top / "sys/firmware/efi/efivars"
        self.state = top / "var/lib/omamori/boot"
        for path in (self.variables, self.state, top / "dev/omamori", top / "run/omamori"):
            path.mkdir(parents=True)
        (top / "usr/lib/omamori/slots").mkdir(parents=True)
        (top / "usr/lib/omamori/slots/partitions").write_text(installer.partition_file())
        (top / "usr/lib/omamori/data-version").write_text("1\n")
        for number, name in enumerate(("slot_a", "slot_b"), start=1):
            (top / "dev/omamori" / name).symlink_to(f"/dev/vda{number}")
            facts = top / f"sys/class/block/vda{number}"
            facts.mkdir(parents=True)
            for fact, value in (("partition", number), ("start", 2048 * number), ("size", 2048)):
                (facts / fact).write_text(f"{value}\n")
        self.slots = {"A": "v1", "B": HALF}
        self.committed = {"v1"}
        self.newest = 1
        self.running = "A"
        self.is_activated = False
        self.told: dict[str, Any] = {}
        self.story: list[str] = []
        self.write("A", "v1")
        (top / "dev/omamori/root_b").write_bytes(bytes(4096))

    def write(self, letter: str, content: str) -> None:
        self.slots[letter] = content
        (self.top / f"dev/omamori/root_{letter.lower()}").write_bytes(EROFS)

    def command(self, *words: str, may_cut: bool = True) -> bool:
        """Run the program; return False when the power failed meanwhile, at a write that chance has chosen."""
        before = self._content()
        line = [str(self.program), "--root", str(self.top), *words]
        changes = watched_run(line, self.top, self.top.parent, library=self.library, check=False)
        if not may_cut or self.chance.random() > CUT:
            self.story.append(" ".join(words))
            return True
        number = self.chance.randint(0, len(changes))
        synced = max((at for at, change in enumerate(changes[:number]) if change.operation == "sync"), default=-1)
        kept = self.chance.randint(synced + 1, number)
        self.story.append(f"{' '.join(words)} (cut at {number}, {kept} of {len(changes)})")
        self._restore(before, changes, number, kept)
        return False

    def power_on(self) -> None:
        """Start until a start gets as far as the agent; whoever is asked meanwhile may lose the power, too."""
        self.is_activated = False
        while not self._start():
            pass
        version = self.slots[self.running]
        story = "\n".join([*self.story, str(self.told), str(self.slots), str(self.committed)])
        assert version != HALF, story
        assert self.told["is_trial"] == (version not in self.committed), story
        assert self.slots[self.told["committed"]] in self.committed, story

    def _start(self) -> bool:
        self.running = self._firmware_choice()
        assert self.slots[self.running] != HALF, "\n".join([*self.story, str(self.slots)])
        shutil.rmtree(self.top / "run/omamori/boot", ignore_errors=True)
        (self.top / "run/omamori/slot").write_text(f"{self.running}\n")
        self.story.append(f"start {self.running}")
        before = self._content()
        line = [str(self.program), "--root", str(self.top), "starting"]
        if subprocess.run(line, capture_output=True, check=False).returncode:
            assert self._content() != before
            return False
        if not self.command("boot"):
            return False
        self.told = json.loads((self.top / "run/omamori/boot/boot.json").read_text())
        return True

    def _firmware_choice(self) -> str:
        names = {path.name[:-37]: path for path in self.variables.iterdir()}
        once, order = names.get("BootNext"), names.get("BootOrder")
        numbers = [] if once is None else [struct.unpack("<H", once.read_bytes()[4:])[0]]
        if once is not None:
            once.unlink()
        numbers += [] if order is None else [number for (number,) in struct.iter_unpack("<H", order.read_bytes()[4:])]
        for number in numbers:
            text = names[f"Boot{number:04X}"].read_bytes()[10:].decode("utf-16-le", errors="replace")
            return text[len("omamori-")]
        return "A"

    def _content(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for place in (self.variables, self.state) for path in place.iterdir()}

    def _restore(self, before: dict[Path, bytes], changes: list[Change], number: int, kept: int) -> None:
        """Make what a cut leaves: a variable is there when it was written; names in their order, as far as they got."""
        content = {str(path): data for path, data in before.items()}
        fresh: dict[str, bytes] = {}
        for at, change in enumerate(changes[:number]):
            is_variable = change.path.startswith(str(self.variables))
            if not is_variable and not change.path.startswith(str(self.state)):
                continue  # in memory
            if change.operation == "write":
                (content if is_variable else fresh)[change.path] = change.data
            elif change.operation == "unlink" and (is_variable or at < kept):
                content.pop(change.path, None)
            elif change.operation == "rename" and at < kept:
                content[change.data.decode()] = fresh.pop(change.path, b"")
        for place in (self.variables, self.state):
            for path in place.iterdir():
                path.unlink()
        for path, data in content.items():
            Path(path).write_bytes(data)


def update(machine: Machine) -> bool:
    """What RAUC and the agent do; False when the power failed."""
    other = "B" if machine.running == "A" else "A"
    if not machine.command("set-state", other, "bad"):
        return False
    machine.write(other, HALF)
    if machine.chance.random() < 0.2:
        machine.story.append("cut while it is written")
        return False
    machine.newest += 1
    machine.write(other, f"v{machine.newest}")
    machine.is_activated = True
    return machine.command("set-primary", other)


def commit(machine: Machine) -> bool:
    order = machine.variables / f"BootOrder-{GLOBAL}"
    before = order.read_bytes()
    done = machine.command("set-state", machine.running, "good")
    if order.read_bytes() != before:
        machine.committed.add(machine.slots[machine.running])
    return done


def live(machine: Machine) -> None:
    machine.power_on()
    for _ in range(STEPS):
        action = machine.chance.choice(ON_TRIAL if machine.told["is_trial"] else OTHERWISE)
        if action == "update":
            is_on = update(machine)
        elif action == "commit":
            is_on = commit(machine)
        elif action == "settled":
            is_on = machine.command("settled")
        elif action == "withdraw" and machine.is_activated:
            is_on = machine.command("set-primary", machine.running)
        elif action == "deadline":
            machine.command("deadline")
            is_on = False
        else:
            is_on = action not in {"cut", "cuts"}
        if not is_on:
            machine.power_on()
        if action == "cuts":
            until_fallback(machine)
            if not machine.told["is_trial"] and not update(machine):
                machine.power_on()
    machine.told = {}


def until_fallback(machine: Machine) -> None:
    """Let starts get nowhere until the other slot gets its chance, if it may."""
    for _ in range(5):
        machine.power_on()
        if machine.told["reason"] == "fallback":
            return


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The program, linked so that its writes can be seen, and what sees them."""
    place = tmp_path_factory.mktemp("slots")
    library = watcher(place)
    program = place / "omamori-slots"
    source = source_tree().slots / "omamori_slots.c"
    subprocess.run(["gcc", "-std=gnu11", "-O1", '-DBOOT_FILE="BOOTX64.EFI"', "-o", program, source], check=True)
    return program, library


@pytest.mark.parametrize("seed", range(LIVES))
def test_life_with_power_cuts(tools: tuple[Path, Path], tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    machine = Machine(*tools, tmp_path / "machine", chance)
    live(machine)
