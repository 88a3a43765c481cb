"""The internet's mail server: takes every mail and keeps the last ones in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import threading

from aiosmtpd.smtp import SMTP, Envelope, Session

from .namespace import Namespace

_MAX_KEPT = 200
_MAX_BYTES = 32 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Mail:
    """One mail as it came."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


class Mailbox:
    """An SMTP server on a socket inside a namespace."""

    def __init__(self, namespace: Namespace, address: str, port: int = 25) -> None:
        self._where = (namespace, address, port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._mails: list[Mail] = []

    @property
    def mails(self) -> list[Mail]:
        """The mails so far, oldest first."""
        return list(self._mails)

    def start(self) -> None:
        """Open the socket and serve."""
        namespace, address, port = self._where
        listening = namespace.listen_tcp(address, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail server", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._serve(listening), self._loop).result()

    def stop(self) -> None:
        """Stop serving; does nothing if it does not run."""
        if self._loop is None or self._thread is None:
            return
        if self._server is not None:
            asyncio.run_coroutine_threadsafe(self._close(self._server), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802 - aiosmtpd's hook
        """Keep one mail."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        self._mails.append(Mail(envelope.mail_from or "", tuple(envelope.rcpt_tos), content))
        del self._mails[:-_MAX_KEPT]
        return "250 kept"

    async def _serve(self, listening: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: SMTP(self, data_size_limit=_MAX_BYTES, hostname="mail.example", loop=loop), sock=listening
        )

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        await server.wait_closed()
        leftover = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)
