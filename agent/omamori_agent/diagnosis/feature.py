"""The diagnosis of a box put together."""

from __future__ import annotations

from collections.abc import Callable

from omamori_agent.config import AgentConfig
from omamori_agent.health import is_wire_present
from omamori_agent.last_run import LastRun
from omamori_agent.ports import Clock
from omamori_agent.status import StatusBoard

from .facts import Contact
from .kernel import Kernel
from .reach import second_hop, servers, try_contact
from .worker import DiagnosisWorker


def build(
    config: AgentConfig,
    status: StatusBoard,
    clock: Clock,
    *,
    is_enrolled: Callable[[], bool],
    last_run: LastRun,
    report: Callable[[str], None],
) -> DiagnosisWorker:
    """Make the worker.

    Args:
        config: Paths, and whom the box may contact.
        status: What the box does.
        clock: Time.
        is_enrolled: Whether there is a certificate.
        last_run: Remembers what was wrong over a power cut.
        report: Writes one line on the console.
    """
    provision, service_ca = config.provision, str(config.paths.service_ca)

    def try_servers(is_enrolled: bool) -> dict[str, Contact]:  # noqa: FBT001 - as the worker calls it
        roads = servers(provision, is_enrolled=is_enrolled)
        return {role: try_contact(road, service_ca) for role, road in roads.items()}

    return DiagnosisWorker(
        config=config,
        status=status,
        kernel=Kernel(config.paths.interfaces, config.paths.proc),
        try_servers=try_servers,
        find_second_hop=lambda: second_hop(provision.broker_host, provision.broker_port),
        is_enrolled=is_enrolled,
        is_wire_whole=lambda: is_wire_present(config.paths),
        note=last_run.note_trouble,
        trouble_before=last_run.trouble,
        clock=clock,
        report=report,
    )
