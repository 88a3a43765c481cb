"""Which words a language must supply. Sentences are templates of `str.format`; their field names stand here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime

from omamori_cloud.health import FeedProblem, Finding
from omamori_protocol.reported import PartName, PartState
from omamori_protocol.vocabulary import Action, Direction, EngineState, Function, Severity, UninspectedReason

from .desk import ExplainWords, MenuWords, ReportWords
from .firmware import FirmwareWords
from .liveness import LivenessWords
from .supervisor import SupervisorWords


@dataclasses.dataclass(frozen=True)
class Counted:
    """Words that depend on a number: `one` for exactly one, `many` otherwise; both may use ``{count}``."""

    one: str
    many: str

    def __call__(self, count: int) -> str:
        """Return the words for `count`."""
        return (self.one if count == 1 else self.many).format(count=f"{count:,}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunctionWords:
    """A security function: its name, what an alert of it means, and what to do then."""

    name: str
    meaning: str
    advice: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FindingWords:
    """Something to know about a box: a few words, and a sentence with what to do."""

    title: str
    advice: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeWords:
    """How times and spans are said; spans are whole seconds."""

    ago: Callable[[int], str]
    span: Callable[[int], str]
    moment: Callable[[datetime, datetime], str]  # the moment and the present, both in Japanese time


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadlineWords:
    """The status at the top of the page."""

    no_boxes: str
    no_boxes_help: str
    all_protected: str
    all_protected_help: Counted
    need_attention: Counted
    ingest_trouble: str
    ingest_trouble_help: str
    urgent: Counted
    urgent_help: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxWords:
    """The cards of the boxes."""

    title: str
    online: str
    offline: str
    waiting: str
    protecting: str
    attention: str
    development: str
    last_contact: str
    never: str
    firmware: str
    slot: str  # {slot}
    feed: str
    feed_version: str  # {serial}
    feed_current: str
    feed_old: str
    engine: str
    memory: str
    memory_free: str  # {mib}
    uninspected: str
    uninspected_none: str
    uninspected_help: str
    uptime: str
    unknown: str
    technical_reason: str
    more: Counted
    spooled: Counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlertWords:
    """The list of alerts."""

    title: str
    time: str
    severity: str
    function: str
    terminal: str
    destination: str
    direction: str
    action: str
    category: str
    rule: str
    count: str
    times: Counted
    box: str
    mac_unknown: str
    terminal_unknown: str
    destination_unknown: str
    details: str
    meaning: str
    advice: str
    clock_wrong: str
    none: str
    none_help: str
    none_filtered: str
    older: str
    newest: str
    new: Counted
    last_day: str
    tile_blocked: str
    tile_logged: str
    tile_urgent: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterWords:
    """The form above the alerts."""

    title: str
    any: str
    at_least: str  # {stars}
    only: str  # {stars}
    terminal: str
    terminal_example: str
    apply: str
    clear: str
    wrong: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherWords:
    """Everything else on the page."""

    page_title: str
    brand: str
    skip: str
    language: str
    live: str
    live_stopped: str
    as_of: str  # {time}
    happenings: str
    happenings_none: str
    happening_unnamed: str
    feed_active: str  # {serial}
    feed_fine: str
    feed_refused: str
    feed_rolled_back: str
    feed_stale: str
    guide: str
    guide_help: str
    severities: str
    complement: str
    no_guarantee: str
    refusals: str
    refusals_help: str
    refusals_count: Counted
    refused_at: str
    refused_reason: str
    refused_detail: str
    refused_device: str
    no_device: str
    error_title: str
    error_store: str
    error_not_found: str
    error_back: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasonWords:
    """Why traffic passed without inspection: a few words, and what it means for the owner."""

    name: str
    meaning: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerWords:
    """The uninspected ledger on the page of a box."""

    title: str
    lead: str
    none: str
    day: str
    month: str
    nothing: str
    sums: str
    reason: str
    time: str
    seconds: str
    packets: str
    size: str
    sizes: tuple[str, str, str, str]  # {number}: bytes, KB, MB, GB
    link: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SettingsWords:
    """What became of a box's settings; `command` tells the last command, `bypass` has {time}."""

    title: str
    lead: str
    version: str  # {version}
    no_version: str
    reported: str
    none: str
    refused: str
    refused_version: str  # {version}
    command: str
    bypass: str  # {time}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wording:
    """Everything a person reads, in one language.

    `sentences` tell an alert: fields ``{terminal}`` and ``{peer}``; `outcomes` follow them. `system_events` translate
    the beginning of a box's technical text.
    """

    language: str
    functions: Mapping[Function, FunctionWords]
    unknown_function: FunctionWords
    sentences: Mapping[tuple[Function, Direction], str]
    sentence_unknown: str
    outcomes: Mapping[Action, str]
    actions: Mapping[Action, str]
    directions: Mapping[Direction, str]
    severities: Mapping[Severity, FindingWords]
    engine: Mapping[EngineState, str]
    findings: Mapping[Finding, FindingWords]
    feed_problems: Mapping[FeedProblem, str]
    categories: Mapping[str, str]
    refusal_reasons: Mapping[str, str]
    system_events: tuple[tuple[str, str], ...]
    times: TimeWords
    headline: HeadlineWords
    box: BoxWords
    alert: AlertWords
    filter: FilterWords
    other: OtherWords
    ledger: LedgerWords
    uninspected: Mapping[UninspectedReason, ReasonWords]
    settings: SettingsWords
    parts: Mapping[PartName, str]
    part_states: Mapping[PartState, str]
    firmware: FirmwareWords
    liveness: LivenessWords
    supervisor: SupervisorWords
    menu: MenuWords
    explain: ExplainWords
    reports: ReportWords
