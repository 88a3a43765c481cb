"""The plan in a network namespace of this machine, for tests and benches without QEMU.

The gate, its loader and the settings are the box's own. Only the queue rule is written differently: kernels of
development machines may lack nft's `queue`, so the same rule is made with iptables' NFQUEUE.
"""

from pathlib import Path

from omamori_firmware.dataplane.build import LOADER, OBJECT
from omamori_firmware.dataplane.plan import WirePlan
from omamori_firmware.run import run

_TIMEOUT_S = 30.0
_HINT = "it needs root and a kernel with NFQUEUE and br_netfilter"


class NativeWire:
    """The wire of a box whose ports and bridge already exist in a namespace.

    Args:
        plan: What to install.
        namespace: The namespace's file.
        programs: Directory that `build_gate` filled.
        directory: An empty directory of ours; a BPF file system is mounted in it.
    """

    def __init__(self, plan: WirePlan, namespace: Path, programs: Path, directory: Path) -> None:
        self._plan = plan
        self._namespace = namespace
        self._programs = programs
        self._mount_point = directory / "bpf"
        self._is_mounted = False

    @property
    def pins(self) -> Path:
        """Where the gate's maps are pinned."""
        return self._mount_point / "omamori"

    def install(self) -> None:
        """Install settings, queue rule and gate, and check them.

        Raises:
            ToolError: A step failed, or the result is not as planned.
        """
        self._inside(["sysctl", "-q", "-w", *(f"net.bridge.{name}=1" for name in self._plan.settings)])
        for program in ("iptables-nft-restore", "ip6tables-nft-restore"):
            self._inside([program], input_bytes=queue_rules(self._plan).encode())
        self._mount_point.mkdir(exist_ok=True)
        run(["mount", "-t", "bpf", "bpf", self._mount_point], timeout_s=_TIMEOUT_S, hint=_HINT)
        self._is_mounted = True
        self.refresh()

    def refresh(self) -> None:
        """Run the loader again, as after a change of ports.

        Raises:
            ToolError: It failed, or the result is not as planned.
        """
        loader = self._programs / LOADER
        where: list[str | Path] = ["--pins", self.pins, "--bridge", self._plan.bridge]
        self._inside([loader, "install", "--object", self._programs / OBJECT, *where])
        self._inside([loader, "check", *where])

    def remove(self) -> None:
        """Let go of the maps; rules and programs vanish with the namespace."""
        if self._is_mounted:
            run(["umount", self._mount_point], timeout_s=_TIMEOUT_S)
            self._is_mounted = False

    def _inside(self, argv: list[str | Path], *, input_bytes: bytes | None = None) -> None:
        line = ["nsenter", f"--net={self._namespace}", "--", *argv]
        run(line, timeout_s=_TIMEOUT_S, input_bytes=input_bytes, hint=_HINT)


def queue_rules(plan: WirePlan) -> str:
    """Return the queue rules for iptables-restore; they say the same as `wire.nft`."""
    waiting, inspected = plan.mark_waiting, plan.mark_inspected
    return (
        "*filter\n"
        ":INPUT ACCEPT [0:0]\n"
        ":FORWARD ACCEPT [0:0]\n"
        ":OUTPUT ACCEPT [0:0]\n"
        ":INSPECT - [0:0]\n"
        ":PASSED - [0:0]\n"
        f"-A PASSED -j MARK --set-xmark {inspected:#x}/{waiting | inspected:#x}\n"
        "-A PASSED -j ACCEPT\n"
        f"-A INSPECT -m mark --mark {waiting:#x}/{waiting:#x} -j PASSED\n"
        f"-A INSPECT -m mark ! --mark 0x0/{plan.marks:#x} -j ACCEPT\n"
        f"-A INSPECT -j MARK --set-xmark {waiting:#x}/{waiting:#x}\n"
        f"-A INSPECT -j NFQUEUE --queue-balance {plan.first_queue}:{plan.last_queue} --queue-bypass\n"
        "-A FORWARD -j INSPECT\n"
        f"-A INPUT -i {plan.bridge} -m pkttype --pkt-type unicast -j INSPECT\n"
        f"-A OUTPUT -o {plan.bridge} -j INSPECT\n"
        "COMMIT\n"
    )
