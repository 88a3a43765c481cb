"""Which words the page must have about a box's supervisor and its power."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from omamori_protocol.vocabulary import PowerKind


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerWords:
    """What happened to the power: a few words, and what it means for the owner."""

    name: str
    meaning: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisorWords:
    """The supervisor on the page of a box."""

    title: str
    lead: str
    none: str
    silent: str
    temperature: str
    celsius: str  # {number}
    hot: str
    rail: str
    volts: str  # {number}
    low: str
    wire: str
    through: str
    past: str
    past_meaning: str
    past_time: str
    since_start: str
    moves: str
    times: str  # {number}
    resets: str
    power: str
    version: str
    length: str  # {name}, {span}
    seconds: str  # {number}
    powers: Mapping[PowerKind, PowerWords]
