"""Judges how a box is doing, from facts and the present. Rules only; the words for people are in `wording`."""

from __future__ import annotations

import dataclasses
from enum import IntEnum, StrEnum

from omamori_protocol.reported import PartState
from omamori_protocol.vocabulary import EngineState, FeedState, FirmwareState

from .facts import BoxFacts, SettingsFacts
from .presence import is_online

CERTIFICATE_WARNING_S = 14 * 86400  # certificates last 90 days and are renewed long before


class Level(IntEnum):
    """How urgently somebody should look."""

    OK = 0
    NOTICE = 1
    DANGER = 2

    @property
    def word(self) -> str:
        """The level as a lower-case word."""
        return self.name.lower()


class Finding(StrEnum):
    """Something about a box that its owner should know."""

    OFFLINE = "offline"
    NEVER_HEARD = "never-heard"
    ENGINE_DOWN = "engine-down"
    ENGINE_STARTING = "engine-starting"
    FEED_NONE = "feed-none"
    FEED_REFUSED = "feed-refused"
    FEED_ROLLED_BACK = "feed-rolled-back"
    FEED_STALE = "feed-stale"
    CERTIFICATE_EXPIRING = "certificate-expiring"
    BYPASSED = "bypassed"
    SETTINGS_REFUSED = "settings-refused"
    TROUBLE = "trouble"
    FIRMWARE_FAILED = "firmware-failed"
    FIRMWARE_ROLLED_BACK = "firmware-rolled-back"


_LEVELS = {Finding.OFFLINE: Level.DANGER, Finding.ENGINE_DOWN: Level.DANGER}

_FEED_FINDINGS = {
    FeedState.NONE: Finding.FEED_NONE,
    FeedState.REFUSED: Finding.FEED_REFUSED,
    FeedState.ROLLED_BACK: Finding.FEED_ROLLED_BACK,
    FeedState.STALE: Finding.FEED_STALE,
}

_ENGINE_FINDINGS = {
    EngineState.DOWN: Finding.ENGINE_DOWN,
    EngineState.STARTING: Finding.ENGINE_STARTING,
}


_FIRMWARE_FINDINGS = {
    FirmwareState.FAILED: Finding.FIRMWARE_FAILED,
    FirmwareState.ROLLED_BACK: Finding.FIRMWARE_ROLLED_BACK,
}


class FeedProblem(StrEnum):
    """Why a feed was not taken, as far as a customer needs to tell the cases apart."""

    ALTERED = "altered"
    EXPIRED = "expired"
    OLDER = "older"
    OVERSIZE = "oversize"
    ENGINE = "engine"
    UNREACHABLE = "unreachable"
    OTHER = "other"


# The box gives its reason in technical words; the first line that knows one of them decides.
_PROBLEM_WORDS: tuple[tuple[FeedProblem, tuple[str, ...]], ...] = (
    (FeedProblem.ALTERED, ("tampered",)),
    (FeedProblem.OVERSIZE, ("oversize",)),
    (FeedProblem.EXPIRED, ("expired", "expiry")),
    (FeedProblem.OLDER, ("rollback", "older", "lower", "went back", "not newer", "bad version")),
    (FeedProblem.ENGINE, ("engine", "suricata", "rules do not load", "canary", "settle", "health")),
    (FeedProblem.OVERSIZE, ("too large", "too big", "allowed", "exceeds")),
    (FeedProblem.UNREACHABLE, ("unreachable", "timed out", "time-out", "timeout", "connection", "download", "dns")),
    (
        FeedProblem.ALTERED,
        (
            "signature",
            "signed",
            "threshold",
            "hash",
            "digest",
            "sha256",
            "tamper",
            "length",
            "mismatch",
            "path",
            "archive",
            "manifest",
            "malformed",
        ),
    ),
)


def feed_problem(reason: str) -> FeedProblem:
    """Return the kind of problem that a box's technical reason speaks of."""
    lower = reason.lower()
    for problem, words in _PROBLEM_WORDS:
        if any(word in lower for word in words):
            return problem
    return FeedProblem.OTHER


@dataclasses.dataclass(frozen=True, kw_only=True)
class Health:
    """The judgement; `findings` are ordered, the most urgent first."""

    online: bool
    level: Level
    findings: tuple[Finding, ...]


def bypassed_until_ms(settings: SettingsFacts | None, now_ms: int) -> int | None:
    """Return until when a command or the button lets everything pass a box; None if it does not."""
    if settings is None or settings.bypass_until_s is None or settings.bypass_until_s * 1000 <= now_ms:
        return None
    return settings.bypass_until_s * 1000


def _settings_findings(settings: SettingsFacts | None, now_ms: int) -> list[Finding]:
    if settings is None:
        return []
    findings = [Finding.BYPASSED] if bypassed_until_ms(settings, now_ms) is not None else []
    if settings.refused_reason is not None or any(part.state is PartState.REFUSED for part in settings.parts):
        findings.append(Finding.SETTINGS_REFUSED)
    return findings


def assess(box: BoxFacts, *, now_ms: int, offline_after_s: int) -> Health:
    """Judge `box`.

    While a box is silent nothing else about it is known to be true, so nothing else is found.

    Args:
        box: What it last said.
        now_ms: The present.
        offline_after_s: Silence after which it counts as offline.
    """
    online = is_online(
        presence=box.presence,
        presence_ms=box.presence_ms,
        last_contact_ms=box.last_contact_ms,
        now_ms=now_ms,
        offline_after_s=offline_after_s,
    )
    findings: list[Finding] = []
    if not online:
        findings.append(Finding.NEVER_HEARD if box.last_contact_ms is None else Finding.OFFLINE)
    else:
        if box.engine in _ENGINE_FINDINGS:
            findings.append(_ENGINE_FINDINGS[box.engine])
        if box.feed_state in _FEED_FINDINGS:
            findings.append(_FEED_FINDINGS[box.feed_state])
        expires_s = box.certificate_expires_s
        if expires_s is not None and expires_s - now_ms / 1000 < CERTIFICATE_WARNING_S:
            findings.append(Finding.CERTIFICATE_EXPIRING)
        findings += _settings_findings(box.settings, now_ms)
        if box.trouble:
            findings.append(Finding.TROUBLE)
        # A box that runs that firmware by now has got it some other way.
        if box.update is not None and box.update.state in _FIRMWARE_FINDINGS and box.update.version != box.firmware:
            findings.append(_FIRMWARE_FINDINGS[box.update.state])
    findings.sort(key=lambda finding: -_LEVELS.get(finding, Level.NOTICE))
    level = max((_LEVELS.get(finding, Level.NOTICE) for finding in findings), default=Level.OK)
    return Health(online=online, level=level, findings=tuple(findings))
