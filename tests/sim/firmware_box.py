"""A box with everything around its firmware: repository, stick, slots, disk. Tests update, cut and restart it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.firmware import apply
from omamori_agent.firmware.boot_facts import load_boot_facts
from omamori_agent.firmware.fetch import BundleFetcher
from omamori_agent.firmware.health_gate import Health
from omamori_agent.firmware.limits import FirmwareLimits
from omamori_agent.firmware.machine import AttemptEnd
from omamori_agent.firmware.part import FirmwareDesk, FirmwarePart
from omamori_agent.firmware.record import Record
from omamori_agent.firmware.release import FirmwareRepository
from omamori_agent.firmware.report import FirmwareReporter
from omamori_agent.firmware.restart import RestartTimer
from omamori_agent.firmware.sources import Source, has_stick
from omamori_agent.firmware.store import FirmwareStore
from omamori_agent.firmware.stream import STICK_URL, HTTPSStream, StickFetcher, StickStream, make_fetcher
from omamori_agent.firmware.worker import FirmwareWorker
from omamori_agent.run import CommandResult
from omamori_agent.status import StatusBoard
from omamori_protocol.desired import FirmwareSettings, FirmwareWindow, Metered
from omamori_protocol.vocabulary import EventKind, FirmwareReason, FirmwareState, Slot
from sim.box import box_config
from sim.clock import ManualClock
from sim.firmware_release import BOARD, ReleaseSource
from sim.outbox import MemoryOutbox
from sim.repository import FileServer, RepositorySimulator
from sim.slots import SimulatedSlots

NEVER = threading.Event()
ALWAYS = FirmwareWindow(days=127, start_min=0, length_min=1440, zone="UTC")
# The sim's clock stands at 2026-09-21T20:26:40Z, a Monday: Tuesdays only is "not now".
TUESDAYS = FirmwareWindow(days=2, start_min=60, length_min=60, zone="UTC")
WELL = Health(forwards=True, inspects=True, canary=True, data_is_writable=True, has_identity=True, is_connected=True)
LIMITS = FirmwareLimits(batch_bytes=200_000, reserve_bytes=0, install_poll_s=0.01)
# For servers that are meant to be too slow; whoever is meant to be fast enough gets the product's patience.
IMPATIENT = dataclasses.replace(LIMITS, read_timeout_s=0.5, request_s=0.3, min_bytes_per_s=2**20)


def settings(version: str = "1.1.0", **changes: Any) -> FirmwareSettings:
    values: dict[str, Any] = {
        "version": version,
        "window": ALWAYS,
        "max_wait_s": 7 * 86400,
        "metered": Metered.ALLOW,
        "rate_kbps": 0,
        "owner_refuses_scheduled": False,
    }
    return FirmwareSettings(**(values | changes))


def apply_here(line: Sequence[str], _stop: threading.Event) -> CommandResult:
    """Unpack in this process: faster, and cuts reach it."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = apply.main(list(line)[4:])
    return CommandResult(code, output.getvalue())


class FirmwareBox:
    """`boot` is a new start of the agent, `restart` one of the box."""

    def __init__(self, directory: Path, version: str = "1.0.0") -> None:
        self.config = box_config(directory / "box")
        self.paths = self.config.paths
        self.paths.stick.mkdir()
        self.repo = RepositorySimulator()
        self.paths.trust_root.write_bytes(self.repo.trusted_root)
        (directory / "server").mkdir()
        self.server = FileServer(self.repo.files, directory / "server")
        self.slots = SimulatedSlots(version)
        self.slots.tell(self.paths.boot_facts)
        self.devices = self.paths.slot_devices(Slot.A)
        self.devices[0].parent.mkdir(parents=True)
        for device in self.devices:
            device.touch()
        self.outbox = MemoryOutbox()
        self.console: list[str] = []
        self.clock = ManualClock()
        self.is_clock_known = True
        self.boottime_s = 60.0
        self.health = WELL
        self.status = StatusBoard()
        self.limits = LIMITS
        self.run = apply_here
        self.roothash = "ab" * 32
        self.wanted: FirmwareSettings | None = None
        self.has_document = False
        self.boot()

    def boot(self) -> None:
        """Start the agent anew; what was in memory is gone."""
        release = dataclasses.replace(self.config.release, version=self.slots.version)
        config = dataclasses.replace(self.config, release=release, slot=self.slots.running)
        self.store = FirmwareStore(self.paths.firmware, reserve_bytes=self.limits.reserve_bytes)
        self.desk = FirmwareDesk()
        self.part = FirmwarePart(self.desk)
        fetcher = make_fetcher(self.server.ca_file, self.store.download, self.limits)

        def repository(url: str, name: str, its_fetcher: Any) -> FirmwareRepository:
            return FirmwareRepository(
                base_url=url,
                board=BOARD,
                root_file=self.paths.trust_root,
                metadata_dir=self.paths.firmware / name,
                fetcher=its_fetcher,
                clock=self.clock,
            )

        stick = repository(STICK_URL, "stick-metadata", StickFetcher(self.paths.stick))
        network = repository(self.server.url, "metadata", fetcher)
        self.worker = FirmwareWorker(
            config=config,
            store=self.store,
            desk=self.desk,
            load_facts=lambda: load_boot_facts(
                self.paths.boot_facts, boot_id=self.slots.boot_id, version=release.version
            ),
            sources=(
                Source(
                    "stick", stick, StickStream(self.paths.stick), lambda: has_stick(self.paths.stick), is_free=True
                ),
                Source("repository", network, HTTPSStream(fetcher, self.limits), lambda: True),
            ),
            fetcher=BundleFetcher(self.store, self.devices, self.limits, run=self.run),
            installer=self.slots,
            probe=lambda _stop, _had_identity: self.health,
            restart=RestartTimer(self.clock, lambda: self.is_clock_known, self.paths.restart_request, self.limits),
            make_reporter=lambda facts: FirmwareReporter(
                self.outbox,
                self.console.append,
                self.clock,
                slot=facts.slot,
                running=release.version,
                result_path=self.paths.firmware_result,
            ),
            status=self.status,
            clock=self.clock,
            boottime_s=lambda: self.boottime_s,
            roothash=self.roothash,
            limits=self.limits,
        )
        self.worker.start()
        if self.has_document:
            self.part_state()

    def restart(self, end: AttemptEnd | None = None) -> None:
        """Start the box anew, by whatever hand; `end`: why the trial that was due never reached the agent."""
        self.paths.restart_request.unlink(missing_ok=True)
        self.slots.start(self.paths.boot_facts, end)
        self.boottime_s = 60.0
        self.status.update(connected=False)
        self.boot()

    def want(self, wanted: FirmwareSettings | None) -> None:
        """What the desired state says from now on, also after restarts."""
        self.wanted, self.has_document = wanted, True
        with contextlib.suppress(RejectedError, TransientError):
            self.part.apply(wanted)

    def part_state(self) -> str:
        """What the part would report."""
        try:
            self.part.apply(self.wanted)
        except RejectedError as err:
            return f"refused: {err}"
        except TransientError as err:
            return f"pending: {err}"
        return "applied"

    def release(self, source: ReleaseSource, **changes: Any) -> dict[str, str]:
        """Release a firmware that RAUC will take."""
        self.slots.bundles[source.sha256] = source.version
        return source.publish(self.repo, **changes)

    def make_stick(self) -> None:
        """Plug in a stick with everything that the repository has."""
        for name, data in self.repo.files.items():
            path = self.paths.stick / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def pull_stick(self) -> None:
        """Take the stick away."""
        shutil.rmtree(self.paths.stick)
        self.paths.stick.mkdir()

    def steps(self, count: int = 6, *, seconds: float = 1.0) -> FirmwareState:
        """Let the worker do some steps."""
        for _ in range(count):
            self.worker.step(NEVER)
            self.clock.advance(seconds)
            self.boottime_s += seconds
        return self.state

    def until(self, state: FirmwareState, *, steps: int = 80) -> None:
        """Let the worker work until it is there."""
        for _ in range(steps):
            if self.state is state:
                return
            self.steps(1)
        raise AssertionError(f"{self.state.word} ({self.record.reason.word}: {self.record.detail}), not {state.word}")

    @property
    def record(self) -> Record:
        return self.store.record

    @property
    def state(self) -> FirmwareState:
        return self.store.record.state

    @property
    def wants_restart(self) -> bool:
        return self.paths.restart_request.exists()

    @property
    def told(self) -> list[tuple[str, FirmwareState, FirmwareReason]]:
        return [
            (event.firmware, event.firmware_state, event.firmware_reason)  # type: ignore[misc]
            for event in self.outbox.of(EventKind.FIRMWARE)
        ]
