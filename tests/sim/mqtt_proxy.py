"""A proxy between a box and its broker that sees MQTT packets and mistreats them as a plan says.

It ends TLS on both sides (with the certificates of a test), so that what lies between is cut at packets and not at
whatever TLS makes of them. One thread with an event loop; the plan is asked from there for every packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import ssl
import threading
from collections.abc import Callable
from enum import Enum, StrEnum, auto
from typing import Self

DUP = 0x08


class Kind(Enum):
    """MQTT packet types, by their numbers."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Way(StrEnum):
    """Where a packet goes."""

    UP = "to the broker"
    DOWN = "to the box"


class Act(Enum):
    """What happens to a packet."""

    PASS = auto()
    CUT_BEFORE = auto()
    CUT_INSIDE = auto()
    CUT_AFTER = auto()
    TWICE = auto()
    HOLD = auto()  # until some more are held or nothing comes for a while; then in any order
    SILENCE = auto()  # from here on nothing passes, and nobody is told


@dataclasses.dataclass(frozen=True)
class Packet:
    """One packet as it is on the wire."""

    way: Way
    kind: Kind
    data: bytes


Plan = Callable[[Packet], Act]


def passing(_packet: Packet) -> Act:
    return Act.PASS


class _Conversation:
    """One connection through the proxy."""

    def __init__(self, proxy: MQTTProxy, writers: dict[Way, asyncio.StreamWriter]) -> None:
        self._proxy = proxy
        self._writers = writers  # by where they lead
        self._held: dict[Way, list[bytes]] = {Way.UP: [], Way.DOWN: []}
        self._is_silent = False

    async def pump(self, way: Way, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                data = await asyncio.wait_for(_read_packet(reader), 0.15 if self._held[way] else None)
            except TimeoutError:
                await self._release(way)
                continue
            packet = Packet(way, Kind(data[0] >> 4), data)
            self._proxy.seen.append(packet)
            await self._treat(packet, Act.SILENCE if self._is_silent else self._proxy.plan(packet))

    async def _treat(self, packet: Packet, act: Act) -> None:
        data, way = packet.data, packet.way
        if act is Act.SILENCE:
            self._is_silent = True
        elif act is Act.HOLD:
            self._held[way].append(data)
            if len(self._held[way]) >= 8:
                await self._release(way)
        elif act is Act.CUT_BEFORE:
            self.cut()
        elif act is Act.CUT_INSIDE:
            await self._send(way, data[: max(1, len(data) // 2)])
            self.cut()
        else:
            await self._release(way)
            await self._send(way, data)
            if act is Act.TWICE:
                again = bytes((data[0] | DUP,)) + data[1:] if packet.kind is Kind.PUBLISH and data[0] & 6 else data
                await self._send(way, again)
            elif act is Act.CUT_AFTER:
                self.cut()

    async def _release(self, way: Way) -> None:
        held, self._held[way] = self._held[way], []
        self._proxy.chance.shuffle(held)
        for data in held:
            await self._send(way, data)

    async def _send(self, way: Way, data: bytes) -> None:
        self._writers[way].write(data)
        await self._writers[way].drain()

    def cut(self) -> None:
        for writer in self._writers.values():
            writer.transport.abort()
        raise ConnectionAbortedError


async def _read_packet(reader: asyncio.StreamReader) -> bytes:
    data = await reader.readexactly(1)
    length = shift = 0
    while True:
        byte = await reader.readexactly(1)
        data += byte
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            return data + await reader.readexactly(length)


class MQTTProxy:
    """Listens on `port`; `plan` may be replaced at any time.

    Args:
        server: TLS towards the box.
        client: TLS towards the broker, with the box' name.
        broker_port: Where the broker listens on loopback.
        chance: Order of held packets.
    """

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, broker_port: int, chance: random.Random) -> None:
        self._server = server
        self._client = client
        self._broker_port = broker_port
        self.chance = chance
        self.plan: Plan = passing
        self.seen: list[Packet] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda _loop, _context: None)  # connections are cut on purpose here
        server = self._loop.run_until_complete(
            asyncio.start_server(self._converse, "127.0.0.1", 0, ssl=self._server, ssl_shutdown_timeout=0.1)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    async def _converse(self, box_reader: asyncio.StreamReader, box_writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection(
                "127.0.0.1",
                self._broker_port,
                ssl=self._client,
                server_hostname="localhost",
                ssl_shutdown_timeout=0.1,
            )
        except OSError:
            box_writer.transport.abort()
            return
        conversation = _Conversation(self, {Way.UP: broker_writer, Way.DOWN: box_writer})
        pumps = [
            asyncio.ensure_future(conversation.pump(Way.UP, box_reader)),
            asyncio.ensure_future(conversation.pump(Way.DOWN, broker_reader)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            with contextlib.suppress(ConnectionAbortedError):
                conversation.cut()
