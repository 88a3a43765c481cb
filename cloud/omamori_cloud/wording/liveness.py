"""Which words the page must have about absences, and about what is wrong around a box."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from omamori_cloud.liveness import OutageReason
from omamori_protocol.trouble import Trouble


@dataclasses.dataclass(frozen=True, kw_only=True)
class TroubleWords:
    """What is wrong, and what the owner should do about it."""

    title: str
    advice: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutageWords:
    """Why a box was away: a few words, and what it means for the owner."""

    name: str
    meaning: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LivenessWords:
    """Absences on the page of a box, our own outages on the first page, and the box's codes."""

    title: str
    lead: str
    none: str
    start: str
    length: str
    reason: str
    lasts: str  # {span}
    code: str  # {code}
    told: str
    evidence: Mapping[str, str]  # by name of the evidence; {value}
    outages: Mapping[OutageReason, OutageWords]
    troubles: Mapping[Trouble, TroubleWords]
    unknown_trouble: TroubleWords
    service_title: str
    service_lead: str
    service_stopped: str
    service_none: str
    service_cause: str
    workers: str
    worker: str
    worker_at: str
    worker_fine: str
    worker_silent: str
