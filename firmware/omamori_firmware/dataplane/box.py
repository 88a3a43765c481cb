"""The plan as files of the image (`firmware/wire`): settings, packet filter rules, and the units of the wire.

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
        "omamori-watch.service": _watch_unit(plan),
        "omamori-herald.service": _herald_unit(plan),
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
StartLimitIntervalSec=600
StartLimitBurst=3
Before=sysinit.target network-pre.target omamori-engine.service omamori-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=30
# Every step may be repeated. Few times, because the agent is started again with it.
Restart=on-failure
RestartSec=5
ExecStart=-/usr/sbin/modprobe --all {" ".join(plan.modules)}
ExecStart=-/usr/lib/systemd/systemd-sysctl {_HOME}/wire/wire.sysctl
ExecStart=-{loader} install --object {_HOME}/gate/gate.bpf.o {where} --group {plan.group}
ExecStart=-/usr/sbin/nft --file {_HOME}/wire/wire.nft
ExecStart={loader} check {where}
ExecStart=/usr/sbin/nft list chain inet omamori inspect

[Install]
WantedBy=sysinit.target
"""


def _watch_unit(plan: WirePlan) -> str:
    options = [
        f"--control {plan.pin_directory}/control",
        f"--processes /sys/fs/cgroup/system.slice/{plan.engine_unit}/cgroup.procs",
        f"--queues {plan.first_queue}-{plan.last_queue}",
        f"--queue-length {plan.queue_length}",
        "--state /run/omamori/watch/state.json",
        "--button=${BUTTON}",
        "--hold-ms=${BUTTON_HOLD_MS}",
    ]
    return f"""\
{_NOTE}[Unit]
Description=Watch over the engine, and the button of the board
# It is the answer to a failure, so it depends on nothing.
After=omamori-wire.service
Before={plan.engine_unit}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
Environment=BUTTON= BUTTON_HOLD_MS=0 BUTTON_MODULES=
EnvironmentFile=-{_HOME}/board.env
ExecStartPre=+-/usr/sbin/modprobe --all $BUTTON_MODULES
ExecStart={_HOME}/gate/omamori-watch {" ".join(options)}
Restart=always
RestartSec=0.1
WatchdogSec=5
TimeoutStopSec=2

# It has to run exactly when nothing else does, and the time it takes is next to none.
CPUSchedulingPolicy=fifo
CPUSchedulingPriority=10
OOMScoreAdjust=-900
MemoryMax=16M
LimitMEMLOCK=16M
LimitCORE=0
TasksMax=4

# Root owns the table of queues and the button's device; of root's powers it keeps one, to end the engine.
CapabilityBoundingSet=CAP_KILL
NoNewPrivileges=yes
RuntimeDirectory=omamori/watch
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=restart
UMask=0022

DevicePolicy=closed
DeviceAllow=char-input r
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateIPC=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @mount @obsolete
SystemCallFilter=bpf
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def _herald_unit(plan: WirePlan) -> str:
    options = [
        "--device=${SUPERVISOR}",
        "--version=${IMAGE_VERSION}",
        "--lease-ms=${SUPERVISOR_LEASE_MS}",
        "--boot-s=${SUPERVISOR_BOOT_S}",
        "--silence-s=${SUPERVISOR_SILENCE_S}",
        "--resets=${SUPERVISOR_RESETS}",
        f"--bridge {plan.bridge}",
        "--watch /run/omamori/watch/state.json",
        "--state /run/omamori/supervisor/state.json",
        "--code /run/omamori/agent/code",
        "--result /run/omamori/firmware/result",
        "--update /run/omamori/firmware/reboot",
    ]
    return f"""\
{_NOTE}[Unit]
Description=Reports to the supervisor, on machines that have one
# It earns the wire as early as what passes is counted, and says farewell before anything else ends.
DefaultDependencies=no
After=omamori-wire.service
Before=shutdown.target
Conflicts=shutdown.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
Environment=SUPERVISOR= SUPERVISOR_LEASE_MS=150 SUPERVISOR_BOOT_S=600 SUPERVISOR_SILENCE_S=60 SUPERVISOR_RESETS=3
EnvironmentFile=-/usr/lib/os-release
EnvironmentFile=-{_HOME}/board.env
ExecStart={_HOME}/gate/omamori-herald {" ".join(options)}
# Where there is no supervisor it ends by itself, with success.
Restart=on-failure
RestartSec=0.1
WatchdogSec=5
TimeoutStopSec=3

# Late words cost the wire; the time they take is next to none.
CPUSchedulingPolicy=fifo
CPUSchedulingPriority=11
OOMScoreAdjust=-900
MemoryMax=16M
LimitMEMLOCK=16M
LimitCORE=0
TasksMax=72

# Root owns the table of queues and the line; of root's powers none is needed. The group reads what the agent leaves.
Group=omamori
CapabilityBoundingSet=
NoNewPrivileges=yes
RuntimeDirectory=omamori/supervisor
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
UMask=0022

DevicePolicy=closed
DeviceAllow=char-ttyS rw
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyACM rw
ProtectSystem=strict
ProtectHome=yes
PrivateIPC=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @mount @obsolete
# One thread for each processor, to see that it runs.
SystemCallFilter=sched_setaffinity
SystemCallErrorNumber=EPERM

[Install]
WantedBy=sysinit.target
"""


if __name__ == "__main__":
    write(PLAN, source_tree().wire)
