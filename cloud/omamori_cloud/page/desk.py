"""The pages about feeds: why something is blocked, reports of false alarms, and the operator's decisions on them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from omamori_cloud.clock import Clock
from omamori_cloud.errors import BookUnavailableError, QueryError, ReportError
from omamori_cloud.facts import EventFacts
from omamori_cloud.feed_shelf import FeedShelf, look_up_standing
from omamori_cloud.reports import (
    MAX_NAME,
    MAX_NOTE,
    Decision,
    NewReport,
    Progress,
    ReportFacts,
    ReportState,
    ask,
    one_line,
)
from omamori_cloud.store.reader import Reader
from omamori_cloud.store.reports import ReportStore
from omamori_cloud.wording import Wording
from omamori_protocol.accepted_reports import MAX_INDICATOR, MAX_NUMBER
from omamori_protocol.feed_book import MAX_QUESTION, Question

from .alert_view import AlertView, view_alert
from .config import PageConfig
from .explain_view import explain_url, view_about, view_explanation
from .forms import FormError, keep_token, read_form, token_of
from .rendering import Renderer, language_links, page
from .report_view import make_remedy, view_report

logger = logging.getLogger(__name__)

PAGE_SIZE = 30
_MAX_ROW = 2**63 - 1


class DeskPages:
    """What people see of feeds, and what they may say about them."""

    def __init__(
        self,
        reader: Reader,
        reports: ReportStore,
        shelf: FeedShelf,
        config: PageConfig,
        clock: Clock,
        renderer: Renderer,
    ) -> None:
        """Take the collaborators."""
        self._reader = reader
        self._reports = reports
        self._shelf = shelf
        self._config = config
        self._clock = clock
        self._renderer = renderer

    def explain(self, request: Request) -> Response:
        """Return the page that says why something is blocked."""
        words, now_ms = self._renderer.words(request), self._clock()
        text = request.query_params.get("q", "")[: MAX_QUESTION + 1].strip()
        alert = self._alert(request.query_params.get("alert", ""))
        about, trouble, answer, question = "", "", None, None
        try:
            about = view_about(self._shelf.facts(), now_ms, words)
        except BookUnavailableError as err:
            trouble = str(err)
        if text:
            try:
                question = ask(text)
            except QueryError:
                question = None
        if question is not None and not trouble:
            found = self._shelf.find(question)
            if found is not None:
                answer = view_explanation(found, self._reader.boxes(), now_ms=now_ms, words=words)
        token = token_of(request)
        body = self._renderer.render(
            "explain.html",
            words,
            section="explain",
            question=text,
            is_wrong=bool(text) and question is None,
            indicator="" if question is None else question.indicator,
            about=about,
            trouble=trouble,
            answer=answer,
            alert=self._view_alert(alert, words, now_ms),
            token=token,
            limits={"note": MAX_NOTE, "name": MAX_NAME, "question": MAX_QUESTION},
            languages=language_links(explain_url(text, None if alert is None else alert.id) if text else "/explain"),
        )
        return keep_token(page(request, body), token)

    def reports(self, request: Request) -> Response:
        """Return the list of reports."""
        words, now_ms = self._renderer.words(request), self._clock()
        state = _state(request.query_params.get("state", ""))
        before = _number(request.query_params.get("before", ""))
        found = self._reports.reports(state, before=before, limit=PAGE_SIZE + 1)
        shown, more = found[:PAGE_SIZE], len(found) > PAGE_SIZE
        boxes = self._reader.boxes() if shown else ()
        views = [self._view(report, boxes, words, now_ms) for report in shown]
        counts = self._reports.counts()
        names = {
            ReportState.OPEN: words.reports.progress[Progress.OPEN].title,
            ReportState.ACCEPTED: words.reports.steps[0],
            ReportState.REFUSED: words.reports.progress[Progress.REFUSED].title,
        }
        tabs = [("", words.reports.all, sum(counts.values()))]
        tabs += [(item.word, names[item], count) for item, count in counts.items()]
        body = self._renderer.render(
            "reports.html",
            words,
            section="reports",
            reports=views,
            tabs=tabs,
            state="" if state is None else state.word,
            next=_list_url(state, shown[-1].number) if more else "",
            newest=_list_url(state) if before is not None else "",
            languages=language_links(_list_url(state, before)),
        )
        return page(request, body)

    def report(self, request: Request) -> Response:
        """Return the page of one report."""
        return self._report_page(request, _path_number(request))

    def _report_page(self, request: Request, number: int, *, trouble: str = "", status: int = 200) -> Response:
        words, now_ms = self._renderer.words(request), self._clock()
        report = self._reports.report(number)
        if report is None:
            raise HTTPException(404)
        boxes = self._reader.boxes()
        alert = None if report.alert_id is None else self._reader.alert(report.alert_id)
        if alert is not None and alert.device != report.device:
            alert = None
        found = self._shelf.find(ask(report.accepted_indicator or report.indicator))
        token = token_of(request)
        body = self._renderer.render(
            "report.html",
            words,
            section="reports",
            view=self._view(report, boxes, words, now_ms),
            is_open=report.state is ReportState.OPEN,
            answer=None if found is None else view_explanation(found, boxes, now_ms=now_ms, words=words),
            alert=self._view_alert(alert, words, now_ms),
            why_url=explain_url(report.accepted_indicator or report.indicator),
            remedy=make_remedy(report, alert, now_ms=now_ms, words=words),
            filed="filed" in request.query_params,
            trouble=trouble,
            token=token,
            limits={"note": MAX_NOTE, "name": MAX_NAME, "question": MAX_INDICATOR},
            languages=language_links(f"/reports/{report.number}"),
        )
        return keep_token(page(request, body, status), token)

    async def file(self, request: Request) -> Response:
        """Take a report."""
        return await self._answer(request, self._file)

    async def decide(self, request: Request) -> Response:
        """Take a decision on a report."""
        return await self._answer(request, self._decide)

    async def _answer(self, request: Request, act: Callable[[Request, dict[str, str]], Response]) -> Response:
        try:
            fields = await read_form(request)
        except FormError as err:
            text = self._renderer.words(request).reports
            return self._refuse(request, text.too_long if err.status == 413 else text.expired, err.status)
        return await run_in_threadpool(act, request, fields)

    def _file(self, request: Request, fields: dict[str, str]) -> Response:
        words = self._renderer.words(request)
        try:
            question = _question(fields, words)
            note, reporter = _text(fields, "note", MAX_NOTE, words), _text(fields, "reporter", MAX_NAME, words)
        except _FieldError as err:
            return self._refuse(request, err.message, err.status)
        alert = self._alert(fields.get("alert", ""))
        report = NewReport(
            kind=question.kind,
            indicator=question.indicator,
            note=note,
            reporter=reporter,
            device="" if alert is None else alert.device,
            alert_id=None if alert is None else alert.id,
            terminal_ip=None if alert is None else alert.terminal_ip,
            terminal_mac=None if alert is None else alert.terminal_mac,
        )
        try:
            number = self._reports.file(report, self._clock())
        except ReportError:
            return self._refuse(request, words.reports.full, 503)
        return RedirectResponse(f"/reports/{number}?filed=1", 303)

    def _decide(self, request: Request, fields: dict[str, str]) -> Response:
        number, words = _path_number(request), self._renderer.words(request)
        if self._reports.report(number) is None:
            raise HTTPException(404)
        try:
            self._reports.decide(number, _decision(fields, words), self._clock())
        except _FieldError as err:
            message, status = err.message, err.status
        except ReportError:
            message, status = words.reports.full, 503
        except OSError:
            logger.exception("cannot write the accepted reports for the feed compiler")
            message, status = words.reports.not_handed_over, 503
        else:
            return RedirectResponse(f"/reports/{number}", 303)
        return self._report_page(request, number, trouble=message, status=status)

    def _refuse(self, request: Request, message: str, status: int) -> Response:
        words = self._renderer.words(request)
        return page(request, self._renderer.render("error.html", words, section="reports", message=message), status)

    def _view(self, report: ReportFacts, boxes: Any, words: Wording, now_ms: int) -> Any:
        where = look_up_standing(report, self._shelf, boxes)
        return view_report(report, where, names=self._config.names, now_ms=now_ms, words=words)

    def _alert(self, text: str) -> EventFacts | None:
        number = _number(text, _MAX_ROW)
        return None if number is None else self._reader.alert(number)

    def _view_alert(self, alert: EventFacts | None, words: Wording, now_ms: int) -> AlertView | None:
        return None if alert is None else view_alert(alert, names=self._config.names, now_ms=now_ms, words=words)


class _FieldError(Exception):
    """A field of a form cannot be used; `message` is for the person, `status` as in HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.status = message, status


def _text(fields: dict[str, str], name: str, maximum: int, words: Wording) -> str:
    text = fields.get(name, "")
    # A browser counts a line end as one character and sends two.
    if len(text) - text.count("\r\n") > maximum:
        raise _FieldError(words.reports.too_long, 413)
    return one_line(text, maximum)


def _question(fields: dict[str, str], words: Wording) -> Question:
    try:
        question = ask(fields.get("indicator", ""))
    except QueryError as err:
        raise _FieldError(words.explain.wrong) from err
    if len(question.indicator) > MAX_INDICATOR:
        raise _FieldError(words.reports.too_long, 413)
    return question


def _decision(fields: dict[str, str], words: Wording) -> Decision:
    state = _state(fields.get("decision", ""))
    by, reason = _text(fields, "by", MAX_NAME, words), _text(fields, "reason", MAX_NOTE, words)
    if state is ReportState.ACCEPTED:
        question = _question(fields, words)
        return Decision(state=state, by=by, reason=reason, kind=question.kind, indicator=question.indicator)
    if state is not ReportState.REFUSED:
        raise _FieldError(words.reports.expired)
    if not reason:
        raise _FieldError(words.reports.no_reason)
    return Decision(state=state, by=by, reason=reason)


def _number(text: str, maximum: int = MAX_NUMBER) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= 19
    return int(text) if is_number and 1 <= int(text) <= maximum else None


def _path_number(request: Request) -> int:
    number = request.path_params["number"]
    if not 1 <= number <= MAX_NUMBER:
        raise HTTPException(404)
    return int(number)


def _state(word: str) -> ReportState | None:
    return {state.word: state for state in ReportState}.get(word)


def _list_url(state: ReportState | None, before: int | None = None) -> str:
    values = ({} if state is None else {"state": state.word}) | ({} if before is None else {"before": str(before)})
    return f"/reports?{urlencode(values)}" if values else "/reports"
