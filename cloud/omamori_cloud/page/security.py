"""What the page does against hostile browsers' pages and hostile texts, in one place.

* Only known host names are answered: without a login, the loopback address is the fence, and a foreign page whose
  name suddenly resolves to 127.0.0.1 must not climb over it.
* A strict content security policy: nothing but our own files, no inline script or style, no framing.
* What changes something is a form of our own page, and is believed only as such (`forms`). All else is GET and HEAD.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def host_name(header: str) -> str:
    """Return the name in a Host header: lower case, without the port; IPv6 addresses keep their brackets."""
    text = header.strip().lower()
    if text.startswith("["):
        return text.split("]", 1)[0] + "]"
    return text.rsplit(":", 1)[0] if ":" in text else text


class Guard:
    """ASGI middleware: refuses foreign hosts and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None) -> None:
        """Wrap `app`; `hosts` are the accepted names, None accepts any."""
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-cache" if scope["path"].startswith("/static/") else "no-store")
            await send(message)

        if self._hosts is not None and host_name(Headers(scope=scope).get("host", "")) not in self._hosts:
            answer = PlainTextResponse("error: unknown host name\n", status_code=421)
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)
