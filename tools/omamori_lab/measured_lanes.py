"""The lanes that a bench compares: a bare bridge, the stock engine, and Omamori.

All are the same three namespaces (`native_wire`) with the same addresses, so that only what forwards differs. The
internet's address is none of the office's networks, because real rules say "from inside to outside".
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from omamori_firmware import enter

from .errors import LabError
from .load.generators import Ends
from .load.web_server import WebServer
from .native_wire import NativeLane
from .run import Process, end, run, spawn
from .waiting import wait_for

SERVER_IPV4 = "198.51.100.10"
FIRST_CLIENT = "192.168.10.100"
CLIENTS = 16
_LAN, _WAN = "lan1", "wan"
_QUEUES = "/proc/thread-self/net/netfilter/nfnetlink_queue"


def prepare(lane: NativeLane) -> None:
    """Give a started lane the addresses of a bench, and room for many short connections."""
    lane.internet.configure([f"addr add {SERVER_IPV4}/32 dev eth0"])
    head, _, first = FIRST_CLIENT.rpartition(".")
    addresses = [f"addr add {head}.{int(first) + number}/24 dev eth0" for number in range(CLIENTS)]
    lane.office.configure([*addresses, f"route add {SERVER_IPV4}/32 dev eth0"])
    for namespace in (lane.office, lane.internet):
        namespace.sysctl(ipv4__tcp_tw_reuse=1, ipv4__tcp_max_tw_buckets=200_000, core__somaxconn=4096)

        def widen() -> None:
            Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65000\n")

        namespace.call(widen)


def ends(lane: NativeLane, load_programs: Path) -> Ends:
    """Return who talks to whom in a prepared lane."""
    return Ends(
        office=lane.office,
        internet=lane.internet,
        server=SERVER_IPV4,
        first_client=FIRST_CLIENT,
        clients=CLIENTS,
        programs=load_programs,
        directory=lane.directory,
    )


@contextlib.contextmanager
def serving(lane: NativeLane) -> Iterator[WebServer]:
    """Run the web server of a prepared lane."""
    server = WebServer(lane.internet, lane.directory, SERVER_IPV4)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class UnbridgedLane(NativeLane):
    """A lane whose box does not forward by itself: what stands in it must."""

    def _join(self, ports: Sequence[str]) -> None:
        self.box.configure([f"link set {port} up promisc on" for port in ports])
        for port in ports:
            # The engine sends what it received, and a frame joined from several is too long to send.
            run(self.box.command(["ethtool", "-K", port, "gro", "off"]), timeout_s=10)


class StockEngine:
    """The engine as its Debian package configures it, copying packets between two ports.

    Its own `suricata.yaml` with only the `af-packet` part replaced (two ports, `copy-mode: ips`) and the places of
    files; the same rules as Omamori.

    Args:
        lane: Where it stands.
        program_tree: Debian tree that holds it.
        rules: File with its rules.
    """

    def __init__(self, lane: UnbridgedLane, program_tree: Path, rules: Path) -> None:
        self._lane = lane
        self._tree = program_tree
        self._rules = rules
        self._process: Process | None = None
        self._directory = lane.directory / "stock"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, timeout_s: float = 300.0) -> None:
        """Start it and wait until it forwards.

        Raises:
            LabError: It ended, or was not ready in time.
        """
        self._directory.mkdir(exist_ok=True)
        configuration = self._directory / "suricata.yaml"
        shipped = (self._tree / "etc/suricata/suricata.yaml").read_text(encoding="utf-8")
        configuration.write_text(stock_configuration(shipped, self._directory), encoding="utf-8")
        line: list[str | Path] = ["suricata", "-c", configuration, "--af-packet", "-l", self._directory]
        command = enter.command(
            self._tree,
            "tools",
            [self._directory, self._rules.parent],
            [*line, "-S", self._rules, "--pidfile", "/run/p"],
        )
        address = str(self._directory / "ready")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, (self._directory / "log").open("ab") as log:
            ready.bind(address)
            ready.settimeout(0.2)
            env = {"NOTIFY_SOCKET": address}
            self._process = spawn(self._lane.box.command(command), log=log, env=env)
            wait_for(
                lambda: self._is_told_ready(ready),
                "the stock engine",
                timeout_s=timeout_s,
                every_s=0.1,
                detail=self.tail,
            )

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process, grace_s=20)
            self._process = None

    def tail(self) -> str:
        """Return the last lines of its log."""
        return "\n".join((self._directory / "log").read_text(errors="replace").splitlines()[-12:])

    def _is_told_ready(self, ready: socket.socket) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise LabError(f"the stock engine ended:\n{self.tail()}")
        with contextlib.suppress(TimeoutError):
            return b"READY=1" in ready.recv(4096)
        return False


def stock_configuration(shipped: str, directory: Path) -> str:
    """Return the package's configuration with two ports to copy between, and sockets and logs in a directory.

    Raises:
        LabError: The package's file is not as expected.
    """
    text, count = re.subn(r"(?m)^af-packet:", "af-packet-of-the-package:", shipped)
    if count != 1:
        raise LabError("the engine's package has no af-packet part in its configuration")
    text = re.sub(r"(?m)^  filename: \S+/suricata-command\.socket$", f"  filename: {directory}/control", text)
    ports = "".join(
        f"  - interface: {port}\n    threads: auto\n    cluster-id: {number}\n    cluster-type: cluster_flow\n"
        f"    defrag: yes\n    use-mmap: yes\n    copy-mode: ips\n    copy-iface: {other}\n"
        for number, port, other in ((98, _LAN, _WAN), (99, _WAN, _LAN))
    )
    return f"{text}\naf-packet:\n{ports}"


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_s() -> float:
    """Return the processor time that everything on this machine has used, interrupts included, in seconds."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, name: str = "VmRSS") -> float:
    """Return a memory figure of a process (``VmRSS`` now, ``VmHWM`` at most) in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LabError(f"process {pid} has no {name}")


def queued(lane: NativeLane) -> tuple[int, int]:
    """Return how many packets a lane's queues have handed out, and how many they had no room for."""

    def read() -> tuple[int, int]:
        path = Path(_QUEUES)
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        # Columns: queue, port, waiting, copy mode, copy range, dropped (full), dropped (user), last id, 1
        return sum(int(row[7]) for row in rows), sum(int(row[5]) + int(row[6]) for row in rows)

    return lane.box.call(read)
