"""Firmware updates put together."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence

from omamori_agent.config import AgentConfig
from omamori_agent.engine import EngineControl
from omamori_agent.errors import SetupError
from omamori_agent.feed.canary import Canary
from omamori_agent.files import read_bounded
from omamori_agent.ports import Clock, Outbox, Worker
from omamori_agent.status import StatusBoard

from .boot_facts import load_boot_facts
from .fetch import BundleFetcher
from .health_gate import BoxProbes
from .installer import RAUCInstaller, SlotInstaller
from .limits import FirmwareLimits
from .part import FirmwareDesk, FirmwarePart
from .release import FirmwareRepository
from .report import FirmwareReporter
from .restart import RestartTimer
from .sources import Source, has_stick
from .store import FirmwareStore
from .stream import STICK_URL, HTTPSStream, StickFetcher, StickStream, make_fetcher
from .worker import FirmwareWorker

_ROOTHASH = re.compile(r"(?:^| )roothash=([0-9a-f]{64})(?: |$)")
_MAX_COMMAND_LINE_BYTES = 8192
_CANARY_TRIES = 10


@dataclasses.dataclass(frozen=True)
class FirmwareFeature:
    """What `build` made: the worker, the desired state's part, and what a restart would disturb."""

    workers: Sequence[Worker]
    part: FirmwarePart
    busy: Callable[[], str]


def build(
    config: AgentConfig,
    outbox: Outbox,
    status: StatusBoard,
    clock: Clock,
    *,
    control: EngineControl,
    console: Callable[[str], None],
    boot_id: str,
    boottime_s: Callable[[], float],
    limits: FirmwareLimits | None = None,
    installer: SlotInstaller | None = None,
) -> FirmwareFeature:
    """Make the worker of firmware updates; nothing is touched before it runs.

    Args:
        config: Paths, repository, what runs.
        outbox: Gets firmware events.
        status: Says whether the broker is reached and the engine inspects.
        clock: Time.
        control: The engine, for the canary.
        console: Writes a line for the installer.
        boot_id: The kernel's name of this boot.
        boottime_s: Returns seconds since power-on.
        limits: Bounds and intervals; the defaults are those of the product.
        installer: The slots; a parameter for tests.
    """
    limits = limits or FirmwareLimits()
    paths, release = config.paths, config.release
    store = FirmwareStore(paths.firmware, reserve_bytes=limits.reserve_bytes)
    desk = FirmwareDesk()
    fetcher = make_fetcher(paths.service_ca, store.download, limits, config.provision.proxy)
    probes = BoxProbes(paths, status, Canary(control, tries=_CANARY_TRIES))
    worker = FirmwareWorker(
        config=config,
        store=store,
        desk=desk,
        load_facts=lambda: load_boot_facts(paths.boot_facts, boot_id=boot_id, version=release.version),
        sources=(
            Source(
                "stick",
                FirmwareRepository(
                    base_url=STICK_URL,
                    board=release.board,
                    root_file=paths.trust_root,
                    metadata_dir=paths.firmware / "stick-metadata",
                    fetcher=StickFetcher(paths.stick),
                    clock=clock,
                ),
                StickStream(paths.stick),
                is_there=lambda: has_stick(paths.stick),
                is_free=True,
            ),
            Source(
                "repository",
                FirmwareRepository(
                    base_url=config.provision.repository_url,
                    board=release.board,
                    root_file=paths.trust_root,
                    metadata_dir=paths.firmware / "metadata",
                    fetcher=fetcher,
                    clock=clock,
                ),
                HTTPSStream(fetcher, limits),
                is_there=lambda: True,
            ),
        ),
        fetcher=BundleFetcher(store, paths.slot_devices(config.slot), limits),
        installer=installer or RAUCInstaller(limits),
        probe=lambda stop, had_identity: probes.look(stop, had_identity=had_identity),
        # The clock has a floor, the image's build time; what the kernel says below that was never set by anybody.
        restart=RestartTimer(clock, lambda: time.time() > release.build_time, paths.restart_request, limits),
        make_reporter=lambda facts: FirmwareReporter(
            outbox,
            console,
            clock,
            slot=facts.slot,
            running=release.version,
            result_path=paths.firmware_result,
        ),
        status=status,
        clock=clock,
        boottime_s=boottime_s,
        roothash=running_roothash(config),
        limits=limits,
    )
    return FirmwareFeature([worker], FirmwarePart(desk), desk.busy)


def running_roothash(config: AgentConfig) -> str:
    """Return the root hash that the boot loader's signed command line names; empty if there is none."""
    try:
        line = read_bounded(config.paths.proc / "cmdline", _MAX_COMMAND_LINE_BYTES).decode("ascii", "replace")
    except (FileNotFoundError, SetupError):
        return ""
    match = _ROOTHASH.search(line)
    return match[1] if match is not None else ""
