"""The supervisor's relay moves a real wire: office and internet as namespaces, a bridge as the box, 1 kHz of probes.

The probes are judged by what a user would notice; how long each failure interrupts is printed, and bounded generously,
because this machine may be busy.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.dataplane.build import HERALD
from omamori_firmware.supervisor_machine import SupervisorMachine
from omamori_hw.supervisor.messages import BoxState
from omamori_lab.journal import Journal
from omamori_lab.load.generators import Ends
from omamori_lab.load.probe import Probe, Report
from omamori_lab.load.programs import obtain_load_programs
from omamori_lab.namespace import Namespace
from omamori_lab.native_wire import obtain_programs
from omamori_lab.run import Process, end, spawn
from omamori_lab.serial_cable import SerialCable
from omamori_lab.wire_relay import BOX_LAN, BOX_WAN, INTERNET, OFFICE, Follower, WireRelay
from rig.conftest import talking, wait_for

OFFICE_IPV4, INTERNET_IPV4 = "192.168.10.11", "192.168.10.1"
LEASE_MS = 150
# What a machine under load may take; the figures of an idle one are ten times smaller.
MAX_MS = 5000


class Town:
    """Office, internet, a box between them that is nothing but a bridge, and the relay's cables."""

    def __init__(self, directory: Path, supervisor: SupervisorMachine) -> None:
        self._stack = contextlib.ExitStack()
        journal = Journal(directory)
        self._stack.callback(journal.close)
        self.supervisor = supervisor
        self.directory = directory
        names = ("office", "internet", "box", "patch")
        self.office, self.internet, self.box, self.patch = (Namespace(journal, name) for name in names)
        self.wire = WireRelay(self.patch)
        self.follower = Follower(self.wire, supervisor.through)

    def __enter__(self) -> Self:
        for namespace in (self.office, self.internet, self.box, self.patch):
            self._stack.callback(namespace.delete)
            namespace.create()
        self.wire.cable(OFFICE, self.office, "eth0")
        self.wire.cable(INTERNET, self.internet, "eth0")
        self.wire.cable(BOX_LAN, self.box, "lan1")
        self.wire.cable(BOX_WAN, self.box, "wan")
        self.wire.start()
        for namespace, address in ((self.office, OFFICE_IPV4), (self.internet, INTERNET_IPV4)):
            namespace.configure([f"address add {address}/24 dev eth0", "link set eth0 up"])
        self.box.configure(
            ["link add br0 type bridge stp_state 0 forward_delay 0"]
            + [f"link set {port} master br0" for port in ("lan1", "wan")]
            + [f"link set {port} up" for port in ("lan1", "wan", "br0")]
        )
        self._stack.enter_context(self.follower.following())
        return self

    def __exit__(self, *unused: object) -> None:
        self._stack.close()

    def hang(self) -> None:
        """Let the box forward nothing any more."""
        self.box.configure(["link set br0 down"])

    def recover(self) -> None:
        self.box.configure(["link set br0 up"])

    @contextlib.contextmanager
    def probed(self, name: str, reports: dict[str, Report]) -> Iterator[None]:
        ends = Ends(
            office=self.office,
            internet=self.internet,
            server=INTERNET_IPV4,
            first_client=OFFICE_IPV4,
            clients=1,
            programs=obtain_load_programs(Cache(default_directory())),
            directory=self.directory,
        )
        probe = Probe(ends, name, kind="udp", port=7300, rate=1000, size=64, is_answered=True)
        probe.start()
        try:
            yield
            reports[name] = probe.stop()
        finally:
            probe.abandon()

    def crossed(self) -> int:
        """Return how many frames came to the box from the office."""
        text = self.box.call(lambda: Path("/proc/thread-self/net/dev").read_text())
        line = next(row for row in text.splitlines() if row.strip().startswith("lan1:"))
        return int(line.split(":")[1].split()[1])


@pytest.fixture
def town(supervisor: SupervisorMachine, tmp_path: Path) -> Iterator[Town]:
    (tmp_path / "town").mkdir()
    with Town(tmp_path / "town", supervisor) as made:
        yield made


class Herald:
    """The box's own program in the box's namespace, and the line to the supervisor."""

    def __init__(self, town: Town, directory: Path) -> None:
        self._town = town
        self._directory = directory
        self.cable = SerialCable(directory / "line", town.supervisor.config.link)
        self._process: Process | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        programs, _ = obtain_programs()
        self._stack.enter_context(self.cable.lying())
        # `ip netns exec` shows it the namespace's own ports below /sys.
        line: list[str | Path] = ["ip", "netns", "exec", self._town.box.name, programs / HERALD]
        line += ["--device", self.cable.box, "--lease-ms", str(LEASE_MS), "--processor-ms", "5000"]
        line += ["--state", self._directory / "state.json", "--watch", self._directory / "none"]
        with (self._directory / "herald.log").open("ab") as log:
            self._process = spawn(line, log=log)
        return self

    def __exit__(self, *unused: object) -> None:
        self.signal(signal.SIGCONT)
        assert self._process is not None
        end(self._process)
        self._stack.close()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def told_s(self) -> int:
        """How long the wire led past the box, as the supervisor has told."""
        wait_for("what the supervisor tells", lambda: self.state()["past_s"] is not None)
        return int(self.state()["past_s"])

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self._directory / "state.json").read_text()))


def test_nobody_is_cut_off_for_long(town: Town, tmp_path: Path) -> None:
    reports: dict[str, Report] = {}

    def through(*, wanted: bool) -> None:
        wait_for(f"the wire, through={wanted}", lambda: town.wire.through == wanted)

    town.hang()  # a box without supply forwards nothing
    with Herald(town, tmp_path) as herald:
        with town.probed("power-on", reports):
            assert not town.wire.through
            before = town.crossed()
            town.recover()
            wait_for("probes through the box", lambda: town.crossed() > before + 100)
        told_s, moved = herald.told_s(), len(town.follower.moves)
        with town.probed("hung box", reports):
            before = town.crossed()
            wait_for("probes through the box", lambda: town.crossed() > before + 100)
            herald.signal(signal.SIGSTOP)
            town.hang()
            through(wanted=False)
        town.recover()
        herald.signal(signal.SIGCONT)
        through(wanted=True)
        with town.probed("line noise", reports):
            herald.cable.noise = 0.01
            moves = len(town.follower.moves)
            wait_for("a move, or none for a while", lambda: len(town.follower.moves) > moves, 3.0, is_required=False)
            herald.cable.noise = 0.0
        through(wanted=True)
        with town.probed("supervisor stands still", reports):
            town.supervisor.qmp("stop")
            wait_for("the herald to notice", lambda: not herald.state()["is_up"])
            assert town.wire.through
            town.supervisor.qmp("cont")
            wait_for("an answer", lambda: herald.state()["is_up"])
        through(wanted=True)
        # The ledger stands on this sum; the next reset begins it anew.
        pairs = itertools.pairwise(town.follower.moves[moved - 1 :])
        past_s = sum(after.at_s - before.at_s for before, after in pairs if after.through)
        wait_for("the same sum", lambda: abs(herald.told_s() - told_s - past_s) <= 2)
        with town.probed("supervisor reset", reports):
            town.supervisor.qmp("system_reset")
            through(wanted=False)
            through(wanted=True)
        with town.probed("announced restart", reports):
            herald.signal(signal.SIGTERM)
            through(wanted=False)
            town.hang()
    print({name: (report.interruption_ms, report.lost, report.sent) for name, report in reports.items()})
    assert all(report.interruption_ms <= MAX_MS for report in reports.values())
    assert all(left.through != right.through for left, right in itertools.pairwise(town.follower.moves))


def test_the_owners_button(town: Town) -> None:
    reports: dict[str, Report] = {}
    with talking(town.supervisor) as (link, _):
        link.say(BoxState.FORWARDING)
        wait_for("the wire through the box", lambda: town.wire.through)
        with town.probed("button", reports):
            town.supervisor.button(pressed=True)
            wait_for("the wire past the box", lambda: not town.wire.through)
            town.supervisor.button(pressed=False)
        assert reports["button"].interruption_ms <= MAX_MS
