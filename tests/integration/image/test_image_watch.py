"""The watch in the real image: under its sandbox, with the kernel's own queues, the service manager and a button."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from omamori_lab.waiting import wait_for

pytestmark = [pytest.mark.image, pytest.mark.root, pytest.mark.timeout(600)]

_BOUNCE_S = 1.5  # a second press that comes at once is a bouncing contact
# The box says something itself, to nobody; as everything it says, it has to pass the queue.
OWN_PACKET = (
    'python3 -c "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); '
    "s.sendto(b'x', ('ff02::1', 9, 0, socket.if_nametoindex('br0')))\""
)


def test_hung_engine_is_ended_and_the_button_is_heard(boot, disk: tuple[Path, Path]) -> None:  # type: ignore[no-untyped-def]
    box = boot(*disk)
    box.wait(r"omamori: release version=")
    box.shell("systemctl is-system-running --wait", timeout_s=150)

    def state() -> dict[str, Any]:
        return dict(json.loads(box.shell("cat /run/omamori/watch/state.json")))

    def main_process() -> str:
        return str(box.shell("systemctl show --value -p MainPID omamori-engine")).strip()

    assert box.shell("systemctl is-active omamori-watch") == "active\n"
    assert state()["button"], box.shell("journalctl --no-pager -u omamori-watch")

    # This machine has no supervisor: the herald finds that out and ends, which is no failure.
    wait_for(lambda: box.shell("systemctl is-active omamori-herald") == "inactive\n", "end of the herald", timeout_s=90)
    assert "no supervisor" in box.shell("journalctl --no-pager -u omamori-herald")

    box.machine.qmp("system_powerdown")
    wait_for(lambda: state()["button_until_ns"], "everything passes", timeout_s=60)
    time.sleep(_BOUNCE_S)
    box.machine.qmp("system_powerdown")
    wait_for(lambda: not state()["button_until_ns"], "inspecting again", timeout_s=60)
    assert state()["presses"] == 2
    assert box.machine.qmp("query-status")["status"] == "running"

    before, kills = main_process(), state()["kills"]
    box.shell(f"kill -STOP {before}")
    box.shell(f"for n in 1 2 3 4; do {OWN_PACKET}; done")
    wait_for(lambda: state()["kills"] > kills, "kill", timeout_s=60)
    wait_for(lambda: main_process() not in {"0", before}, "another engine", timeout_s=60)
    wait_for(lambda: box.shell("systemctl is-active omamori-engine") == "active\n", "it inspects", timeout_s=120)
    assert "killed the engine" in box.shell("journalctl --no-pager -u omamori-watch")

    pauses = state()["pauses"]
    box.shell("systemctl restart omamori-engine", timeout_s=120)
    assert state()["pauses"] == pauses + 1
    assert box.shell("systemctl is-active omamori-engine") == "active\n"
