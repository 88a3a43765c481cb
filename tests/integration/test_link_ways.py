"""The ways to the broker, for real: TLS, a WebSocket of mosquitto's, an office's proxy; and what must not be one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omamori_agent.config import LinkLimits
from omamori_agent.identity import Identity
from omamori_agent.link import BrokerRefusedError, BrokerUnreachableError, MQTTBroker, Road, roads
from omamori_agent.link.broker import Acknowledged, BrokerConnection, Hello, Incoming, Received, Waker
from omamori_protocol.messages import FeedAnnouncement
from omamori_protocol.topics import feed_announcement
from sim.box import DEVICE, box_config
from sim.mosquitto import Mosquitto, free_port
from sim.proxy import Proxy

from .agent_site import make_client
from .cloud_rig import Pki, wait_for

LIMITS = LinkLimits(connect_timeout_s=5.0, keepalive_s=2)
EVENT_TOPIC = f"omamori/v1/{DEVICE}/evt"


class Office:
    """A broker with all its listeners, a proxy before it, and a box that may use either."""

    def __init__(self, folder: Path) -> None:
        self.pki = Pki(folder / "pki")
        self.broker = Mosquitto(folder / "broker", self.pki.service, self.pki.devices, websocket=True)
        certificate, key = self.pki.issue(DEVICE, self.pki.devices)
        self.identity = Identity(
            device=DEVICE, key_path=key, certificate_path=certificate, begins_s=0, expires_s=2_000_000_000
        )
        self.folder = folder

    def connect(self, *ways: Road) -> BrokerConnection:
        hello = Hello(DEVICE, f"omamori/v1/{DEVICE}/state", b"\xa0")
        return MQTTBroker(ways, str(self.pki.ca), LIMITS).connect(hello, self.identity, threading.Event())


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    one = Office(tmp_path)
    one.broker.start()
    yield one
    one.broker.stop()


@pytest.fixture
def proxy(office: Office) -> Iterator[Proxy]:
    one = Proxy({office.broker.port, office.broker.websocket_port})
    yield one
    one.close()


def converse(office: Office, connection: BrokerConnection) -> None:
    """All a connection is for: both directions, small, large, and more than the network takes at once."""
    waker = Waker()
    listener = make_client("ingest", office.folder, office.pki.service, office.pki.service.issue("ingest"))
    got: list[bytes] = []
    listener.on_message = lambda _client, _data, message: got.append(bytes(message.payload))
    listener.connect("localhost", office.broker.service_port)
    listener.subscribe([("omamori/v1/+/evt", 1), ("omamori/v1/+/hb", 0)])
    listener.loop_start()
    publisher = make_client("publisher", office.folder, office.pki.service, office.pki.service.issue("publisher"))
    publisher.connect("localhost", office.broker.service_port)
    publisher.loop_start()
    incoming: list[Incoming] = []

    def poll(condition: Callable[[], object], what: str) -> None:
        def step() -> object:
            incoming.extend(connection.poll(0.05, waker))
            return condition()

        wait_for(step, what)

    try:
        poll(lambda: listener.is_connected() and publisher.is_connected(), "the neighbours")
        topic = feed_announcement("demo")
        connection.subscribe(topic)
        for serial in range(1, 4):
            publisher.publish(topic, FeedAnnouncement(serial=serial).encode(), qos=1, retain=True)
        poll(lambda: sum(isinstance(item, Received) for item in incoming) >= 1, "an announcement")
        payloads = [bytes([number]) * (1 + number * 900) for number in range(30)]
        ids = [connection.publish(EVENT_TOPIC, payload, confirmed=True) for payload in payloads]
        for _ in range(3):
            connection.publish(f"omamori/v1/{DEVICE}/hb", b"heartbeat", confirmed=False, expires_s=60)
        poll(lambda: len(got) >= 33, "everything at the other side")
        poll(lambda: sum(isinstance(item, Acknowledged) for item in incoming) >= 30, "the acknowledgements")
        assert [payload for payload in got if payload != b"heartbeat"] == payloads
        assert got.count(b"heartbeat") == 3  # the second and third without their topic
        answered = {item.message_id: item.reason for item in incoming if isinstance(item, Acknowledged)}
        assert answered | dict.fromkeys(ids, 0) == answered
        assert connection.local_address == "127.0.0.1"
    finally:
        for client in (listener, publisher):
            client.disconnect()
            client.loop_stop()
        connection.close(goodbye_s=1.0)


@pytest.mark.parametrize("is_websocket", [False, True])
@pytest.mark.parametrize("through_proxy", [False, True])
def test_both_directions_on_every_way(office: Office, proxy: Proxy, is_websocket: bool, through_proxy: bool) -> None:
    port = office.broker.websocket_port if is_websocket else office.broker.port
    via = ("127.0.0.1", proxy.port) if through_proxy else None
    converse(office, office.connect(Road("localhost", port, is_websocket, via)))
    target = f"localhost:{port}".encode()
    assert proxy.requests == ([b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target)] if via else [])


def test_next_way_is_tried_after_a_failure_and_the_good_one_is_kept(office: Office) -> None:
    blocked = Road("localhost", free_port())
    good = Road("localhost", office.broker.websocket_port, is_websocket=True)
    broker = MQTTBroker([blocked, good], str(office.pki.ca), LIMITS)
    hello = Hello(DEVICE, f"omamori/v1/{DEVICE}/state", b"\xa0")
    with pytest.raises(BrokerUnreachableError, match=f"localhost:{blocked.port}"):
        broker.connect(hello, office.identity, threading.Event())
    for _ in range(2):
        broker.connect(hello, office.identity, threading.Event()).close()


def test_ways_of_a_box_are_those_of_its_provision_file(tmp_path: Path) -> None:
    host = "broker.example"
    plain = box_config(tmp_path / "a", broker={"host": host, "port": 8883}).provision
    assert roads(plain) == [Road(host, 8883)]
    strict = box_config(
        tmp_path / "b",
        broker={"host": host, "port": 8883, "websocket_port": 443},
        proxy={"host": "192.0.2.1", "port": 3128},
    ).provision
    via = ("192.0.2.1", 3128)
    assert [str(road) for road in roads(strict)] == [
        "broker.example:8883 through 192.0.2.1:3128",
        "broker.example:443 as websocket through 192.0.2.1:3128",
        "broker.example:8883",
        "broker.example:443 as websocket",
    ]
    assert roads(strict)[0] == Road(host, 8883, False, via)


ANSWERS = {
    "a login is wanted": b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
    "forbidden": b"HTTP/1.1 403 Forbidden\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "headers without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9000,
    "a line of its own in a header": b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
}


@pytest.mark.parametrize("what", ANSWERS)
def test_proxy_that_says_something_else_is_no_way(office: Office, what: str) -> None:
    bad = Proxy(set(), ANSWERS[what])
    try:
        with pytest.raises(BrokerUnreachableError, match="proxy"):
            office.connect(Road("localhost", office.broker.port, False, ("127.0.0.1", bad.port)))
    finally:
        bad.close()


def test_proxy_that_never_answers_costs_the_time_out_and_no_more(office: Office) -> None:
    silent = Proxy(set(), b"HTTP/1.1 ")
    quick = LinkLimits(connect_timeout_s=0.5)
    broker = MQTTBroker(
        [Road("localhost", office.broker.port, False, ("127.0.0.1", silent.port))], str(office.pki.ca), quick
    )
    with pytest.raises(BrokerUnreachableError):
        broker.connect(Hello(DEVICE, "omamori/v1/x/state", b""), office.identity, threading.Event())
    silent.close()


def test_proxy_that_looks_inside_is_refused(office: Office, proxy: Proxy, tmp_path: Path) -> None:
    """An office that opens TLS with a CA of its own gets nothing, not even our certificate's name in the clear."""
    stranger = Pki(tmp_path / "stranger")
    imitation = Mosquitto(tmp_path / "imitation", stranger.service, office.pki.devices)
    imitation.start()
    try:
        with pytest.raises(BrokerRefusedError, match="certificate refused"):
            office.connect(Road("localhost", imitation.port))
    finally:
        imitation.stop()


def test_less_than_tls_13_is_refused(office: Office, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(office.broker.files.tls / "tls.crt", office.broker.files.tls / "tls.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _address = listener.accept()
        with contextlib.suppress(OSError):
            context.wrap_socket(client, server_side=True).close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with pytest.raises(BrokerUnreachableError, match=r"(?i)version|alert"):
        office.connect(Road("localhost", listener.getsockname()[1]))
    thread.join(5)
    listener.close()


def test_web_server_that_knows_no_websocket_is_no_way(office: Office) -> None:
    """MQTT's own port answers the handshake with nothing; a web server would with a page."""
    with pytest.raises(BrokerUnreachableError):
        office.connect(Road("localhost", office.broker.port, is_websocket=True))
