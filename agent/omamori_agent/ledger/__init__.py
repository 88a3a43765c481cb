"""The uninspected ledger: what passed without inspection, for how long, and why.

The gate counts such packets by its own reasons; the engine's state says the rest. `book` adds up and decides when
something is told; `state` keeps it across restarts of agent and machine; `worker` looks every second.
"""

from __future__ import annotations

from collections.abc import Callable

from omamori_agent.config import AgentConfig
from omamori_agent.gate import Gate, unset_bridge_settings
from omamori_agent.ports import Clock, Outbox, Worker
from omamori_agent.status import StatusBoard

from .book import Book, Entry, Look
from .worker import LedgerGate, LedgerWorker

__all__ = ["Book", "Entry", "LedgerGate", "LedgerWorker", "Look", "build"]


def build(
    config: AgentConfig,
    outbox: Outbox,
    status: StatusBoard,
    clock: Clock,
    *,
    past_s: Callable[[], int | None] = lambda: None,
) -> Worker:
    """Make the ledger's worker; nothing is touched before it runs.

    Args:
        config: Paths.
        outbox: Gets the ledger's events; keeps its state with them.
        status: Says whether the engine inspects; is told how long leases let everything pass.
        clock: Time; its monotonic part counts from power-on.
        past_s: For how long the supervisor has led the wire past the box.
    """
    return LedgerWorker(
        open_gate=lambda: Gate(config.paths.bpf),
        is_wired=lambda: not unset_bridge_settings(config.paths.proc / "sys/net/bridge"),
        past_s=past_s,
        boot_id_path=config.paths.proc / "sys/kernel/random/boot_id",
        copy_path=config.paths.run / "agent/ledger.json",
        outbox=outbox,
        status=status,
        clock=clock,
    )
