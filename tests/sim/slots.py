"""Two slots and a boot loader with variables, as the box has them; restarts happen when a test says so."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

from omamori_agent.firmware.errors import UpdateRefusedError, UpdateWaitsError
from omamori_agent.firmware.machine import AttemptEnd
from omamori_protocol.vocabulary import FirmwareReason, Slot

OTHER = {Slot.A: Slot.B, Slot.B: Slot.A}


class SimulatedSlots:
    """`omamori_agent.firmware.installer.SlotInstaller`. What is installed survives every kill."""

    def __init__(self, version: str) -> None:
        self.versions: dict[Slot, str] = {Slot.A: version, Slot.B: ""}
        self.bundles: dict[str, str] = {}  # SHA-256 of each bundle that is rightly signed, and its version
        self.committed = self.running = Slot.A
        self.next: Slot | None = None
        self.is_trial = False
        self.attempt: AttemptEnd | None = None
        self.calls: list[str] = []
        self.failures: dict[str, int] = {}
        self.boots = 1

    @property
    def version(self) -> str:
        """Version that runs."""
        return self.versions[self.running]

    @property
    def boot_id(self) -> str:
        """The kernel's name of this boot."""
        return f"boot-{self.boots}"

    def install(self, bundle: Path, stop: threading.Event) -> None:
        self._call("install", FirmwareReason.INSTALL_FAILED)
        assert self.next is None, "the slot that the next start shall try is being written"
        version = self.bundles.get(hashlib.sha256(bundle.read_bytes()).hexdigest())
        if version is None:
            raise UpdateRefusedError(FirmwareReason.BUNDLE_REFUSED, "RAUC: signature verification failed")
        self.versions[OTHER[self.running]] = version

    def activate(self) -> None:
        self._call("activate", FirmwareReason.ACTIVATION_FAILED)
        assert self.versions[OTHER[self.running]], "nothing is installed there"
        self.next, self.attempt = OTHER[self.running], AttemptEnd.SET

    def deactivate(self) -> None:
        self._call("deactivate", FirmwareReason.ACTIVATION_FAILED)
        self.next = self.attempt = None

    def commit(self) -> None:
        self._call("commit", FirmwareReason.ACTIVATION_FAILED)
        self.committed, self.attempt = self.running, None

    def reject(self) -> None:
        self._call("reject", FirmwareReason.ACTIVATION_FAILED)
        self.next = None

    def _call(self, name: str, reason: FirmwareReason) -> None:
        self.calls.append(name)
        if self.failures.get(name, 0):
            self.failures[name] -= 1
            raise UpdateWaitsError(reason, f"RAUC: no {name} today")

    def start(self, paths_boot: Path, end: AttemptEnd | None = None) -> None:
        """Start the box anew. `end`: the trial that was due does not reach the agent, and this is why."""
        self.boots += 1
        if self.next is not None and end is None:
            self.running, self.is_trial, self.attempt = self.next, True, AttemptEnd.STARTED
        elif self.next is not None:
            self.running, self.is_trial, self.attempt = self.committed, False, end
        else:
            if self.attempt is AttemptEnd.STARTED:
                self.attempt = end or AttemptEnd.INTERRUPTED
            self.running, self.is_trial = self.committed, False
        self.next = None
        self.tell(paths_boot)

    def fall_back(self, paths_boot: Path) -> None:
        """Start the slot before, for once: the committed one got nowhere three times."""
        self.boots += 1
        self.running, self.is_trial, self.next = OTHER[self.committed], False, None
        self.tell(paths_boot)

    def tell(self, path: Path) -> None:
        """Write what the slots' service writes at boot."""
        path.parent.mkdir(parents=True, exist_ok=True)
        other = OTHER[self.running]
        attempt = None if self.attempt is None else {"slot": other.name, "end": str(self.attempt)}
        body = {
            "format": 1,
            "slot": self.running.name,
            "committed": self.committed.name,
            "is_trial": self.is_trial,
            "reason": "trial" if self.is_trial else "normal" if self.running is self.committed else "fallback",
            "attempt": attempt,
            "other": {"slot": other.name, "state": "good" if self.versions[other] else "empty"},
        }
        path.write_text(json.dumps(body))
