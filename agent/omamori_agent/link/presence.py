"""The box's retained state, in words of the protocol."""

from __future__ import annotations

from omamori_agent.config import AgentConfig
from omamori_agent.identity import Identity
from omamori_agent.status import Status
from omamori_agent.text import clean_text
from omamori_protocol.messages import State
from omamori_protocol.vocabulary import Presence

_MAX_REASON_LENGTH = 300


def describe(
    config: AgentConfig,
    identity: Identity,
    status: Status,
    *,
    session: bytes,
    presence: Presence,
    boot: int,
    since_s: float,
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
    )
