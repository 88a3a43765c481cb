"""What the wire of a box consists of, as one value.

It holds decisions, not mechanisms: `box` and `native` install it. Numbers shared with the gate (marks) are checked
against `firmware/gate/omamori_gate.h` by a test, those shared with the engine against its configuration.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class WirePlan:
    """The wire of one box.

    Attributes:
        bridge: Name of the bridge; its ports are the box's ports.
        first_queue: First queue to the engine.
        last_queue: Last queue; the kernel spreads flows over all of them, both directions of a flow to the same.
        queue_length: Packets that one queue holds; the engine asks for four times its `max-pending-packets`.
        mark_bypass: Mark bit of the engine's verdict "finished with this flow".
        mark_skip: Mark bit of the gate "let this packet pass the queue by".
        mark_inspected: Mark bit of a packet that the engine has seen and let through.
        mark_waiting: Mark bit that our rules set before the queue and change to `mark_inspected` after it. A packet
            that leaves with it met no engine, or a full queue.
        group_forward_mask: Which of the sixteen link-local group addresses the bridge forwards like any other (bit n:
            01-80-C2-00-00-0n). All but the first three, which the kernel never lets one set; STP passes because
            the bridge does not speak it.
        modules: Kernel modules, loaded in this order.
        settings: Kernel settings below net/bridge that must all be 1. Without the first two the queue rule never
            sees a bridged packet; without the others it misses IP inside VLAN tags and PPPoE.
        engine_unit: The service manager's unit of the engine.
        pin_directory: Where the gate's maps are.
        group: May use the maps.
    """

    bridge: str
    first_queue: int
    last_queue: int
    queue_length: int
    mark_bypass: int
    mark_skip: int
    mark_inspected: int
    mark_waiting: int
    group_forward_mask: int
    modules: tuple[str, ...]
    settings: tuple[str, ...]
    engine_unit: str
    pin_directory: PurePosixPath
    group: str

    @property
    def marks(self) -> int:
        """Marks of a packet that is decided: it is not queued."""
        return self.mark_bypass | self.mark_skip | self.mark_inspected


PLAN = WirePlan(
    bridge="br0",
    first_queue=0,
    last_queue=1,
    queue_length=4096,
    mark_bypass=0x1,
    mark_skip=0x2,
    mark_inspected=0x4,
    mark_waiting=0x8,
    group_forward_mask=0xFFF8,
    modules=("br_netfilter", "nfnetlink_queue", "nf_tables", "nft_queue", "sch_ingress", "cls_bpf"),
    settings=(
        "bridge-nf-call-iptables",
        "bridge-nf-call-ip6tables",
        "bridge-nf-filter-vlan-tagged",
        "bridge-nf-filter-pppoe-tagged",
    ),
    engine_unit="omamori-engine.service",
    pin_directory=PurePosixPath("/sys/fs/bpf/omamori"),
    group="omamori",
)
