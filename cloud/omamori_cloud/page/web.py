"""The routes, and the pages about boxes and alerts. Holds no rule of its own; scripts are served by `api`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from omamori_cloud.clock import Clock
from omamori_cloud.errors import BookUnavailableError, QueryError, StoreUnavailableError
from omamori_cloud.feed_shelf import FeedShelf
from omamori_cloud.ingest import IngestStatus
from omamori_cloud.store.queries import Cursor, is_device_id
from omamori_cloud.store.reader import Reader
from omamori_cloud.store.reports import ReportStore
from omamori_protocol.vocabulary import Function, Severity

from .api import API
from .config import PageConfig
from .desk import DeskPages
from .filters import parse_filters
from .ledger_view import box_url, make_box_page
from .overview import make_overview
from .rendering import Renderer, changing, language_links, page
from .security import Guard

logger = logging.getLogger(__name__)

REFRESH_S = 3

_HERE = Path(__file__).parent
_METHODS = ["GET", "HEAD"]


def make_app(
    reader: Reader,
    config: PageConfig,
    *,
    clock: Clock,
    status: IngestStatus,
    reports: ReportStore,
    shelf: FeedShelf | None = None,
) -> FastAPI:
    """Return the web application.

    Args:
        reader: The store.
        config: See `PageConfig`.
        clock: The present.
        status: Whether messages come in.
        reports: Customers' reports of false alarms.
        shelf: Where the feed book stands.
    """
    shelf = shelf or FeedShelf(None)
    renderer = Renderer(config)
    app = FastAPI(title="Omamori", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    pages = _Pages(reader, config, clock, status, renderer)
    desk = DeskPages(reader, reports, shelf, config, clock, renderer)
    api = API(reader, config, clock, status, reports, shelf)
    routes: tuple[tuple[str, Callable[[Request], Response]], ...] = (
        ("/", pages.overview),
        ("/live", pages.live),
        ("/box/{device}", pages.box),
        ("/box/{device}/live", pages.box_live),
        ("/explain", desk.explain),
        ("/reports", desk.reports),
        ("/reports/{number:int}", desk.report),
        ("/api/v1/boxes", api.boxes),
        ("/api/v1/alerts", api.alerts),
        ("/api/v1/events", api.events),
        ("/api/v1/ledger", api.ledger),
        ("/api/v1/diagnostics", api.diagnostics),
        ("/api/v1/outages", api.outages),
        ("/api/v1/feeds", api.feeds),
        ("/api/v1/explain", api.explain),
        ("/api/v1/reports", api.reports),
        ("/healthz", api.health),
    )
    for path, endpoint in routes:
        app.add_route(path, endpoint, methods=_METHODS)
    app.add_route("/reports", desk.file, methods=["POST"])
    app.add_route("/reports/{number:int}", desk.decide, methods=["POST"])
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    app.add_exception_handler(QueryError, api.on_query_error)
    app.add_exception_handler(BookUnavailableError, api.on_book_error)
    app.add_exception_handler(StoreUnavailableError, pages.on_store_error)
    app.add_exception_handler(HTTPException, pages.on_http_error)
    app.add_middleware(Guard, hosts=config.hosts)
    return app


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/healthz"))


class _Pages:
    """What people see."""

    def __init__(
        self, reader: Reader, config: PageConfig, clock: Clock, status: IngestStatus, renderer: Renderer
    ) -> None:
        self._reader = reader
        self._config = config
        self._clock = clock
        self._status = status
        self._renderer = renderer

    def _overview(self, request: Request, template: str) -> str:
        filters = parse_filters(request.query_params)
        words = self._renderer.words(request)
        view = make_overview(
            self._reader,
            filters,
            names=self._config.names,
            now_ms=self._clock(),
            offline_after_s=self._config.offline_after_s,
            ingest_trouble=bool(self._status.trouble),
            words=words,
        )
        return self._renderer.render(
            template,
            words,
            section="overview",
            view=view,
            filters=filters,
            languages=language_links(filters.url("/")),
            live_url=filters.url("/live"),
            newest_url=filters.url("/", before=""),
            refresh_s=REFRESH_S,
            functions=tuple(Function),
            severities=tuple(reversed(Severity)),
        )

    def overview(self, request: Request) -> Response:
        """Return the whole page."""
        return page(request, self._overview(request, "overview.html"))

    def live(self, request: Request) -> Response:
        """Return the part of the page that changes; 304 when it has not."""
        return changing(request, self._overview(request, "_live.html"))

    def _box(self, request: Request, template: str) -> str:
        device = str(request.path_params["device"])
        facts = self._reader.box(device) if is_device_id(device) else None
        if facts is None:
            raise HTTPException(404)
        try:
            before = Cursor.parse(request.query_params["before"]) if "before" in request.query_params else None
        except QueryError:
            before = None
        words = self._renderer.words(request)
        view = make_box_page(
            self._reader,
            facts,
            before,
            name=self._config.names.get(device),
            now_ms=self._clock(),
            offline_after_s=self._config.offline_after_s,
            words=words,
        )
        place = "" if before is None else str(before)
        return self._renderer.render(
            template,
            words,
            section="overview",
            view=view,
            languages=language_links(box_url(device, before=place)),
            live_url=box_url(device, before=place, live=True),
            refresh_s=REFRESH_S,
        )

    def box(self, request: Request) -> Response:
        """Return the page of one box."""
        return page(request, self._box(request, "box.html"))

    def box_live(self, request: Request) -> Response:
        """Return the part of a box's page that changes; 304 when it has not."""
        return changing(request, self._box(request, "_box_live.html"))

    def on_store_error(self, request: Request, error: Exception) -> Response:
        """Say that the store does not answer."""
        logger.error("cannot answer %s: %s", request.url.path, error)
        if _wants_json(request):
            return JSONResponse({"error": "the database does not answer", "hint": "try again later"}, 503)
        words = self._renderer.words(request)
        return HTMLResponse(self._renderer.render("error.html", words, message=words.other.error_store), 503)

    def on_http_error(self, request: Request, error: Exception) -> Response:
        """Say that there is no such page."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        if _wants_json(request):
            return JSONResponse({"error": f"HTTP {status}", "hint": ""}, status)
        words = self._renderer.words(request)
        return HTMLResponse(self._renderer.render("error.html", words, message=words.other.error_not_found), status)
