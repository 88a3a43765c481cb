"""The agent put together: every object is made here, and nowhere else.

Construction touches the world in two places only: the spool takes its boot number, and the record of this run begins.
Everything else begins when `run` starts the workers. Forwarding depends on nothing in this process.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence

from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind

from . import desired, diagnosis, diagnostics, engine, feed, ledger, telemetry, timekeeping, wifi
from .address.part import AddressPart
from .clock import SystemClock
from .config import AgentConfig
from .console import ConsoleReporter
from .errors import TransientError
from .firmware import feature as firmware
from .gate import Gate
from .health import HealthWorker
from .heartbeat import HeartbeatWorker, LateGate
from .identity import TPM, EnrolmentClient, IdentityHolder, IdentityStore, IdentityWorker
from .last_run import LastRun
from .leaving import why_leaving
from .link import LinkWorker, MQTTBroker, roads
from .memory import Tidier
from .notify import Notifier
from .ports import Clock, Worker
from .spool import Spool
from .status import StatusBoard
from .supervisor import Supervisor

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Agent:
    """Everything that runs, and what has to be closed after it."""

    workers: Sequence[Worker]
    status: StatusBoard
    holder: IdentityHolder
    spool: Spool
    clock: Clock
    last_run: LastRun


def build(config: AgentConfig, clock: Clock | None = None) -> Agent:
    """Make every object of the agent; touched are the spool, which takes its boot number, and the record of this run.

    Raises:
        SetupError: The data partition or the image lacks something.
    """
    clock = clock or SystemClock(floor_s=config.release.build_time)
    log = diagnostics.LogLines()
    logging.getLogger("omamori_agent").addHandler(log)
    status = StatusBoard()
    console = ConsoleReporter(config.paths.console)
    spool = Spool(config.paths.spool, config.spool, clock)
    spool.open()
    holder = IdentityHolder()
    last_run = LastRun(config.paths.last_run, boot_id=desired.boot_id(config), watchdogs=config.paths.watchdogs)
    service_ca = str(config.paths.service_ca)
    engine_feature = engine.build(config, spool, status, clock)
    exclusion = feed.RuleExclusion()
    feed_feature = feed.build(config, spool, status, clock, engine_feature, exclusion=exclusion)
    reach = LateReach()
    wifi_part = wifi.WifiPart(wifi.build(config.paths, config.release.radio))
    firmware_feature = firmware.build(
        config,
        spool,
        status,
        clock,
        control=engine_feature.control,
        console=console.line,
        boot_id=desired.boot_id(config),
        boottime_s=desired.boottime_s,
    )
    desired_worker = desired.build(
        config,
        spool,
        clock,
        rules=exclusion,
        parts=lambda version: [
            _address_part(config, reach, version),
            wifi_part,
            firmware_feature.part,
            feed_feature.part,
        ],
        busy=firmware_feature.busy,
        console=console.line,
        collect=lambda: diagnostics.pack(diagnostics.collect(config.paths, status.get(), log.lines())),
    )
    identity = IdentityWorker(
        device=config.device,
        store=IdentityStore(config.paths.identity, config.device, config.provision.claim, TPM.of_board()),
        enroller=EnrolmentClient(config.provision, service_ca, config.enrolment),
        holder=holder,
        limits=config.enrolment,
        clock=clock,
        report=console.line,
    )
    telemetry_worker = telemetry.build(config, spool, status, clock, boot_id=desired.boot_id(config))
    link = LinkWorker(
        config=config,
        broker=MQTTBroker(roads(config.provision), service_ca, config.link),
        holder=holder,
        spool=spool,
        status=status,
        clock=clock,
        on_announcement=feed_feature.on_announcement,
        desired=desired_worker,
        last_end=last_run.end,
        why_leaving=lambda: why_leaving(config.paths.restart_request),
        jobs=desired_worker.jobs,
        channel=feed_feature.channel.get,
        power_before=telemetry_worker.power_before,
    )
    reach.link = link
    feed_feature.channel.subscribe(link.reconnect)
    heartbeat = HeartbeatWorker(
        config=config,
        spool=spool,
        status=status,
        gate=LateGate(lambda: Gate(config.paths.bpf)),
        clock=clock,
        offer=link.offer_heartbeat,
    )
    health = HealthWorker(config=config, status=status, report=console.line)
    workers: list[Worker] = [
        identity,
        link,
        heartbeat,
        health,
        telemetry_worker,
        ledger.build(config, spool, status, clock, past_s=telemetry_worker.past_s),
        diagnosis.build(
            config,
            status,
            clock,
            is_enrolled=lambda: holder.get() is not None,
            last_run=last_run,
            report=console.line,
        ),
        timekeeping.build(config, spool, report=console.line, boottime_s=desired.boottime_s),
        desired_worker,
        wifi.WifiWorker(wifi_part),
        *engine_feature.workers,
        *feed_feature.workers,
        *firmware_feature.workers,
    ]
    return Agent(workers, status, holder, spool, clock, last_run)


@dataclasses.dataclass
class LateReach:
    """The link, for a part of the desired state that is made before it."""

    link: LinkWorker | None = None

    def reconnect(self) -> None:
        """Give up the present connection and make a new one."""
        if self.link is not None:
            self.link.reconnect()

    def connection(self) -> tuple[int, str] | None:
        """Return number and local address of the present connection, or None without one."""
        return self.link.connection() if self.link is not None else None


def _address_part(config: AgentConfig, reach: LateReach, version: Callable[[], int]) -> AddressPart:
    limits = desired.DesiredLimits()
    return AddressPart(
        config.paths.address,
        config.paths.address_answer,
        reach,
        boot_id=desired.boot_id(config),
        boottime_s=desired.boottime_s,
        version=version,
        trial_s=limits.address_trial_s,
        settle_s=limits.address_settle_s,
    )


def run(config: AgentConfig, notifier: Notifier, stop: threading.Event) -> int:
    """Run the agent until `stop` is set or a worker dies; returns the exit code.

    Raises:
        SetupError: It could not even start.
    """
    agent = build(config)
    try:
        _tell_start(config, agent)
        supervisor = Supervisor(
            agent.workers,
            notifier=notifier,
            stop=stop,
            stop_s=config.stop_s,
            describe=lambda: describe(agent),
            tidy=Tidier(),
        )
        exit_code = supervisor.run()
        if exit_code == 0:
            agent.last_run.close()
        return exit_code
    finally:
        agent.spool.close()


def describe(agent: Agent) -> str:
    """Return the agent's state in one line for the service manager."""
    status = agent.status.get()
    enrolled = "enrolled" if agent.holder.get() else "not enrolled"
    connected = "connected" if status.connected else "not connected"
    feed_text = f"feed {status.feed_serial} {status.feed_state.word}"
    return f"engine {status.engine.word}, {feed_text}, {enrolled}, {connected}"


def _tell_start(config: AgentConfig, agent: Agent) -> None:
    release = config.release
    text = f"agent started: firmware {release.version} {release.flavour}, slot {config.slot.name}"
    event = Event(boot=0, seq=0, at_ms=int(agent.clock.now() * 1000), kind=EventKind.SYSTEM, text=text)
    try:
        agent.spool.put([event])
    except TransientError as err:
        logger.warning("the start is not on record: %s", err)
