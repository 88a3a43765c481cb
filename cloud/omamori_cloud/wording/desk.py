"""Which words the pages about feeds must have: why something is blocked, and reports of false alarms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from omamori_cloud.reports import Progress
from omamori_protocol.feed_book import Kind, Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """A few words, and a sentence that explains them."""

    title: str
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MenuWords:
    """The sections of the page."""

    label: str
    overview: str
    explain: str
    reports: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainWords:
    """The page that says why something is blocked."""

    title: str
    lead: str
    label: str
    placeholder: str
    ask: str
    wrong: str
    about: str  # {serial} {created}
    holds: str  # {entries} {rules}
    no_book: str
    no_book_help: str
    verdicts: Mapping[Verdict, Said]
    kinds: Mapping[Kind, str]
    boxes: str  # {updated} {boxes}
    listed: str
    entry: str
    since: str
    since_serial: str  # {time} {serial}
    function: str
    action: str
    sources: str
    licence: str
    copy: str  # {time}
    origin: str
    left_out: str
    left_out_of: str  # {list}
    because_report: str  # {number}
    because_list: str  # {name}
    keeps: str  # {allowed}
    listed_by: str  # {sources}
    rule: str
    rule_source: str
    technical: str
    about_alert: str
    link: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportWords:
    """Reports of false alarms: the form, the list, the page of one, and the operator's decision."""

    title: str
    lead: str
    form_title: str
    form_lead: str
    note: str
    note_example: str
    name: str
    send: str
    filed: str
    number: str  # {number}
    none: str
    older: str
    newest: str
    back: str
    all: str
    when: str
    what: str
    who: str
    nobody: str
    box: str
    terminal: str
    times: str  # {count}
    alert: str
    show_alert: str
    progress: Mapping[Progress, Said]
    steps: tuple[str, str, str]
    first_serial: str  # {serial}
    updated: str  # {updated} {boxes}
    still: str
    now: str
    operator: str
    decide: str
    decide_again: str
    decision: str
    decided: str  # {time} {by}
    reason: str
    reason_example: str
    leave_out: str
    leave_out_help: str
    accept: str
    refuse: str
    remedy: str
    remedy_lead: str
    remedy_rule: str
    remedy_destination: str
    remedy_terminal: str
    remedy_none: str
    remedy_file: str
    remedy_command: str
    remedy_for: str  # {box}
    expired: str
    too_long: str
    no_reason: str
    full: str
    not_handed_over: str
