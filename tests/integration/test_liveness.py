"""The agent as a process, a real broker, the cloud as a process: why the box was away, as the cloud tells it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.box import CLAIM, DEVICE
from sim.enrolment import SimulatedEnrolment, enrolment_server

from .agent_site import Site
from .cloud_rig import Rig, running_rig, wait_for

pytestmark = pytest.mark.timeout(240)

SETTINGS = "[liveness]\nevery_s = 1\nblink_s = 2\nnotice_after_s = 300\n"
PATIENCE_S = 60.0


class Cable:
    """A TCP proxy on the loopback that can be pulled out, with all that it carries, and plugged in again."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: set[socket.socket] = set()
        self._is_out = False
        self._lock = threading.Lock()
        self.port = int(self._listener.getsockname()[1])
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def pull(self) -> None:
        with self._lock:
            self._is_out = True
            ends, self._ends = self._ends, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def plug(self) -> None:
        with self._lock:
            self._is_out = False

    def close(self) -> None:
        self.pull()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(10)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                with self._lock:
                    is_out = self._is_out
                if is_out:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._ends |= {near, far}
                threading.Thread(target=self._serve, args=(near, far), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
        back.start()
        self._carry(near, far)
        back.join()
        near.close()
        far.close()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Office:
    """A box on a cable, and what the cloud says about it."""

    def __init__(self, rig: Rig, site: Site, cable: Cable) -> None:
        self.rig = rig
        self.site = site
        self.cable = cable
        self._boots = 0

    def power_on(self) -> None:
        """Start the agent as the first one of a new run of the kernel."""
        self._boots += 1
        self.site.paths.boot_id.write_text(f"00000000-0000-4000-8000-{self._boots:012}\n")
        (self.site.paths.proc / "uptime").write_text("0.40 0.40\n")
        self.site.start()

    def await_online(self) -> None:
        wait_for(lambda: self.rig.cloud.box(DEVICE).get("online"), f"the box\n{self.site.log()}", within_s=PATIENCE_S)

    def outages(self) -> list[dict[str, Any]]:
        return list(self.rig.cloud.get(f"/api/v1/outages?device={DEVICE}")["outages"])

    def await_end(self, number: int) -> dict[str, Any]:
        """Return the newest of `number` absences once it is over."""

        def look() -> dict[str, Any] | None:
            found = self.outages()
            return found[0] if len(found) == number and found[0]["end"] is not None else None

        return dict(wait_for(look, f"absence {number} to be over: {self.outages()}", within_s=PATIENCE_S))


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with running_rig(tmp_path, extra="") as rig, contextlib.ExitStack() as stack:
        rig.cloud.stop()
        rig.cloud.config.write_text(rig.cloud.config.read_text() + SETTINGS)
        rig.cloud.start()
        enrolment = SimulatedEnrolment(rig.pki.devices, {DEVICE: CLAIM})
        stack.enter_context(enrolment_server(enrolment, rig.pki.service, tmp_path))
        cable = Cable(rig.broker.port)
        stack.callback(cable.close)
        behind = type("Behind", (), {"port": cable.port})()
        site = Site(tmp_path, rig.pki.service, rig.pki.devices, behind, enrolment.url)
        stack.callback(site.close)
        yield Office(rig, site, cable)


def test_why_a_box_was_away(office: Office) -> None:
    office.power_on()
    office.await_online()
    assert office.outages() == []

    office.site.kill()  # with the whole box
    time.sleep(1.0)  # of darkness: longer than the new run will be old
    office.power_on()
    first = office.await_end(1)
    assert (first["reason"], first["noticed"]) == ("power", None)
    assert first["evidence"]["last_end"] == "abrupt"

    office.await_online()
    office.cable.pull()
    wait_for(lambda: not office.rig.cloud.box(DEVICE)["online"], "the box to be gone", within_s=PATIENCE_S)
    wait_for(lambda: len(office.outages()) == 2, "the absence", within_s=PATIENCE_S)
    assert office.outages()[0]["reason"] == "unknown"
    office.cable.plug()
    second = office.await_end(2)
    assert (second["reason"], second["noticed"]) == ("line", None)

    office.await_online()
    request = office.site.paths.restart_request
    request.parent.mkdir(parents=True, exist_ok=True)
    request.write_text("firmware\n")
    assert office.site.stop()[0] == 0
    wait_for(lambda: len(office.outages()) == 3, "the absence", within_s=PATIENCE_S)
    lasting = office.outages()[0]
    assert (lasting["reason"], lasting["evidence"]["goodbye"]) == ("maintenance", "update")
    request.unlink()
    office.power_on()
    third = office.await_end(3)
    assert (third["reason"], third["evidence"]["last_end"]) == ("maintenance", "orderly")

    office.await_online()
    broker = office.rig.broker
    broker.stop()
    wait_for(lambda: office.rig.cloud.health()["ingest"] == "disconnected", "ingest to notice", within_s=PATIENCE_S)
    time.sleep(3.0)  # longer than a blink
    broker.start()
    fourth = office.await_end(4)
    assert (fourth["reason"], fourth["noticed"]) == ("service", None)
    service = office.rig.cloud.get("/api/v1/outages")["service"]
    assert service[0]["end"] is not None
    assert service[0]["detail"]
