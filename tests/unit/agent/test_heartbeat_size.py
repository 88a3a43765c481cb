"""A heartbeat takes at most 200 bytes of the wire, with everything around it: ten thousand boxes send one a minute."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from omamori_agent.config import LinkLimits
from omamori_agent.link.broker import Hello
from omamori_agent.link.mqtt import MQTTConnection
from omamori_agent.link.road import Road
from omamori_protocol.messages import Heartbeat
from omamori_protocol.topics import Leaf, device_topic
from omamori_protocol.vocabulary import EngineState, FeedState, Slot

DEVICE = "ZA35-000001"
TOPIC = device_topic(DEVICE, Leaf.HEARTBEAT)
MAX_BYTES = 200
TLS_RECORD = 5 + 1 + 16  # head, kind, tag
TCP_AND_IP = 20 + 32  # IPv4; TCP with time stamps
# What a box that has been up for a year says, in the worst of its moods.
LARGEST = Heartbeat(
    boot=1_900_000_000,
    seq=600_000,
    sent_s=2_000_000_000,
    uptime_s=365 * 86_400,
    firmware="2026.12.31-rc.12",
    slot=Slot.B,
    feed_serial=999_999,
    feed_state=FeedState.ROLLED_BACK,
    engine=EngineState.INSPECTING,
    agent_rss_kib=100_000,
    memory_available_kib=16_000_000,
    spool_depth=50_000,
    uninspected_s=365 * 86_400,
    inspected_packets=10**13,
    bypassed_packets=10**13,
    blocked_packets=10**9,
    busy_permille=1000,
)
# The supervisor's figures come in turn.
WITH_TEMPERATURE = dataclasses.replace(LARGEST, celsius=-128)
WITH_RAIL = dataclasses.replace(LARGEST, millivolts=65535)


class PlainRoad(Road):
    """One end of a pair of sockets, without TLS: what goes through can be read."""

    ours: socket.socket

    def open(self, context: ssl.SSLContext, timeout_s: float) -> Any:
        return type(self).ours


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    PlainRoad.ours = ours
    with ours, theirs:
        theirs.settimeout(20)
        yield theirs


def connected(peer: socket.socket, properties: bytes) -> MQTTConnection:
    """Return a connection whose broker's consent has these properties."""
    connection = MQTTConnection(
        Hello(DEVICE, device_topic(DEVICE, Leaf.STATE), b"will"),
        PlainRoad("localhost", 1),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        LinkLimits(),
    )
    body = b"\x00\x00" + bytes([len(properties)]) + properties
    peer.send(b"\x20" + bytes([len(body)]) + body)
    connection.open(threading.Event())
    peer.recv(4096)  # the CONNECT
    return connection


def said(peer: socket.socket, connection: MQTTConnection, heartbeat: Heartbeat = LARGEST) -> bytes:
    connection.publish(TOPIC, heartbeat.encode(), confirmed=False, expires_s=180)
    return peer.recv(4096)


def test_every_field_is_in_the_largest_one() -> None:
    for field in dataclasses.fields(Heartbeat):
        values = {getattr(one, field.name) for one in (LARGEST, WITH_TEMPERATURE, WITH_RAIL)}
        assert values != {field.default}, f"{field.name}: say what it is at its largest"


@pytest.mark.parametrize("largest", [LARGEST, WITH_TEMPERATURE, WITH_RAIL], ids=["bare", "temperature", "rail"])
def test_the_largest_usual_heartbeat_on_the_wire(peer: socket.socket, largest: Heartbeat) -> None:
    connection = connected(peer, b"\x22\x00\x0a")  # the broker takes ten aliases
    try:
        first, second, third = (said(peer, connection, largest) for _ in range(3))
    finally:
        connection.close()
    assert TOPIC.encode() in first
    assert b"application/cbor" in first
    assert TOPIC.encode() not in second
    assert largest.encode() in second
    assert len(second) == len(third)
    assert len(second) + TLS_RECORD + TCP_AND_IP <= MAX_BYTES


def test_a_broker_without_aliases_gets_topic_and_kind_each_time(peer: socket.socket) -> None:
    connection = connected(peer, b"")
    try:
        said(peer, connection)
        second = said(peer, connection)
    finally:
        connection.close()
    assert TOPIC.encode() in second
    assert b"application/cbor" in second
