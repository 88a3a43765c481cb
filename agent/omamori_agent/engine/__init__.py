"""The inspection engine, seen from the agent: is it there, what did it find, how is it told things.

It never starts the engine and never touches traffic. `build` wires the workers; the feed uses `EngineFeature` to
bring new rules and lists to the engine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from omamori_agent.config import AgentConfig
from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded
from omamori_agent.gate import Gate
from omamori_agent.ports import Clock, Outbox, Worker
from omamori_agent.status import StatusBoard

from .alert_worker import CURSOR, AlertWorker
from .block_worker import BlockLists, BlockWorker
from .control import DatasetChange, EngineControl, RulesetStats
from .errors import EngineRefusedError, EngineUnavailableError
from .eve import EveTail
from .fold import Folder
from .gate_port import GateAccess, GatePort, mac_of
from .watch import EngineWatch

__all__ = [
    "BlockLists",
    "DatasetChange",
    "EngineControl",
    "EngineFeature",
    "EngineRefusedError",
    "EngineUnavailableError",
    "EngineWatch",
    "GateAccess",
    "GatePort",
    "RulesetStats",
    "build",
]

ROTATE_BYTES = 4 * 1024 * 1024  # of the 32 MiB that the EVE file system holds


@dataclasses.dataclass(frozen=True)
class EngineFeature:
    """What `build` made: the workers, and what the feed needs to change the engine."""

    workers: Sequence[Worker]
    control: EngineControl
    watch: EngineWatch
    gate: GatePort
    block_lists: BlockLists


def build(
    config: AgentConfig, outbox: Outbox, status: StatusBoard, clock: Clock, gate: Gate | None = None
) -> EngineFeature:
    """Make the engine's workers; nothing is touched before they run.

    Args:
        config: Paths.
        outbox: Gets alerts and system events.
        status: Gets engine state and uninspected time.
        clock: Time; its monotonic part counts from power-on.
        gate: The gate if it is open already; otherwise, and after it failed, it is opened when needed.
    """
    control = EngineControl(config.paths.engine_socket, clock)
    access = GateAccess(lambda: Gate(config.paths.bpf), gate)
    watch = EngineWatch(
        control,
        processes=config.paths.root / "sys/fs/cgroup/system.slice/omamori-engine.service/cgroup.procs",
        ledger_path=config.paths.run / "agent/uninspected.json",
        outbox=outbox,
        status=status,
        clock=clock,
    )
    tail = EveTail(config.paths.eve, boot_id=_boot_id(config), position=outbox.cursor(CURSOR))
    alerts = AlertWorker(
        tail,
        control,
        lambda address: mac_of(access, address),
        outbox,
        clock,
        folder=Folder(),
        rotate_bytes=ROTATE_BYTES,
    )
    lists = BlockLists()
    blocks = BlockWorker(access, lists, outbox, clock, folder=Folder())
    return EngineFeature([watch, alerts, blocks], control, watch, access, lists)


def _boot_id(config: AgentConfig) -> str:
    """Return the kernel's name of this boot; without one, positions of earlier runs are not used."""
    try:
        text = read_bounded(config.paths.proc / "sys/kernel/random/boot_id", 128).decode("ascii", "replace").strip()
    except (FileNotFoundError, SetupError):
        return "unknown"
    return text.replace(":", "")[:64] or "unknown"
