"""A hundred office PCs and the servers they talk to, each side one process of asyncio inside a namespace.

    python -m omamori_lab.load.office serve ADDRESS
    python -m omamori_lab.load.office work ADDRESS PCS SECONDS SEED

Every PC works for itself: it pauses, asks a name, and mostly fetches something over HTTP or HTTPS or sends a mail; its
sockets are bound to its own interface (`pc0`, `pc1`, …), which has its own MAC and address. Prints one line of JSON:
for each kind of work how often it was done, how often it failed and how long it took. A failure is anything a user
would notice: a connection refused or reset, an answer that is late by seconds or not what was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import random
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from omamori_lab.load.web_server import OBJECTS

DNS_PORT, SMTP_PORT = 53, 25
PAUSE_S = 1.5  # between two things that a PC does, on average
_DNS_TIMEOUT_S = 3.0
_TIMEOUT_S = 20.0
_MAIL_BYTES = 30_000
_MAX_LINE = 4096
_MAX_MAIL = 1 << 20


@dataclasses.dataclass
class Tally:
    """What became of one kind of work; delays in seconds."""

    failures: int = 0
    delays_s: list[float] = dataclasses.field(default_factory=list)
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return counts and delays in milliseconds."""
        taken = sorted(self.delays_s)
        return {
            "done": len(taken),
            "failures": self.failures,
            "p50_ms": quantile_ms(taken, 0.5),
            "p99_ms": quantile_ms(taken, 0.99),
            "longest_ms": quantile_ms(taken, 1.0),
            "reasons": self.reasons,
        }


def quantile_ms(taken_s: list[float], part: float) -> float:
    """Return a quantile of sorted seconds, in milliseconds; 0 of none."""
    return round(taken_s[min(int(len(taken_s) * part), len(taken_s) - 1)] * 1000, 3) if taken_s else 0.0


class Office:
    """All PCs.

    Args:
        server: Address of every server.
        pcs: How many PCs.
        seed: Of their behaviour: the same seed does the same things.
    """

    def __init__(self, server: str, pcs: int, seed: int) -> None:
        self._server = server
        self._pcs = pcs
        self._seed = seed
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self.tallies = {kind: Tally() for kind in ("dns", "http", "https", "smtp")}

    async def work(self, seconds: float) -> None:
        """Let all work for so long, and finish what they are at."""
        end = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self._be_pc(number, end) for number in range(self._pcs)))

    async def _be_pc(self, number: int, end: float) -> None:
        choice = random.Random(f"{self._seed}/{number}")  # noqa: S311 - to behave alike every time, not to be secret
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(choice.uniform(0, PAUSE_S))
        while clock() < end:
            if await self._do("dns", functools.partial(self._ask, number, choice)):
                kind = choice.choices(("https", "http", "smtp", ""), (45, 20, 10, 25))[0]
                if kind == "smtp":
                    await self._do(kind, functools.partial(self._mail, number))
                elif kind:
                    path = choice.choices(tuple(OBJECTS), (50, 48, 2))[0]
                    await self._do(kind, functools.partial(self._fetch, number, kind, path))
            await asyncio.sleep(choice.expovariate(1 / PAUSE_S))

    async def _do(self, kind: str, work: Callable[[], Awaitable[None]]) -> bool:
        tally, clock = self.tallies[kind], asyncio.get_running_loop().time
        begin = clock()
        try:
            await asyncio.wait_for(work(), _DNS_TIMEOUT_S if kind == "dns" else _TIMEOUT_S)
        except (OSError, TimeoutError, EOFError, ValueError) as err:
            tally.failures += 1
            name = type(err).__name__
            tally.reasons[name] = tally.reasons.get(name, 0) + 1
            return False
        tally.delays_s.append(clock() - begin)
        return True

    def _socket(self, number: int, kind: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"pc{number}".encode())
        return made

    async def _connect(self, number: int, port: int) -> socket.socket:
        made = self._socket(number, socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(made, (self._server, port))
        except BaseException:
            made.close()
            raise
        return made

    async def _ask(self, number: int, choice: random.Random) -> None:
        loop = asyncio.get_running_loop()
        query = question(choice.randrange(1 << 16), f"host{choice.randrange(100_000)}.example")
        with self._socket(number, socket.SOCK_DGRAM) as made:
            await loop.sock_sendto(made, query, (self._server, DNS_PORT))
            while (await loop.sock_recv(made, 1500))[:2] != query[:2]:
                pass

    async def _fetch(self, number: int, scheme: str, path: str) -> None:
        plain = await self._connect(number, 443 if scheme == "https" else 80)
        tls = {"ssl": self._tls, "server_hostname": "bench.example"} if scheme == "https" else {}
        reader, writer = await asyncio.open_connection(sock=plain, **tls)  # type: ignore[arg-type]  # one of two forms
        async with _closing(writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ValueError(head[:60])
            left = OBJECTS[path]
            while left > 0:
                block = await reader.read(min(left, 1 << 18))
                if not block:
                    raise EOFError(path)
                left -= len(block)

    async def _mail(self, number: int) -> None:
        reader, writer = await asyncio.open_connection(sock=await self._connect(number, SMTP_PORT))
        line = b"The quick brown fox jumps over the lazy dog, and then does so again.\r\n"
        body = b"Subject: bench\r\n\r\n" + line * (_MAIL_BYTES // len(line)) + b".\r\n"
        async with _closing(writer):
            await _expect(reader, b"220")
            for words, code in (
                (b"HELO pc.example\r\n", b"250"),
                (b"MAIL FROM:<pc@office.example>\r\n", b"250"),
                (b"RCPT TO:<a@bench.example>\r\n", b"250"),
                (b"DATA\r\n", b"354"),
                (body, b"250"),
                (b"QUIT\r\n", b"221"),
            ):
                writer.write(words)
                await _expect(reader, code)


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.transport.abort()


async def _expect(reader: asyncio.StreamReader, code: bytes) -> None:
    line = await reader.readline()
    if not line.startswith(code):
        raise ValueError(line[:60])


def question(number: int, name: str) -> bytes:
    """Return a DNS question for the IPv4 address of a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return number.to_bytes(2, "big") + b"\x01\x00\0\x01\0\0\0\0\0\0" + labels + b"\0\0\x01\0\x01"


def answer(query: bytes, address: str) -> bytes:
    """Return the answer to a question: one address."""
    record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + socket.inet_aton(address)
    return query[:2] + b"\x81\x80\0\x01\0\x01\0\0\0\0" + query[12:] + record


class _Resolver(asyncio.DatagramProtocol):
    def __init__(self, address: str) -> None:
        self._address = address
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # it is none by inheritance

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and 12 < len(data) < 512:
            self._transport.sendto(answer(data, self._address), addr)


async def _take_mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with _closing(writer):
        writer.write(b"220 bench.example\r\n")
        while True:
            verb = (await reader.readline())[:4].upper()
            if not verb:
                return
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                size = 0
                while (line := await reader.readline()) not in (b".\r\n", b"") and size < _MAX_MAIL:
                    size += len(line)
            if verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                await writer.drain()
                await reader.read(1)  # the other side closes first
                return
            writer.write(b"250 fine\r\n")


async def serve(address: str) -> None:
    """Answer names and take mails until terminated."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Resolver(address), local_addr=(address, DNS_PORT))
    server = await asyncio.start_server(_take_mail, address, SMTP_PORT, limit=_MAX_LINE, backlog=256)
    async with server:
        await ended.wait()
    transport.close()


async def work(server: str, pcs: int, seconds: float, seed: int) -> dict[str, object]:
    """Let an office work, and return what became of it."""
    office = Office(server, pcs, seed)
    await office.work(seconds)
    return {kind: tally.to_json() for kind, tally in office.tallies.items()}


def main(arguments: list[str]) -> int:
    """Be one of the two sides."""
    if len(arguments) == 2 and arguments[0] == "serve":
        asyncio.run(serve(arguments[1]))
        return 0
    if len(arguments) == 5 and arguments[0] == "work":
        server, pcs, seconds, seed = arguments[1:]
        print(json.dumps(asyncio.run(work(server, int(pcs), float(seconds), int(seed)))))  # noqa: T201 - a program
        return 0
    print(__doc__, file=sys.stderr)  # noqa: T201 - likewise
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
