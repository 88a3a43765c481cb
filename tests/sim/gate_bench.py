"""The gate's two programs, run by the kernel on frames of a test (BPF_PROG_TEST_RUN), attached to nothing."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from omamori_agent.gate import Gate, layout
from omamori_agent.gate.bpf import BpfMap
from omamori_agent.gate.layout import ControlSlot, Counter, MapName, Mark, Role, Uninspected
from omamori_firmware.dataplane.build import OBJECT
from omamori_lab.native_wire import NativeLane
from omamori_lab.run import run
from sim.frames import OWN_MAC

UNSPEC, SHOT, REDIRECT = 0xFFFFFFFF, 2, 7
_SYSCALL_BPF, _PROG_TEST_RUN, _OBJ_GET = 321, 10, 7
# Where members of the kernel's struct __sk_buff are.
_SKB_BYTES, _SKB_MARK, _SKB_INGRESS_IFINDEX, _SKB_IFINDEX = 192, 8, 36, 40
_SKB_GSO_SEGS, _SKB_GSO_SIZE = 164, 176
_MAPS = {
    MapName.PORTS: (4, layout.PORT.size),
    MapName.FLOWS: (layout.FLOW_KEY.size, layout.FLOW.size),
    MapName.TERMINALS: (layout.TERMINAL_KEY.size, layout.TERMINAL.size),
    MapName.STATIONS: (layout.STATION_KEY.size, layout.STATION.size),
    MapName.CONTROL: (4, layout.CONTROL.size),
    MapName.CONFIG: (4, layout.CONFIG.size),
}
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a program made of a frame."""

    action: int
    mark: int
    frame: bytes


class Bench:
    """The two programs with their maps, and a box whose port numbers they run on.

    Args:
        directory: Has the directories `maps` and `programs` of pins.
        lane: Gives the namespace.
        ports: Interface numbers by name; the first letter says the side.
    """

    def __init__(self, directory: Path, lane: NativeLane, ports: dict[str, int]) -> None:
        self._lane = lane
        self.maps = directory / "maps"
        self.ports = ports
        self._programs = {name: _open_pin(directory / "programs" / name) for name in ("gate_ingress", "gate_egress")}
        self._open = {name: BpfMap(self.maps / name, *sizes) for name, sizes in _MAPS.items()}
        for name, number in ports.items():
            role = Role.WAN if name.startswith("wan") else Role.LAN
            self._open[MapName.PORTS].update(struct.pack("=I", number), layout.PORT.pack(role, 0))
        self.configure()
        self.gate = Gate(self.maps)
        self._is_inside = False

    def reset(self) -> None:
        """Empty every map, switch everything on."""
        self.configure()
        for slot in ControlSlot:
            self.control(slot, 0)
        self.block()
        self.gate.sync_exemptions()
        self.gate.drain_blocked()
        for name in (MapName.FLOWS, MapName.TERMINALS, MapName.STATIONS):
            list(self._open[name].take())

    def configure(
        self,
        *,
        flags: int = 7,
        single: bool = True,
        udp_idle_ns: int = 10**12,
        tcp_idle_ns: int = 10**12,
        station_idle_ns: int = 3 * 10**11,
    ) -> None:
        """Write the configuration, as the loader would; `single`: with one WAN and one LAN port."""
        peers = (self.ports["wan"], self.ports["lan1"]) if single else (0, 0)
        value = layout.CONFIG.pack(layout.ABI, flags, *peers, udp_idle_ns, tcp_idle_ns, station_idle_ns, OWN_MAC)
        self._open[MapName.CONFIG].update(bytes(4), value)

    def control(self, slot: ControlSlot, number: int) -> None:
        """Write a control slot."""
        self._open[MapName.CONTROL].update(slot.to_bytes(4, "little"), layout.CONTROL.pack(number))

    def lease(self, slot: ControlSlot, seconds: float) -> None:
        """Write a lease that ends in so many seconds."""
        self.control(slot, round((time.clock_gettime(time.CLOCK_BOOTTIME) + seconds) * 1e9))

    def ingress(
        self, frame: bytes, *, out: bool, mark: int = 0, port: str | None = None, segments: tuple[int, int] = (0, 0)
    ) -> Verdict:
        """Run the program of arriving frames.

        Args:
            frame: The frame.
            out: It goes out, so it arrives at lan1; else at wan.
            mark: Its mark.
            port: Another port.
            segments: How many the kernel has joined to it, and how much each carries.
        """
        number = self.ports[port or ("lan1" if out else "wan")]
        return self._run("gate_ingress", frame, {_SKB_IFINDEX: number, _SKB_MARK: mark}, segments)

    def egress(
        self,
        frame: bytes,
        *,
        out: bool,
        mark: int = Mark.BYPASS | Mark.INSPECTED,
        port: str | None = None,
        is_own: bool = False,
        segments: tuple[int, int] = (0, 0),
    ) -> Verdict:
        """Run the program of leaving frames; by default the engine has finished with the flow."""
        number = self.ports[port or ("wan" if out else "lan1")]
        came_by = 0 if is_own else self.ports["lan1" if out else "wan"]
        context = {_SKB_IFINDEX: number, _SKB_INGRESS_IFINDEX: came_by, _SKB_MARK: mark}
        return self._run("gate_egress", frame, context, segments)

    def inside(self, function: Callable[[], None]) -> None:
        """Run a function that sends very many frames: the box's namespace is entered once for all of them."""

        def run_inside() -> None:
            self._is_inside = True
            try:
                function()
            finally:
                self._is_inside = False

        self._lane.box.call(run_inside)

    def block(self, *addresses: str) -> None:
        """Make these the block list."""
        self.gate.sync_block([ipaddress.ip_network(address) for address in addresses])

    def flows(self) -> int:
        """Return how many flows are bypassed."""
        return len(list(self.gate.bypassed_flows()))

    def close(self) -> None:
        """Let go of everything."""
        self.gate.close()
        for one in self._open.values():
            one.close()
        for handle in self._programs.values():
            os.close(handle)

    def _run(self, program: str, frame: bytes, members: dict[int, int], segments: tuple[int, int]) -> Verdict:
        context = bytearray(_SKB_BYTES)
        for at, value in {**members, _SKB_GSO_SEGS: segments[0], _SKB_GSO_SIZE: segments[1]}.items():
            struct.pack_into("=I", context, at, value)
        if self._is_inside:
            return _test_run(self._programs[program], frame, bytes(context))
        return self._lane.box.call(lambda: _test_run(self._programs[program], frame, bytes(context)))


class Growth:
    """How counters grow from here on."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._counters, self._uninspected = gate.counters(), gate.uninspected()

    def counters(self) -> dict[Counter, int]:
        """Return the packets of the counters that have grown."""
        now = self._gate.counters()
        grown = {counter: now[counter].packets - self._counters[counter].packets for counter in Counter}
        return {counter: packets for counter, packets in grown.items() if packets}

    def uninspected(self) -> dict[Uninspected, tuple[int, int]]:
        """Return packets and bytes of the reasons that have grown."""
        now, then = self._gate.uninspected(), self._uninspected
        return {
            reason: (now[reason].packets - then[reason].packets, now[reason].bytes - then[reason].bytes)
            for reason in Uninspected
            if now[reason] != then[reason]
        }


@contextlib.contextmanager
def open_bench(programs: Path) -> Iterator[Bench]:
    """Load the gate from the directory that `build_gate` filled, into a box with two WAN and LAN ports."""
    lane = NativeLane(lan_ports=3)
    lane.start()
    mount = lane.directory / "bpf"
    mount.mkdir()
    run(["mount", "-t", "bpf", "bpf", mount], timeout_s=10)
    try:
        pins = mount / "t"
        for directory in (pins, pins / "maps"):
            directory.mkdir()
        gate = programs / OBJECT
        run(["bpftool", "prog", "loadall", gate, pins / "programs", "pinmaps", pins / "maps"], timeout_s=60)
        numbers = lane.box.call(lambda: {name: number for number, name in socket.if_nameindex()})
        bench = Bench(pins, lane, {name: numbers[name] for name in ("wan", "lan1", "lan2", "lan3")})
        try:
            yield bench
        finally:
            bench.close()
    finally:
        run(["umount", mount], timeout_s=10)
        lane.stop()


def _test_run(program: int, frame: bytes, context: bytes) -> Verdict:
    data_in = ctypes.create_string_buffer(frame, len(frame))
    data_out = ctypes.create_string_buffer(len(frame) + 256)
    context_in = ctypes.create_string_buffer(context, len(context))
    context_out = ctypes.create_string_buffer(len(context))
    head = (program, 0, len(frame), len(data_out), ctypes.addressof(data_in), ctypes.addressof(data_out), 1, 0)
    contexts = (len(context_in), len(context_out), ctypes.addressof(context_in), ctypes.addressof(context_out))
    attribute = ctypes.create_string_buffer(struct.pack("=IIIIQQIIIIQQIII", *head, *contexts, 0, 0, 0), 128)
    if _LIBC.syscall(_SYSCALL_BPF, _PROG_TEST_RUN, attribute, 128) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _, action, _, size = struct.unpack_from("=IIII", attribute.raw)
    (mark,) = struct.unpack_from("=I", context_out.raw, _SKB_MARK)
    return Verdict(action, mark, data_out.raw[:size])


def _open_pin(path: Path) -> int:
    name = ctypes.create_string_buffer(os.fsencode(path))
    attribute = ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(name), 0, 0), 128)
    handle = _LIBC.syscall(_SYSCALL_BPF, _OBJ_GET, attribute, 128)
    if handle < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(handle)
