"""The box's retained state, in words of the protocol."""

from __future__ import annotations

import dataclasses

from omamori_agent.config import AgentConfig
from omamori_agent.identity import Identity
from omamori_agent.status import Status
from omamori_agent.text import clean_text
from omamori_protocol.messages import State
from omamori_protocol.vocabulary import Leaving, PowerKind, Presence, RunEnd

_MAX_REASON_LENGTH = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a connection's birth tells about the time before it; the same for as long as the connection lasts.

    Attributes:
        uptime_s: Seconds since power-on.
        last_end: How the box's run before this one ended.
        away_s: For how long this agent had been without a connection; None at its first one.
        trouble_before: Code of what was wrong meanwhile, or before the power went; 0 for nothing.
        power_before: What the supervisor saw of the power when this run of the box began, and for how many ms the power
            had been away; None without a supervisor.
    """

    uptime_s: int = 0
    last_end: RunEnd = RunEnd.UNKNOWN
    away_s: int | None = None
    trouble_before: int = 0
    power_before: tuple[PowerKind, int] | None = None


def describe(
    config: AgentConfig,
    identity: Identity,
    status: Status,
    *,
    session: bytes,
    presence: Presence,
    boot: int,
    since_s: float,
    beginning: Beginning,
    leaving: Leaving | None = None,
    quiet_s: int | None = None,
) -> State:
    """Return the state to publish.

    Args:
        config: Who the box is and which image it runs.
        identity: Its certificate.
        status: What it does now.
        session: Random bytes of this connection; birth and will of one connection have the same.
        presence: Online for the birth, offline for the will.
        boot: The agent's boot number.
        since_s: Unix time in seconds at which the connection was made.
        beginning: What was before it.
        leaving: In a goodbye, why.
        quiet_s: In a goodbye, for how long the box will be silent at most.
    """
    return State(
        session=session,
        presence=presence,
        boot=boot,
        since_s=int(since_s),
        model=config.release.model,
        firmware=config.release.version,
        flavour=config.release.flavour,
        slot=config.slot,
        feed_serial=status.feed_serial,
        feed_state=status.feed_state,
        feed_reason=clean_text(status.feed_reason, _MAX_REASON_LENGTH) or None,
        certificate_expires_s=identity.expires_s,
        uptime_s=beginning.uptime_s,
        last_end=beginning.last_end,
        away_s=beginning.away_s,
        trouble=status.trouble or None,
        trouble_before=beginning.trouble_before or None,
        leaving=leaving,
        quiet_s=quiet_s,
        supervisor=status.supervisor,
        power_before=None if beginning.power_before is None else beginning.power_before[0],
        power_before_ms=None if beginning.power_before is None else beginning.power_before[1],
    )
