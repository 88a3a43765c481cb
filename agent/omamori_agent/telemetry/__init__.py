"""What the supervisor beside the box tells of temperature, voltage, wire and power, on boards that have one.

`state_file` reads what omamori-herald wrote, `power` decides what is new about the power, `worker` passes it on.
"""

from __future__ import annotations

from omamori_agent import vitals
from omamori_agent.config import AgentConfig
from omamori_agent.ports import Clock, Outbox
from omamori_agent.status import StatusBoard

from .state_file import StateReader
from .worker import TelemetryWorker

__all__ = ["StateReader", "TelemetryWorker", "build"]


def build(
    config: AgentConfig,
    outbox: Outbox,
    status: StatusBoard,
    clock: Clock,
    *,
    boot_id: str,
) -> TelemetryWorker:
    """Make the worker; nothing is touched before it runs.

    Args:
        config: Paths.
        outbox: Gets power events.
        status: Is told figures and facts.
        clock: Time.
        boot_id: The kernel's name of this run.
    """
    return TelemetryWorker(
        reader=StateReader(config.paths.supervisor, clock.monotonic),
        boot_id=boot_id,
        uptime_s=lambda: vitals.uptime_s(config.paths.proc),
        outbox=outbox,
        status=status,
        clock=clock,
    )
