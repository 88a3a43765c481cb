"""The diagnosis reads the kernel's files, tries only the service's servers, and tells what lasts."""

from __future__ import annotations

import errno
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from omamori_agent.diagnosis.facts import Contact, Port
from omamori_agent.diagnosis.kernel import Kernel
from omamori_agent.diagnosis.reach import contact_of, offender_of, second_hop, servers, try_contact
from omamori_agent.diagnosis.worker import DiagnosisWorker
from omamori_agent.lamp import boottime_s
from omamori_agent.link.road import Road
from omamori_agent.status import StatusBoard
from omamori_protocol.trouble import COOL_CELSIUS, HOT_CELSIUS, Trouble
from omamori_protocol.vocabulary import EngineState
from sim.box import box_config
from sim.clock import ManualClock
from sim.pki import Authority

ROUTER_MAC = "52:54:00:00:00:01"
ROUTE = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
ARP = "IP address       HW type     Flags       HW address            Mask     Device\n"


def station(mac: str, port: int, *, is_local: bool = False) -> bytes:
    return struct.pack("=6sBBIBBH", bytes.fromhex(mac.replace(":", "")), port & 0xFF, is_local, 12, port >> 8, 0, 0)


class Tree:
    """The kernel's files in a directory."""

    def __init__(self, root: Path) -> None:
        self.interfaces, self.proc = root / "net", root / "proc"
        (self.proc / "net").mkdir(parents=True)
        (self.interfaces / "br0/brif").mkdir(parents=True)
        self.address = "192.168.10.5"
        self.kernel = Kernel(self.interfaces, self.proc, ipv4=lambda _name: self.address)

    def port(self, name: str, number: int, carrier: str | None) -> None:
        folder = self.interfaces / name
        (folder / "brport").mkdir(parents=True, exist_ok=True)
        (folder / "brport/port_no").write_text(f"{number:#x}\n")
        if carrier is not None:
            (folder / "carrier").write_text(carrier)
        (self.interfaces / "br0/brif" / name).touch()

    def stations(self, *entries: bytes) -> None:
        (self.interfaces / "br0/brforward").write_bytes(b"".join(entries))

    def route(self, *lines: str) -> None:
        (self.proc / "net/route").write_text(ROUTE + "".join(f"{line}\n" for line in lines))

    def arp(self, flags: str, mac: str = ROUTER_MAC) -> None:
        line = f"192.168.10.1     0x1         {flags}         {mac}     *        br0\n"
        (self.proc / "net/arp").write_text(ARP + line)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_ports_and_their_carrier(tree: Tree) -> None:
    tree.port("wan", 1, "1\n")
    tree.port("lan1", 2, "0\n")
    tree.port("lan2", 3, None)  # a port that is down has no carrier to read
    assert tree.kernel.ports() == (
        Port(name="lan1", has_carrier=False),
        Port(name="lan2", has_carrier=False),
        Port(name="wan", has_carrier=True),
    )


def test_more_ports_than_any_box_has(tree: Tree) -> None:
    for number in range(65):
        (tree.interfaces / f"br0/brif/lan{number:02}").touch()
    assert len(tree.kernel.ports()) == 64


def test_the_router_and_the_port_behind_which_it_is(tree: Tree) -> None:
    tree.port("wan", 1, "1")
    tree.port("lan1", 0x102, "1")
    tree.route(
        "br0\t000AA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF", "br0\t00000000\t010AA8C0\t0003\t0\t0\t1024\t00000000"
    )
    assert tree.kernel.gateway() == "192.168.10.1"
    tree.arp("0x2")
    assert tree.kernel.gateway_mac("192.168.10.1") == ROUTER_MAC
    tree.stations(station("02:00:00:00:00:09", 1, is_local=True), station(ROUTER_MAC, 0x102))
    assert tree.kernel.port_of(ROUTER_MAC) == "lan1"
    assert tree.kernel.port_of("52:54:00:00:00:99") == ""
    assert tree.kernel.port_of("nonsense") == ""


def test_a_router_that_is_silent_and_one_that_nobody_asked(tree: Tree) -> None:
    tree.arp("0x0", "00:00:00:00:00:00")
    assert tree.kernel.gateway_mac("192.168.10.1") == ""
    assert tree.kernel.gateway_mac("192.168.10.2") is None


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["wan\t00000000\t010AA8C0\t0003\t0\t0\t1024\t00000000"],
        ["br0\t00000000\tnonsense\t0003\t0\t0\t1024\t00000000"],
        ["br0\t00000000\t00000000\t0001\t0\t0\t1024\t00000000"],
        ["br0\t00000000"],
    ],
)
def test_no_router(tree: Tree, lines: list[str]) -> None:
    tree.route(*lines)
    assert tree.kernel.gateway() == ""


def test_a_routable_ipv6_address(tree: Tree) -> None:
    assert not tree.kernel.has_ipv6()
    link = "fe80000000000000505400fffe000005 03 40 20 80      br0\n"
    (tree.proc / "net/if_inet6").write_text(link)
    assert not tree.kernel.has_ipv6()
    (tree.proc / "net/if_inet6").write_text(link + "20010db8000000000000000000000005 03 40 00 00      br0\n")
    assert tree.kernel.has_ipv6()


def test_a_loop_is_many_moves_and_a_walk_is_none(tree: Tree) -> None:
    for number in range(10):
        tree.stations(station(ROUTER_MAC, 1), station("02:00:00:00:00:07", 2 if number < 5 else 3))
        assert not tree.kernel.is_looping()
    seen = []
    for number in range(6):
        tree.stations(station(ROUTER_MAC, 1 + number % 2))
        seen.append(tree.kernel.is_looping())
    assert seen[-1]
    assert not [tree.kernel.is_looping() for _ in range(10)][-1]


def test_more_stations_than_are_looked_at(tree: Tree) -> None:
    entries = [station(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}", 1) for number in range(5000)]
    tree.stations(*entries, b"half")
    assert 4096 <= len(tree.kernel._stations()) < 4096 + 128


# -- servers ----------------------------------------------------------------------------------------------------------


def test_only_the_hosts_of_the_provision_file_are_tried(tmp_path: Path) -> None:
    provision = box_config(tmp_path).provision
    assert {road.host for road in servers(provision, is_enrolled=True).values()} == {"localhost"}
    assert set(servers(provision, is_enrolled=True)) == {"repository", "broker"}
    assert set(servers(provision, is_enrolled=False)) == {"repository", "broker", "enrolment"}


@pytest.mark.parametrize(
    ("err", "contact"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "x"), Contact.NO_ANSWER_ABOUT_NAME),
        (socket.gaierror(socket.EAI_NONAME, "x"), Contact.NO_NAME),
        (TimeoutError("x"), Contact.SILENT),
        (OSError(errno.ETIMEDOUT, "x"), Contact.SILENT),
        (OSError(errno.EHOSTUNREACH, "x"), Contact.NO_WAY),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), Contact.REFUSED),
        (ConnectionResetError(errno.ECONNRESET, "x"), Contact.REFUSED),
        (ssl.SSLEOFError("x"), Contact.REFUSED),
        (ssl.SSLError("wrong version number"), Contact.FOREIGN),
    ],
)
def test_what_an_error_says(err: OSError, contact: Contact) -> None:
    assert contact_of(err) is contact


def test_a_page_that_answers_for_everybody_is_foreign(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority("nobody").pem)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(2048)
                connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        contact = try_contact(Road("127.0.0.1", server.getsockname()[1]), str(ca), timeout_s=5)
        thread.join(5)
    assert contact is Contact.FOREIGN


def test_who_ended_a_datagram_is_read_from_the_error() -> None:
    def error(origin: int, kind: int, family: int = socket.AF_INET) -> bytes:
        head = struct.pack("=IBBBBII", errno.EHOSTUNREACH, origin, kind, 0, 0, 0, 0)
        return head + struct.pack("=HH4s8x", family, 0, socket.inet_aton("192.168.1.1"))

    assert offender_of(error(2, 11)) == "192.168.1.1"
    assert offender_of(error(2, 3)) == ""
    assert offender_of(error(1, 11)) == ""
    assert offender_of(error(2, 11, socket.AF_INET6)) == ""
    assert offender_of(error(2, 11)[:20]) == ""


def test_a_host_one_hop_away_has_no_second_router() -> None:
    assert second_hop("127.0.0.1", 9, timeout_s=0.2) == ""


# -- the worker -------------------------------------------------------------------------------------------------------


class FakeKernel:
    """A kernel whose facts a test sets."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {
            "ports": (Port(name="lan1", has_carrier=True), Port(name="wan", has_carrier=True)),
            "address": "192.168.10.5",
            "has_ipv6": False,
            "gateway": "192.168.10.1",
            "is_looping": False,
        }
        self.mac: str | None = ROUTER_MAC
        self.port = "wan"

    def __getattr__(self, name: str) -> Any:
        return lambda: self.values[name]

    def gateway_mac(self, _gateway: str) -> str | None:
        return self.mac

    def port_of(self, _mac: str) -> str:
        return self.port


class Box:
    def __init__(self, root: Path, trouble_before: int = 0) -> None:
        self.config = box_config(root)
        self.config.paths.trouble.parent.mkdir()
        self.status = StatusBoard()
        self.status.update(engine=EngineState.INSPECTING)
        self.kernel = FakeKernel()
        self.clock = ManualClock()
        self.lines: list[str] = []
        self.noted: list[int] = []
        self.contacts: Mapping[str, Contact] = {"repository": Contact.SILENT, "broker": Contact.SILENT}
        self.tries = 0
        self.hop = ""
        self.worker = DiagnosisWorker(
            config=self.config,
            status=self.status,
            kernel=self.kernel,  # type: ignore[arg-type]
            try_servers=self._try,
            find_second_hop=lambda: self.hop,
            is_enrolled=lambda: True,
            is_wire_whole=lambda: True,
            note=self.noted.append,
            trouble_before=trouble_before,
            clock=self.clock,
            report=self.lines.append,
        )

    def _try(self, is_enrolled: bool) -> Mapping[str, Contact]:
        self.tries += 1
        return self.contacts

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds / 5)):
            self.clock.monotonic_s += 5
            self.worker.step()
            busy = self.worker._busy
            if busy is not None:
                busy.join(5)

    @property
    def code(self) -> str:
        return self.config.paths.trouble_code.read_text()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_hot_box_is_told_until_it_is_clearly_cooler(box: Box) -> None:
    box.status.update(connected=True)
    box.wait(60)
    box.status.update(celsius=HOT_CELSIUS)
    box.wait(30)
    assert (box.code, box.status.get().trouble) == ("9131\n", Trouble.HOT)
    box.status.update(celsius=COOL_CELSIUS)
    box.wait(30)
    assert box.code == "9131\n"
    box.status.update(celsius=COOL_CELSIUS - 1)
    box.wait(30)
    assert box.code == "0\n"


def test_a_box_that_is_well_says_nothing(box: Box) -> None:
    box.status.update(connected=True)
    box.wait(120)
    assert box.lines == []
    assert box.code == "0\n"
    assert box.status.get().trouble == 0


def test_swapped_plugs_are_told_on_console_lamp_and_state(box: Box) -> None:
    box.status.update(connected=True)
    box.kernel.port = "lan1"
    box.wait(60)
    assert box.lines == ["trouble 7121 swapped"]
    assert box.code == "7121\n"
    assert box.config.paths.lamp_wanted.exists()
    assert box.status.get().trouble == Trouble.SWAPPED
    told = json.loads(box.config.paths.trouble.read_text())
    assert told == {"format": 1, "troubles": [{"code": 7121, "word": "swapped"}]}
    box.kernel.port = "wan"
    box.wait(10)
    assert box.lines[1:] == ["trouble over"]
    assert box.code == "0\n"
    assert not box.config.paths.lamp_wanted.exists()


def test_the_lamp_is_called_until_nobody_asks_any_more_which_box_this_is(box: Box) -> None:
    box.status.update(connected=True)
    box.wait(60)
    box.config.paths.identify.write_text(f"{int(boottime_s()) + 3600}\n")
    box.wait(5)
    assert box.config.paths.lamp_wanted.exists()
    box.config.paths.identify.write_text("1\n")
    box.wait(5)
    assert not box.config.paths.lamp_wanted.exists()


def test_a_lamp_that_cannot_be_called_stops_nothing(box: Box) -> None:
    box.status.update(connected=True)
    box.config.paths.lamp_wanted.mkdir(parents=True)
    box.kernel.port = "lan1"
    box.wait(60)
    assert box.lines == ["trouble 7121 swapped"]


def test_what_does_not_last_is_told_to_nobody(box: Box) -> None:
    box.status.update(connected=True)
    box.wait(60)
    for _ in range(10):
        box.kernel.values["is_looping"] = True
        box.wait(10)
        box.kernel.values["is_looping"] = False
        box.wait(10)
    assert box.lines == []


def test_no_address_is_no_trouble_right_after_the_start(box: Box) -> None:
    box.kernel.values |= {"address": "", "gateway": ""}
    box.wait(40)
    assert box.lines == []
    box.wait(20)
    assert box.lines == ["trouble 7211 no-dhcp"]


def test_servers_are_tried_only_without_a_connection(box: Box) -> None:
    box.status.update(connected=True)
    box.wait(600)
    assert box.tries == 0
    box.status.update(connected=False)
    box.wait(300)
    assert 4 <= box.tries <= 5
    assert box.lines == ["trouble 8111 service-unreachable"]
    assert box.status.get().trouble_before == Trouble.SERVICE_UNREACHABLE
    box.status.update(connected=True)
    box.wait(20)
    assert box.status.get().trouble == 0
    assert box.status.get().trouble_before == Trouble.SERVICE_UNREACHABLE
    box.wait(40)
    assert box.status.get().trouble_before == 0
    assert box.noted[-1] == 0


def test_trouble_from_before_a_power_cut_is_told_at_the_next_connection(tmp_path: Path) -> None:
    box = Box(tmp_path, trouble_before=7311)
    assert box.status.get().trouble_before == 7311


def test_a_remark_does_not_make_the_lamp_blink(box: Box) -> None:
    box.status.update(connected=True)
    box.hop = "192.168.1.1"
    box.wait(90)
    assert box.lines == ["trouble 7331 double-router"]
    assert box.code == "0\n"
    assert box.status.get().trouble == Trouble.DOUBLE_ROUTER


def test_a_try_that_hangs_holds_up_nobody(box: Box) -> None:
    forever = threading.Event()

    def try_servers(_is_enrolled: bool) -> Mapping[str, Contact]:
        forever.wait(10)
        return {}

    box.worker._try_servers = try_servers
    began_s = time.monotonic()
    for _ in range(30):
        box.clock.monotonic_s += 5
        box.worker.step()
    assert time.monotonic() - began_s < 5
    forever.set()


def test_a_disk_that_takes_nothing_is_told_all_the_same(box: Box) -> None:
    box.config.paths.trouble.parent.rmdir()
    box.status.update(connected=True)
    box.kernel.port = "lan1"
    box.wait(60)
    assert box.lines == ["trouble 7121 swapped"]
