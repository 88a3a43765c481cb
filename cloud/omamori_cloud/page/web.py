"""The routes, and the pages for people. Holds no rule of its own; scripts are served by `api`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from omamori_cloud.clock import Clock
from omamori_cloud.config import LANGUAGES
from omamori_cloud.errors import QueryError, StoreUnavailableError
from omamori_cloud.ingest import IngestStatus
from omamori_cloud.store.queries import Cursor, is_device_id
from omamori_cloud.store.reader import Reader
from omamori_cloud.wording import Wording, wording_for
from omamori_protocol.vocabulary import Function, Severity

from .api import API
from .config import PageConfig
from .filters import parse_filters
from .ledger_view import box_url, make_box_page
from .overview import make_overview
from .security import Guard

logger = logging.getLogger(__name__)

REFRESH_S = 3
LANGUAGE_COOKIE = "omamori_language"

_HERE = Path(__file__).parent
_LANGUAGE_COOKIE_S = 365 * 86400
_METHODS = ["GET", "HEAD"]


def make_app(reader: Reader, config: PageConfig, *, clock: Clock, status: IngestStatus) -> FastAPI:
    """Return the web application.

    Args:
        reader: The store.
        config: See `PageConfig`.
        clock: The present.
        status: Whether messages come in.
    """
    app = FastAPI(title="Omamori", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    pages = _Pages(reader, config, clock, status)
    api = API(reader, config, clock, status)
    routes: tuple[tuple[str, Callable[[Request], Response]], ...] = (
        ("/", pages.overview),
        ("/live", pages.live),
        ("/box/{device}", pages.box),
        ("/box/{device}/live", pages.box_live),
        ("/api/v1/boxes", api.boxes),
        ("/api/v1/alerts", api.alerts),
        ("/api/v1/events", api.events),
        ("/api/v1/ledger", api.ledger),
        ("/api/v1/feeds", api.feeds),
        ("/healthz", api.health),
    )
    for path, endpoint in routes:
        app.add_route(path, endpoint, methods=_METHODS)
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    app.add_exception_handler(QueryError, api.on_query_error)
    app.add_exception_handler(StoreUnavailableError, pages.on_store_error)
    app.add_exception_handler(HTTPException, pages.on_http_error)
    app.add_middleware(Guard, hosts=config.hosts)
    return app


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/healthz"))


def _language_links(here: str) -> list[tuple[str, str]]:
    return [(code, f"{here}{'&' if '?' in here else '?'}lang={code}") for code in LANGUAGES]


def _page(request: Request, body: str) -> Response:
    response = HTMLResponse(body)
    language = request.query_params.get("lang")
    if language in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, language, max_age=_LANGUAGE_COOKIE_S, httponly=True, samesite="lax")
    return response


def _changing(request: Request, body: str) -> Response:
    data = body.encode()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Cookie"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(data, headers=headers)


class _Pages:
    """What people see."""

    def __init__(self, reader: Reader, config: PageConfig, clock: Clock, status: IngestStatus) -> None:
        self._reader = reader
        self._config = config
        self._clock = clock
        self._status = status
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        # A changed file gets a changed address, so that no browser mixes an old one with a new page.
        self._static = {
            path.name: f"/static/{path.name}?v={hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
            for path in (_HERE / "static").iterdir()
        }

    def _language(self, request: Request) -> str:
        for candidate in (request.query_params.get("lang"), request.cookies.get(LANGUAGE_COOKIE)):
            if candidate in LANGUAGES:
                return candidate
        return self._config.default_language

    def _render(self, template: str, words: Wording, **values: Any) -> str:
        return self._templates.get_template(template).render(w=words, static=self._static, **values)

    def _overview(self, request: Request, template: str) -> str:
        filters = parse_filters(request.query_params)
        words = wording_for(self._language(request))
        view = make_overview(
            self._reader,
            filters,
            names=self._config.names,
            now_ms=self._clock(),
            offline_after_s=self._config.offline_after_s,
            ingest_trouble=bool(self._status.trouble),
            words=words,
        )
        return self._render(
            template,
            words,
            view=view,
            filters=filters,
            languages=_language_links(filters.url("/")),
            live_url=filters.url("/live"),
            newest_url=filters.url("/", before=""),
            refresh_s=REFRESH_S,
            functions=tuple(Function),
            severities=tuple(reversed(Severity)),
        )

    def overview(self, request: Request) -> Response:
        """Return the whole page."""
        return _page(request, self._overview(request, "overview.html"))

    def live(self, request: Request) -> Response:
        """Return the part of the page that changes; 304 when it has not."""
        return _changing(request, self._overview(request, "_live.html"))

    def _box(self, request: Request, template: str) -> str:
        device = str(request.path_params["device"])
        facts = self._reader.box(device) if is_device_id(device) else None
        if facts is None:
            raise HTTPException(404)
        try:
            before = Cursor.parse(request.query_params["before"]) if "before" in request.query_params else None
        except QueryError:
            before = None
        words = wording_for(self._language(request))
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
        return self._render(
            template,
            words,
            view=view,
            languages=_language_links(box_url(device, before=place)),
            live_url=box_url(device, before=place, live=True),
            refresh_s=REFRESH_S,
        )

    def box(self, request: Request) -> Response:
        """Return the page of one box."""
        return _page(request, self._box(request, "box.html"))

    def box_live(self, request: Request) -> Response:
        """Return the part of a box's page that changes; 304 when it has not."""
        return _changing(request, self._box(request, "_box_live.html"))

    def on_store_error(self, request: Request, error: Exception) -> Response:
        """Say that the store does not answer."""
        logger.error("cannot answer %s: %s", request.url.path, error)
        if _wants_json(request):
            return JSONResponse({"error": "the database does not answer", "hint": "try again later"}, 503)
        words = wording_for(self._language(request))
        return HTMLResponse(self._render("error.html", words, message=words.other.error_store), 503)

    def on_http_error(self, request: Request, error: Exception) -> Response:
        """Say that there is no such page."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        if _wants_json(request):
            return JSONResponse({"error": f"HTTP {status}", "hint": ""}, status)
        words = wording_for(self._language(request))
        return HTMLResponse(self._render("error.html", words, message=words.other.error_not_found), status)
