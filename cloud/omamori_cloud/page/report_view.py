"""Makes reports of false alarms ready to be read, and says how an operator helps at once."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from datetime import timedelta

from omamori_cloud.clock import to_datetime
from omamori_cloud.facts import EventFacts
from omamori_cloud.harmless import harmless
from omamori_cloud.reports import Progress, ReportFacts, Standing
from omamori_cloud.wording import Wording
from omamori_protocol.device import format_mac
from omamori_protocol.feed_book import Kind

from .alert_view import TimeView, view_time

_TONES = {
    Progress.OPEN: "notice",
    Progress.REFUSED: "plain",
    Progress.NEXT_FEED: "notice",
    Progress.BOXES: "notice",
    Progress.DONE: "ok",
}
_STEPS_DONE = {Progress.NEXT_FEED: 1, Progress.BOXES: 2, Progress.DONE: 3}
_REMEDY = timedelta(hours=24)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepView:
    """A step on the way of an accepted report."""

    name: str
    done: bool
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportView:
    """A report; texts are empty where there is nothing to say."""

    number: int
    label: str
    url: str
    time: TimeView
    kind: str
    indicator: str
    note: str
    reporter: str
    times: str
    box: str
    terminal: str
    tone: str
    title: str
    text: str
    steps: tuple[StepView, ...]
    still: str
    decided: str
    reason: str
    leave_out: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remedy:
    """How the operator helps at once; `exemption` and `command` are empty if there is no way."""

    lead: str
    exemption: str = ""
    command: str = ""


def view_report(
    report: ReportFacts, standing: Standing, *, names: Mapping[str, str], now_ms: int, words: Wording
) -> ReportView:
    """Return a report in `words`; `names` are what owners call their boxes."""
    text = words.reports
    said = text.progress[standing.progress]
    decided = ""
    if report.decided_ms is not None:
        when = view_time(report.decided_ms, now_ms, words).words
        by = harmless(report.decided_by, limit=60)
        decided = text.decided.format(time=when, by=by) if by else when
    return ReportView(
        number=report.number,
        label=text.number.format(number=report.number),
        url=f"/reports/{report.number}",
        time=view_time(report.created_ms, now_ms, words),
        kind=words.explain.kinds[report.kind],
        indicator=harmless(report.indicator, limit=400),
        note=harmless(report.note, limit=500),
        reporter=harmless(report.reporter, limit=60) or text.nobody,
        times=text.times.format(count=report.times) if report.times > 1 else "",
        box=harmless(names.get(report.device, report.device), limit=60),
        terminal=_terminal(report),
        tone=_TONES[standing.progress],
        title=said.title,
        text=said.text,
        steps=_steps(standing, words),
        still=text.still if standing.still else "",
        decided=decided,
        reason=harmless(report.reason, limit=500),
        leave_out=harmless(report.accepted_indicator or report.indicator, limit=1400),
    )


def _terminal(report: ReportFacts) -> str:
    found = [harmless(report.terminal_ip, limit=45)] if report.terminal_ip else []
    if report.terminal_mac is not None:
        found.append(format_mac(report.terminal_mac))
    return " ".join(found)


def _steps(standing: Standing, words: Wording) -> tuple[StepView, ...]:
    done = _STEPS_DONE.get(standing.progress, 0)
    if not done:
        return ()
    text = words.reports
    serial = text.first_serial.format(serial=standing.serial) if standing.serial else ""
    boxes = text.updated.format(updated=standing.updated, boxes=standing.boxes) if standing.serial else ""
    notes = ("", serial, boxes)
    return tuple(
        StepView(name=name, done=place < done, note=note)
        for place, (name, note) in enumerate(zip(text.steps, notes, strict=True))
    )


def make_remedy(report: ReportFacts, alert: EventFacts | None, *, now_ms: int, words: Wording) -> Remedy:
    """Return how the operator helps at once: an exemption in the desired state of the report's box.

    Args:
        report: The report.
        alert: What it is about, if that is still there.
        now_ms: The present.
        words: The language.
    """
    text = words.reports
    if not report.device:
        return Remedy(lead=text.remedy_none)
    found = _exemption(report, alert)
    if found is None:
        return Remedy(lead=text.remedy_none)
    kind, value = found
    leads = {"rule": text.remedy_rule, "destination": text.remedy_destination}
    until = to_datetime(now_ms) + _REMEDY
    exemption = {"id": report.number, "kind": kind, "value": value, "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
    words_of_command = ["omamori-ota", "desired", "publish", "KEYS", "--device", report.device]
    words_of_command += ["--file", f"{report.device}.json", "--broker", "mqtts://BROKER:8883", "--tls-dir", "TLS"]
    return Remedy(
        lead=leads.get(kind, text.remedy_terminal),
        exemption=json.dumps(exemption),
        command=shlex.join(words_of_command),
    )


def _exemption(report: ReportFacts, alert: EventFacts | None) -> tuple[str, str] | None:
    """Return kind and value of the narrowest exemption that lets the reported thing pass."""
    if report.kind is Kind.RULE:
        return "rule", report.indicator
    if report.kind is Kind.IP and "/" not in report.indicator:
        return "destination", report.indicator
    if report.terminal_mac is not None:
        return "terminal-mac", format_mac(report.terminal_mac)
    if report.terminal_ip:
        return "terminal-ip", report.terminal_ip
    if alert is not None and alert.remote_ip:
        return "destination", alert.remote_ip
    return None
