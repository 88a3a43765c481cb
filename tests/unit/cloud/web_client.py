"""Asks a web application in this process, without a socket."""

from __future__ import annotations

import asyncio

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

    def head(self, path: str) -> httpx.Response:
        return self.request("HEAD", path)

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()
