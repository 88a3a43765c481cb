"""Reads forms that people send, and makes sure that they come from our own page.

A form is believed when it carries the secret that the page put into it and into a cookie (which no other site can read
or, being `SameSite=Strict`, make the browser send), and when the browser does not say that another site sent it.
Everything is bounded before it is read.
"""

from __future__ import annotations

import hmac
import re
import secrets
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.responses import Response

MAX_FORM_BYTES = 16 * 1024
MAX_FIELDS = 12
FORM_COOKIE = "omamori_form"
TOKEN_FIELD = "token"  # noqa: S105 - the name of a field

_TOKEN = re.compile(r"[0-9a-f]{32}")
_TYPE = "application/x-www-form-urlencoded"


class FormError(Exception):
    """A form is not believed or not readable; `status` says which, as in HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(f"form refused with {status}")
        self.status = status


def token_of(request: Request) -> str:
    """Return the secret of this browser, or a new one."""
    token = request.cookies.get(FORM_COOKIE, "")
    return token if _TOKEN.fullmatch(token) else secrets.token_hex(16)


def keep_token(response: Response, token: str) -> Response:
    """Give the browser its secret."""
    response.set_cookie(FORM_COOKIE, token, httponly=True, samesite="strict")
    return response


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form that our own page sent, without the secret.

    Raises:
        FormError: It is something else (415), too long (413), malformed (400), or sent by somebody else (403).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _TYPE:
        raise FormError(415)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise FormError(413)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as err:  # UnicodeError is one
        raise FormError(400) from err
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise FormError(400)
    token, kept = fields.pop(TOKEN_FIELD, ""), request.cookies.get(FORM_COOKIE, "")
    is_ours = _TOKEN.fullmatch(kept) is not None and hmac.compare_digest(token.encode(), kept.encode())
    if not is_ours or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise FormError(403)
    return fields
