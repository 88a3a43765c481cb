"""Asks a web application in this process, without a socket."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import httpx
from fastapi import FastAPI


class WebClient:
    """A browser's manners (it keeps cookies) with a plain function's interface."""

    def __init__(self, app: FastAPI) -> None:
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")

    def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, headers=headers))

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.request("GET", path, headers)

    def post(
        self, path: str, fields: dict[str, str] | bytes, headers: dict[str, str] | None = None, *, token: bool = True
    ) -> httpx.Response:
        """Send a form, with the secret that the page has put into the cookie."""
        if isinstance(fields, dict):
            secret = {"token": self._client.cookies.get("omamori_form", "")} if token else {}
            fields = urlencode({**fields, **secret}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._runner.run(self._client.post(path, content=fields, headers=headers))

    def head(self, path: str) -> httpx.Response:
        return self.request("HEAD", path)

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()
