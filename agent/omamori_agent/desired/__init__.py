"""Desired state and commands: signed for this box, judged whole, kept on disk, applied part by part, reported.

`verify` holds the rules, `store` the files, `progress` the parts; `commands` does commands, with `bypass`, `identify`,
`reboot` and `diagnostics`; `worker` puts them together. The parts are `policy` and `exemptions` here, the address in
`omamori_agent.address`, and whatever `build` is given.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from omamori_agent.config import AgentConfig
from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded
from omamori_agent.gate import Gate
from omamori_agent.lamp import call_for_lamp, lamps
from omamori_agent.ports import Clock, Outbox
from omamori_hw.supervisor.abilities import SysfsLeds
from omamori_protocol.cose import MAX_PUBLIC_KEY_BYTES, load_public_keys
from omamori_protocol.desired import FirmwareWindow
from omamori_protocol.errors import ProtocolError

from .bypass import Bypass
from .commands import Commands
from .diagnostics import DiagnosticsAnswer
from .errors import CommandRefusedError, DocumentRefusedError, PendingError
from .exemptions import ExemptionsPart, RulePort
from .gate_port import Steering, SteeringPort
from .identify import Identify
from .limits import DesiredLimits
from .part import Part
from .policy import PolicyPart
from .progress import Progress
from .reboot import Reboot
from .store import DesiredStore
from .worker import DesiredWorker, EventDesk

__all__ = [
    "CommandRefusedError",
    "DesiredLimits",
    "DesiredWorker",
    "DiagnosticsAnswer",
    "DocumentRefusedError",
    "Part",
    "PendingError",
    "SteeringPort",
    "boot_id",
    "boottime_s",
    "build",
]

logger = logging.getLogger(__name__)


def boottime_s() -> float:
    """Return seconds since power-on, standby included; the gate's clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id(config: AgentConfig) -> str:
    """Return the kernel's name of this boot; without one, nothing is taken over from an earlier run."""
    try:
        text = read_bounded(config.paths.boot_id, 128).decode("ascii", "replace").strip()
    except (FileNotFoundError, SetupError):
        return f"{time.time_ns():x}"
    return text[:64]


def load_keys(config: AgentConfig) -> list[Ed25519PublicKey]:
    """Return the keys that the image trusts; without any, every document is refused and the rest of the box works."""
    try:
        return load_public_keys(read_bounded(config.paths.desired_keys, MAX_PUBLIC_KEY_BYTES))
    except (FileNotFoundError, SetupError, ProtocolError) as err:
        logger.warning("desired state cannot be verified: %s: %s", config.paths.desired_keys, err)
        return []


@dataclasses.dataclass
class _Late:
    """What is in force, for what is made before the worker."""

    worker: DesiredWorker | None = None

    def version(self) -> int:
        return self.worker.version if self.worker is not None else 0

    def window(self) -> FirmwareWindow | None:
        return self.worker.window() if self.worker is not None else None


def build(
    config: AgentConfig,
    outbox: Outbox,
    clock: Clock,
    *,
    rules: RulePort,
    parts: Callable[[Callable[[], int]], Sequence[Part]] = lambda _version: (),
    gate: SteeringPort | None = None,
    limits: DesiredLimits | None = None,
    busy: Callable[[], str] = lambda: "",
    console: Callable[[str], None] = lambda _line: None,
    collect: Callable[[], bytes] = bytes,
) -> DesiredWorker:
    """Make the worker; nothing is touched before it runs.

    Args:
        config: Paths and who the box is.
        outbox: Gets lines about what was accepted, refused, begun and ended.
        clock: Time.
        rules: Leaves rules out of the engine.
        parts: Makes the parts besides policy and exemptions; given what returns the version in force.
        gate: The gate; a parameter for tests.
        limits: Bounds and intervals; the defaults are those of the product.
        busy: Returns what a restart of the box would disturb; nothing if it would not.
        console: Writes one line on the console.
        collect: Returns the content of diagnostics, compressed.
    """
    limits = limits or DesiredLimits()
    gate = gate or Steering(lambda: Gate(config.paths.bpf))
    keys = load_keys(config)
    store = DesiredStore(config.paths.desired)
    events = EventDesk(outbox, clock)
    exemptions = ExemptionsPart(gate, rules, clock)
    late = _Late()
    progress = Progress(
        [PolicyPart(gate), exemptions, *parts(late.version)],
        clock,
        poll_s=limits.poll_s,
        retry_cap_s=limits.retry_cap_s,
    )
    boot = boot_id(config)
    bypass = Bypass(config.paths.desired / "bypass.json", gate, boot_id=boot, boottime_s=boottime_s, tell=events.tell)
    leds = SysfsLeds(config.paths.leds)
    identify = Identify(
        config.paths.identify,
        call=lambda: call_for_lamp(config.paths),
        lamps=lambda: lamps(leds.names()),
        device=config.device,
        boottime_s=boottime_s,
        console=console,
        tell=events.tell,
    )
    reboot = Reboot(
        config.paths.desired / "reboot.json",
        config.paths.restart_request,
        boot_id=boot,
        clock=clock,
        # The clock has a floor, the image's build time; what it says at the floor was never set by anybody.
        is_clock_known=lambda: clock.now() > config.release.build_time,
        window=late.window,
        busy=busy,
        tell=events.tell,
    )
    diagnostics = DiagnosticsAnswer(
        config.paths.desired / "diagnostics.cbor", collect=collect, clock=clock, tell=events.tell
    )
    commands = Commands(
        device=config.device,
        keys=keys,
        store=store,
        bypass=bypass,
        identify=identify,
        reboot=reboot,
        diagnostics=diagnostics,
        clock=clock,
        maximum=limits.max_remembered_commands,
    )
    late.worker = DesiredWorker(
        device=config.device,
        keys=keys,
        store=store,
        progress=progress,
        commands=commands,
        bypass=bypass,
        events=events,
        clock=clock,
        limits=limits,
        dues={exemptions.name: exemptions.is_due},
    )
    return late.worker
