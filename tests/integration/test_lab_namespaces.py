"""The lab's wires and clients, with a bridge in place of the box."""

import hashlib
import smtplib
from pathlib import Path

import pytest

from omamori_lab import addresses
from omamori_lab.addresses import ATTACKER, PC1, SERVER, WEB
from omamori_lab.capture import Capture
from omamori_lab.journal import NETNS, Journal
from omamori_lab.listeners import ANSWER_BODY, Listener
from omamori_lab.mailbox import Mailbox
from omamori_lab.namespace import Namespace
from omamori_lab.office import Client
from omamori_lab.run import spawn
from omamori_lab.scenes.transparency import of_terminal
from omamori_lab.topology import TERMINAL_PORT, WAN_TAP, Topology

from .lab_cable import Cable

pytestmark = pytest.mark.root


@pytest.fixture
def topology(tmp_path: Path):
    made = Topology(Journal(tmp_path))
    with made.running(), Cable(made.wan_tap, made.lan_tap):
        yield made


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "resolv.conf").write_text(f"nameserver {addresses.ROUTER_IPV4}\n")
    (tmp_path / "ca.pem").write_text("")
    return tmp_path


def client(topology: Topology, scratch: Path, name: str) -> Client:
    inside = topology.internet if name == "attacker" else topology.terminals[name]
    ipv4 = ATTACKER.ipv4 if name == "attacker" else PC1.ipv4
    return Client(
        inside, ipv4, scratch=scratch, resolver=scratch / "resolv.conf", ca=scratch / "ca.pem", binds=name == "attacker"
    )


def test_both_sides_see_the_same_headers_over_a_cable(topology: Topology, scratch: Path) -> None:
    with (
        Capture(topology.terminals[PC1.name], TERMINAL_PORT) as office,
        Capture(topology.internet, WAN_TAP) as internet,
    ):
        summary = client(topology, scratch, PC1.name).ping(WEB.ipv4, count=5)
    assert (summary.sent, summary.received) == (5, 5)
    assert of_terminal(office.headers) == of_terminal(internet.headers) != set()
    assert office.pings == internet.pings
    assert len(office.pings) == 10


def test_an_attacker_reaches_the_office_server_from_its_own_address(topology: Topology, scratch: Path) -> None:
    server = Listener(topology.terminals[SERVER.name], SERVER.ipv4, 80)
    server.start()
    try:
        got = client(topology, scratch, "attacker").get(f"http://{SERVER.ipv4}/../etc", options=["-H", "X-Lab: one"])
        answer = client(topology, scratch, "attacker").exchange_udp(SERVER.ipv4, 80, b"two")
    finally:
        server.stop()
    assert got.complete
    assert got.sha256 == hashlib.sha256(ANSWER_BODY).hexdigest()
    (request,) = server.holding(b"X-Lab: one")
    assert request.peer == ATTACKER.ipv4
    assert request.data.startswith(b"GET /../etc HTTP/1.1")
    assert answer == b"two"


def test_nobody_answers(topology: Topology, scratch: Path) -> None:
    pc = client(topology, scratch, PC1.name)
    got = pc.get(f"http://{WEB.ipv4}/", timeout_s=2)
    assert (got.status, got.complete) == (0, False)
    assert pc.resolve("web.example", server=addresses.ROUTER_IPV4, timeout_s=1) is None
    assert pc.exchange_udp(WEB.ipv4, 9, b"x") is None
    assert not pc.connect(WEB.ipv4, 9)
    with pc.pinging("192.168.10.200") as loop:
        summary = loop.stop()
    assert summary.received == 0


def test_a_mail_arrives_as_it_was_sent(topology: Topology) -> None:
    mailbox = Mailbox(topology.internet, addresses.MAIL.ipv4)
    mailbox.start()
    try:

        def send() -> None:
            with smtplib.SMTP(addresses.MAIL.ipv4, 25, local_hostname="pc1.office.example", timeout=10) as server:
                server.sendmail("a@office.example", ["b@mail.example"], b"Subject: x\r\n\r\nbody\r\n")

        topology.terminals[PC1.name].call(send)
        (mail,) = mailbox.mails
    finally:
        mailbox.stop()
    assert mail.recipients == ("b@mail.example",)
    assert mail.content.replace(b"\r\n", b"\n").strip() == b"Subject: x\n\nbody"


def open_files() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def test_nothing_is_left_when_a_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_files()
    topology = Topology(Journal(tmp_path))

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(topology, "_make_terminal", fail)
    with pytest.raises(KeyboardInterrupt), topology.running():
        pass
    assert not list(NETNS.glob(f"{topology.office.name[:8]}*"))
    assert open_files() == before


def test_processes_inside_end_with_their_namespace(tmp_path: Path) -> None:
    namespace = Namespace(Journal(tmp_path), "test")
    namespace.create()
    with (tmp_path / "log").open("wb") as log:
        process = spawn(namespace.command(["sleep", "300"]), log=log)
        while b"sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()[:5]:
            assert process.poll() is None
    namespace.delete()
    assert process.wait(5) == -15
    assert not namespace.path.exists()


def test_an_exception_inside_comes_out(tmp_path: Path) -> None:
    namespace = Namespace(Journal(tmp_path), "test")
    namespace.create()
    try:
        with pytest.raises(ZeroDivisionError):
            namespace.call(lambda: 1 // 0)
        here = Path("/proc/thread-self/ns/net")
        assert namespace.call(lambda: here.stat().st_ino) == namespace.path.stat().st_ino
        assert here.stat().st_ino != namespace.path.stat().st_ino
    finally:
        namespace.delete()


def test_a_relay_leads_the_wire_past_the_box_or_through_it_and_never_both_ways(tmp_path: Path, scratch: Path) -> None:
    made = Topology(Journal(tmp_path), has_relay=True)
    with made.running():
        relay = made.relay
        assert relay is not None

        def reaches() -> bool:
            return client(made, scratch, PC1.name).ping(WEB.ipv4, count=2).received > 0

        assert not relay.through
        assert reaches()
        relay.switch(through=True)
        assert not reaches()  # there is no box
        with Cable(made.wan_tap, made.lan_tap):
            assert reaches()
            relay.switch(through=False)
            with Capture(made.internet, WAN_TAP) as internet:
                assert reaches()
            # A second way would bring each question twice.
            assert len(internet.pings) == len(set(internet.pings))
