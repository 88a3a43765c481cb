"""An office, a box and an internet as three namespaces with veth pairs, without QEMU.

The box has the product's bridge, gate, queue and engine configuration, installed by the same code and from the same
files as in the image (`omamori_firmware.dataplane`); only the operating system around them is this machine's. For
benches and for tests of the data plane. Everything it makes is gone after `stop`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.dataplane import PLAN
from omamori_firmware.dataplane.build import obtain_gate
from omamori_firmware.dataplane.engine import NativeEngine, obtain_engine_tree
from omamori_firmware.dataplane.native import NativeWire
from omamori_firmware.recipe import source_tree

from .journal import Journal
from .namespace import Namespace
from .run import run

OFFICE_IPV4, INTERNET_IPV4 = "192.168.10.11", "192.168.10.1"
OFFICE_IPV6, INTERNET_IPV6 = "fd00:10::11", "fd00:10::1"
_BARE_MTU = 1500
# As the initrd of the image sets them.
BRIDGE_OPTIONS = f"stp_state 0 forward_delay 0 mcast_snooping 0 group_fwd_mask {PLAN.group_forward_mask}"


class NativeLane:
    """Three namespaces in a row: `office` - `box` (a bridge) - `internet`.

    Args:
        lan_ports: How many LAN ports the box has; the office is behind the first, `lan1`.
    """

    def __init__(self, *, lan_ports: int = 1) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="omw-"))
        self._lan_ports = lan_ports
        self._cleaning = contextlib.ExitStack()
        self._cleaning.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._journal = Journal(self.directory)
        self._cleaning.callback(self._journal.close)
        self.office = Namespace(self._journal, "office")
        self.box = Namespace(self._journal, "box")
        self.internet = Namespace(self._journal, "internet")
        self.extra: dict[str, Namespace] = {}
        self.wire: NativeWire | None = None
        self.engine: NativeEngine | None = None

    def start(self) -> None:
        """Make the namespaces and the bare bridge; frames pass from now on."""
        try:
            self._build()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Remove everything."""
        if self.engine is not None:
            self.engine.stop()
            self.engine = None
        if self.wire is not None:
            self.wire.remove()
            self.wire = None
        self._cleaning.close()

    def add_namespace(self, role: str) -> Namespace:
        """Make one more namespace, for example a host behind the internet's router; it ends with the lane.

        Args:
            role: Its name in `extra`.
        """
        made = Namespace(self._journal, role)
        self._cleaning.callback(made.delete)
        made.create()
        self.extra[role] = made
        return made

    def install_wire(self, programs: Path) -> NativeWire:
        """Put gate and queue on the bridge.

        Args:
            programs: Directory that `build_gate` filled.
        """
        self.wire = NativeWire(PLAN, self.box.path, programs, self.directory)
        self.wire.install()
        return self.wire

    def prepare_engine(self, program_tree: Path, feed: Path) -> NativeEngine:
        """Return the engine of this box, not started.

        Args:
            program_tree: Debian tree that holds the engine.
            feed: Unpacked feed directory.
        """
        self.engine = NativeEngine(PLAN, self.box.path, program_tree, source_tree(), feed, self.directory)
        return self.engine

    def _build(self) -> None:
        for namespace in (self.office, self.box, self.internet):
            self._cleaning.callback(namespace.delete)
            namespace.create()
        self._cable(self.office, "eth0", "lan1")
        self._cable(self.internet, "eth0", "wan")
        for number in range(2, self._lan_ports + 1):
            self._cable(self.internet, f"spare{number}", f"lan{number}")
        ports = ["wan", *(f"lan{number}" for number in range(1, self._lan_ports + 1))]
        self._join(ports)
        self.box.sysctl(ipv6__conf__all__disable_ipv6=1)
        self.box.call(_leave_to_the_bridge)
        self._address(self.office, OFFICE_IPV4, OFFICE_IPV6)
        self._address(self.internet, INTERNET_IPV4, INTERNET_IPV6)

    def _join(self, ports: Sequence[str]) -> None:
        """Make the box forward between its ports: a bare kernel bridge, as the initrd makes it."""
        bridge = PLAN.bridge
        self.box.configure(
            [f"link add {bridge} type bridge {BRIDGE_OPTIONS}"]
            + [f"link set {port} master {bridge}" for port in ports]
            + [f"link set {port} up" for port in (*ports, bridge)]
        )

    def _cable(self, host: Namespace, end: str, port: str) -> None:
        line = ["ip", "link", "add", end, "netns", host.name, "mtu", str(_BARE_MTU)]
        run([*line, "type", "veth", "peer", "name", port, "netns", self.box.name], timeout_s=10)
        # True 1500-byte frames with checksums leave the hosts, as from a cable; the box may join them again (GRO).
        self._ethtool(host, end, ["tso", "off", "gso", "off", "gro", "on", "tx", "off"])
        self._ethtool(self.box, port, ["gro", "on"])

    @staticmethod
    def _ethtool(namespace: Namespace, interface: str, features: Sequence[str]) -> None:
        run(namespace.command(["ethtool", "-K", interface, *features]), timeout_s=10)

    @staticmethod
    def _address(host: Namespace, ipv4: str, ipv6: str) -> None:
        commands = [f"addr add {ipv4}/24 dev eth0", f"addr add {ipv6}/64 dev eth0 nodad", "link set eth0 up"]
        host.configure(commands)


def _leave_to_the_bridge() -> None:
    """Switch br_netfilter off: where its module is loaded, a new namespace has it on, and its bridge is not bare."""
    for setting in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
        setting.write_text("0\n")


def obtain_programs() -> tuple[Path, Path]:
    """Return the directory of gate and loader, and the tree with the engine; both are made when they are not cached."""
    cache = Cache(default_directory())
    tree = source_tree()
    return obtain_gate(tree, cache), obtain_engine_tree(tree, cache)
