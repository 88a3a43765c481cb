"""What scripts see over HTTP. Strict where the page is forgiving: an unknown or senseless parameter is an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from omamori_cloud.as_json import (
    alert_object,
    box_object,
    diagnostics_object,
    event_object,
    explanation_object,
    ledger_object,
    outage_object,
    report_object,
    service_outage_object,
    sums_object,
    worker_object,
)
from omamori_cloud.clock import Clock, parse_moment, to_rfc3339
from omamori_cloud.errors import QueryError
from omamori_cloud.feed_shelf import FeedShelf, look_up_standing
from omamori_cloud.feed_trial import judge
from omamori_cloud.health import assess
from omamori_cloud.ingest import IngestStatus
from omamori_cloud.reports import ReportState, ask
from omamori_cloud.store.absence_reader import MAX_OUTAGES
from omamori_cloud.store.database import newest_revision
from omamori_cloud.store.queries import MAX_ALERTS, MAX_LEDGER, AlertQuery, Cursor, LedgerQuery, is_device_id
from omamori_cloud.store.reader import Reader
from omamori_cloud.store.reports import MAX_PAGE, ReportStore
from omamori_ota.rollout import PERMILLE, Outcome
from omamori_protocol.accepted_reports import MAX_NUMBER
from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_offer import MAX_SERIAL
from omamori_protocol.topics import check_channel
from omamori_protocol.vocabulary import Function, Severity

from .config import PageConfig

_WEEK_MS = 7 * 86_400_000
_SILENCE_S = 900  # of a box that took a feed: fifteen heartbeats


class API:
    """The endpoints."""

    def __init__(
        self,
        reader: Reader,
        config: PageConfig,
        clock: Clock,
        status: IngestStatus,
        reports: ReportStore,
        shelf: FeedShelf,
    ) -> None:
        """Take the collaborators."""
        self._reports = reports
        self._shelf = shelf
        self._reader = reader
        self._config = config
        self._clock = clock
        self._status = status

    def boxes(self, request: Request) -> Response:
        """Return every box."""
        _parameters(request, set())
        now_ms = self._clock()
        boxes = [
            box_object(
                box,
                assess(box, now_ms=now_ms, offline_after_s=self._config.offline_after_s),
                self._config.names.get(box.device),
            )
            for box in self._reader.boxes()
        ]
        return JSONResponse({"as_of": to_rfc3339(now_ms), "boxes": boxes})

    def alerts(self, request: Request) -> Response:
        """Return one page of alerts."""
        now_ms = self._clock()
        names = {"device", "severity", "function", "terminal", "since", "before", "limit"}
        page = self._reader.alerts(alert_query(_parameters(request, names), now_ms))
        return JSONResponse(
            {
                "as_of": to_rfc3339(now_ms),
                "alerts": [alert_object(alert) for alert in page.alerts],
                "next": None if page.next is None else str(page.next),
            }
        )

    def events(self, request: Request) -> Response:
        """Return the newest events that are not alerts."""
        limit = _number(_parameters(request, {"limit"}), "limit", 100, MAX_ALERTS)
        events = [event_object(event) for event in self._reader.happenings(limit)]
        return JSONResponse({"as_of": to_rfc3339(self._clock()), "events": events})

    def ledger(self, request: Request) -> Response:
        """Return one page of a box's uninspected ledger, and its sums since the same moment."""
        now_ms = self._clock()
        query = ledger_query(_parameters(request, {"device", "since", "before", "limit"}), now_ms)
        page = self._reader.ledger(query)
        return JSONResponse(
            {
                "as_of": to_rfc3339(now_ms),
                "device": query.device,
                "sums": sums_object(self._reader.ledger_sums(query.device, query.since_ms)),
                "entries": [ledger_object(entry) for entry in page.entries],
                "next": None if page.next is None else str(page.next),
            }
        )

    def diagnostics(self, request: Request) -> Response:
        """Return what a box last told about itself when it was asked, or null."""
        device = _parameters(request, {"device"}).get("device", "")
        if not is_device_id(device):
            raise QueryError("device", f"{device[:40]!r} is not a box's name")
        found = self._reader.diagnostics(device)
        return JSONResponse(
            {
                "as_of": to_rfc3339(self._clock()),
                "diagnostics": None if found is None else diagnostics_object(found),
            }
        )

    def outages(self, request: Request) -> Response:
        """Return absences of boxes, the newest first, and the times of the last week in which nothing came in."""
        parameters = _parameters(request, {"device", "before", "limit"})
        device = parameters.get("device")
        if device is not None and not is_device_id(device):
            raise QueryError("device", f"{device[:40]!r} is not a box's name")
        before = _number(parameters, "before", 1, MAX_NUMBER) if "before" in parameters else None
        limit = _number(parameters, "limit", 50, MAX_OUTAGES)
        now_ms = self._clock()
        found = self._reader.outages(device, before=before, limit=limit)
        service = self._reader.service_outages(now_ms - _WEEK_MS)
        return JSONResponse(
            {
                "as_of": to_rfc3339(now_ms),
                "outages": [outage_object(item) for item in found],
                "next": found[-1].id if len(found) == limit else None,
                "service": [service_outage_object(item) for item in service],
                "workers": [worker_object(item) for item in self._reader.workers()],
            }
        )

    def feeds(self, request: Request) -> Response:
        """Return how a feed does on the boxes it has reached."""
        now_ms = self._clock()
        parameters = _parameters(request, {"channel", "serial", "permille", "silence"})
        channel = _channel(parameters)
        if "serial" not in parameters:
            raise QueryError("serial", "which feed?", hint="/api/v1/feeds?channel=stable&serial=12")
        serial = _number(parameters, "serial", 0, MAX_SERIAL)
        permille = _number(parameters, "permille", PERMILLE, PERMILLE)
        silence_s = _number(parameters, "silence", _SILENCE_S, 86400)
        facts = self._reader.trial(serial, now_ms)
        trial = judge(facts, channel=channel, permille=permille, now_ms=now_ms, silence_s=silence_s)
        return JSONResponse(
            {
                "as_of": to_rfc3339(now_ms),
                "channel": channel,
                "serial": serial,
                "permille": permille,
                "boxes": trial.tally.boxes,
                "outcomes": {outcome.name.lower(): trial.tally.counts[outcome] for outcome in Outcome},
                "bad": [
                    {"device": item.device, "outcome": item.outcome.name.lower(), "reason": item.reason}
                    for item in trial.bad
                ],
            }
        )

    def explain(self, request: Request) -> Response:
        """Return why something is blocked, since when and from which sources."""
        parameters = _parameters(request, {"indicator"})
        if "indicator" not in parameters:
            raise QueryError("indicator", "is missing", hint="/api/v1/explain?indicator=www.example.com")
        question = ask(parameters["indicator"])
        body = {"as_of": to_rfc3339(self._clock()), "feed": dataclasses.asdict(self._shelf.facts())}
        return JSONResponse({**body, **explanation_object(self._shelf.explain(question))})

    def reports(self, request: Request) -> Response:
        """Return reports of false alarms, the newest first."""
        found = report_query(_parameters(request, {"state", "before", "limit"}))
        boxes = self._reader.boxes()
        reports = self._reports.reports(found.state, before=found.before, limit=found.limit)
        return JSONResponse(
            {
                "as_of": to_rfc3339(self._clock()),
                "reports": [report_object(item, look_up_standing(item, self._shelf, boxes)) for item in reports],
                "next": reports[-1].number if len(reports) == found.limit else None,
            }
        )

    def on_book_error(self, _request: Request, error: Exception) -> Response:
        """Say that what the feed holds is not known."""
        return JSONResponse({"error": str(error), "hint": getattr(error, "hint", "")}, 503)

    def health(self, _request: Request) -> Response:
        """Say whether the page and the store work, and whether messages come in."""
        self._reader.refusals(1)
        trouble = self._status.trouble
        return JSONResponse(
            {
                "status": "ok",
                "ingest": "disconnected" if trouble else "connected",
                "trouble": trouble or None,
                "schema": newest_revision(),
            }
        )

    def on_query_error(self, _request: Request, error: Exception) -> Response:
        """Say what is wrong with a question."""
        return JSONResponse({"error": str(error), "hint": getattr(error, "hint", "")}, 400)


def _parameters(request: Request, known: set[str]) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise QueryError(name[:40], "unknown parameter", hint=f"known: {', '.join(sorted(known)) or 'none'}")
        if name in parameters:
            raise QueryError(name, "given twice")
        parameters[name] = value
    return parameters


def _number(parameters: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= maximum):
        raise QueryError(name, f"{text[:40]!r} is outside 1..{maximum}")
    return int(text)


def _channel(parameters: Mapping[str, str]) -> str:
    try:
        return check_channel(parameters.get("channel", ""))
    except ProtocolError as err:
        raise QueryError("channel", str(err)[:200]) from err


def alert_query(parameters: Mapping[str, str], now_ms: int) -> AlertQuery:
    """Return the question that a script's parameters put; strict, unlike a person's form.

    Raises:
        QueryError: A value makes no sense.
    """
    function = severity = None
    if "function" in parameters:
        try:
            function = Function(Function.from_word(parameters["function"]))
        except ValueError as err:
            raise QueryError("function", str(err)[:200]) from err
    if "severity" in parameters:
        severity = Severity(_number(parameters, "severity", 1, 3))
    return AlertQuery(
        device=parameters.get("device"),
        severity=severity,
        function=function,
        terminal=parameters.get("terminal"),
        since_ms=_since(parameters, now_ms),
        before=_place(parameters),
        limit=_number(parameters, "limit", 100, MAX_ALERTS),
    )


def ledger_query(parameters: Mapping[str, str], now_ms: int) -> LedgerQuery:
    """Return the question about a ledger that a script's parameters put; `device` must be among them.

    Raises:
        QueryError: A value makes no sense, or no box is named.
    """
    if "device" not in parameters:
        raise QueryError("device", "is missing", hint="a ledger is asked for by box: ?device=…")
    return LedgerQuery(
        device=parameters["device"],
        since_ms=_since(parameters, now_ms),
        before=_place(parameters),
        limit=_number(parameters, "limit", 100, MAX_LEDGER),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportQuery:
    """Which reports; None means any, and from the newest on."""

    state: ReportState | None
    before: int | None
    limit: int


def report_query(parameters: Mapping[str, str]) -> ReportQuery:
    """Return the question about reports that a script's parameters put.

    Raises:
        QueryError: A value makes no sense.
    """
    state = None
    if "state" in parameters:
        try:
            state = ReportState(ReportState.from_word(parameters["state"]))
        except ValueError as err:
            raise QueryError("state", str(err)[:200]) from err
    before = _number(parameters, "before", 1, MAX_NUMBER) if "before" in parameters else None
    return ReportQuery(state=state, before=before, limit=_number(parameters, "limit", 50, MAX_PAGE))


def _since(parameters: Mapping[str, str], now_ms: int) -> int | None:
    if "since" not in parameters:
        return None
    text = parameters["since"]
    try:
        return parse_moment(text, now_ms)
    except (ValueError, OverflowError) as err:
        raise QueryError("since", f"{text[:40]!r} is not a time", hint="2026-01-31T09:00:00Z, or 10m, 2h, 3d") from err


def _place(parameters: Mapping[str, str]) -> Cursor | None:
    return Cursor.parse(parameters["before"]) if "before" in parameters else None
