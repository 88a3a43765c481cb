"""The plan as files of the image (`firmware/wire`): settings, packet filter rules, and the unit that installs them.

The files are committed, so that a reader of the image finds them in the repository; a test compares them with what
this module renders. `python -m omamori_firmware.dataplane.box` rewrites them.

Rules for the unit: it runs before anything that could fail, it has no shell, and a step that fails never keeps the
others from being tried. The last two steps only look; their failure marks the unit as failed and stops nothing.
"""

from pathlib import Path

from omamori_firmware.dataplane.plan import PLAN, WirePlan
from omamori_firmware.recipe import source_tree

_NOTE = "# Written by omamori_firmware.dataplane.box from the wire plan; do not edit.\n"
_HOME = "/usr/lib/omamori"


def render(plan: WirePlan) -> dict[str, str]:
    """Return the files of `firmware/wire`: name to content."""
    return {
        "wire.sysctl": _settings(plan),
        "wire.nft": _rules(plan),
        "omamori-wire.service": _unit(plan),
    }


def write(plan: WirePlan, directory: Path) -> None:
    """Write the files into a directory."""
    for name, content in render(plan).items():
        (directory / name).write_text(content, encoding="utf-8")


def _settings(plan: WirePlan) -> str:
    return _NOTE + "".join(f"net.bridge.{name} = 1\n" for name in plan.settings)


def _rules(plan: WirePlan) -> str:
    waiting, inspected = plan.mark_waiting, plan.mark_inspected
    return f"""\
{_NOTE}# Bridged packets reach the inet family through br_netfilter. `bypass`: without an engine the kernel accepts. No
# `fanout`: it would spread one flow over several queues. Nothing here needs connection tracking.
#
# The engine answers "repeat", so what it lets through begins again at the top, and only that: a packet that met no
# engine or a full queue goes on behind the queue and keeps {waiting:#x}. So inspected packets are told from others.
table inet omamori
delete table inet omamori
table inet omamori {{
	chain passed {{
		counter meta mark set meta mark & {0xFFFFFFFF & ~waiting:#x} | {inspected:#x} accept
	}}
	chain inspect {{
		meta mark & {waiting:#x} != 0x0 goto passed comment "the engine has let it through"
		meta mark & {plan.marks:#x} != 0x0 counter accept comment "the gate wants no look at it"
		meta mark set meta mark | {waiting:#x}
		counter queue flags bypass to {plan.first_queue}-{plan.last_queue}
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		jump inspect
	}}
	# The box's own traffic, except what it says to itself and what is forwarded to others anyway (groups).
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "{plan.bridge}" meta pkttype host jump inspect
	}}
	chain output {{
		type filter hook output priority filter; policy accept;
		oifname "{plan.bridge}" jump inspect
	}}
}}
"""


def _unit(plan: WirePlan) -> str:
    loader = f"{_HOME}/gate/omamori-wire"
    where = f"--pins {plan.pin_directory} --bridge {plan.bridge}"
    return f"""\
{_NOTE}[Unit]
Description=Gate and queue on the wire
# The bridge forwards since the initrd. This only adds inspection, so it may fail without stopping the office.
DefaultDependencies=no
After=systemd-modules-load.service systemd-sysctl.service
Before=sysinit.target network-pre.target omamori-engine.service omamori-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=30
ExecStart=-/usr/sbin/modprobe --all {" ".join(plan.modules)}
ExecStart=-/usr/lib/systemd/systemd-sysctl {_HOME}/wire/wire.sysctl
ExecStart=-{loader} install --object {_HOME}/gate/gate.bpf.o {where} --group {plan.group}
ExecStart=-/usr/sbin/nft --file {_HOME}/wire/wire.nft
ExecStart={loader} check {where}
ExecStart=/usr/sbin/nft list chain inet omamori inspect

[Install]
WantedBy=sysinit.target
"""


if __name__ == "__main__":
    write(PLAN, source_tree().wire)
