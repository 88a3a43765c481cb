"""Turns templates into answers: the language of a person, the addresses of our files, the tags of what changes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from omamori_cloud.config import LANGUAGES
from omamori_cloud.wording import Wording, wording_for

from .config import PageConfig

LANGUAGE_COOKIE = "omamori_language"

_HERE = Path(__file__).parent
_LANGUAGE_COOKIE_S = 365 * 86400


class Renderer:
    """The templates, in the language that a request asks for."""

    def __init__(self, config: PageConfig) -> None:
        """Read the templates and name the files beside them."""
        self._config = config
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

    def words(self, request: Request) -> Wording:
        """Return the words of the language that a person has chosen, now or before."""
        for candidate in (request.query_params.get("lang"), request.cookies.get(LANGUAGE_COOKIE)):
            if candidate in LANGUAGES:
                return wording_for(candidate)
        return wording_for(self._config.default_language)

    def render(self, template: str, words: Wording, *, section: str = "", **values: Any) -> str:
        """Return a page; `section` is the one of the menu that it belongs to."""
        return self._templates.get_template(template).render(w=words, static=self._static, section=section, **values)


def language_links(here: str) -> list[tuple[str, str]]:
    """Return the languages, each with the address of this page in it."""
    return [(code, f"{here}{'&' if '?' in here else '?'}lang={code}") for code in LANGUAGES]


def page(request: Request, body: str, status: int = 200) -> Response:
    """Return a whole page, and remember the language that was chosen with it."""
    response = HTMLResponse(body, status)
    language = request.query_params.get("lang")
    if language in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, language, max_age=_LANGUAGE_COOKIE_S, httponly=True, samesite="lax")
    return response


def changing(request: Request, body: str) -> Response:
    """Return the part of a page that changes; 304 when it has not."""
    data = body.encode()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Cookie"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(data, headers=headers)
