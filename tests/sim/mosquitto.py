"""A real mosquitto on loopback with the product's settings, which a test can stop and start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess  # noqa: TID251 - runs the broker
import time
from pathlib import Path

import pytest

from omamori_cloud.broker_files import BrokerFiles, Listener, access_list

from .pki import Authority

ACL = access_list()
_MAX_PACKET_BYTES = 200_000  # some tests send what the cloud must bear, not the broker


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One broker with the product's settings; its sessions and retained messages survive `stop` and `start`.

    `port` is for boxes and, for convenience, services; `websocket_port` takes the same inside WebSockets;
    `service_port` only services.
    """

    def __init__(
        self,
        directory: Path,
        service_ca: Authority,
        device_ca: Authority,
        *,
        persistent: bool = True,
        websocket: bool = False,
        revoked: Path | None = None,
        max_packet_bytes: int = _MAX_PACKET_BYTES,
    ) -> None:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not os.access(program, os.X_OK):
            pytest.skip("mosquitto is not installed")
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.service_port = free_port()
        self.websocket_port = free_port()
        directory.mkdir()
        service_ca.issue("localhost", client=False, names=("localhost",)).write(
            directory / "tls.key", directory / "tls.crt"
        )
        (directory / "ca.pem").write_bytes(service_ca.pem + device_ca.pem)
        (directory / "services.pem").write_bytes(service_ca.pem)
        both, services = directory / "ca.pem", directory / "services.pem"
        listeners = [
            Listener(port=self.port, address="127.0.0.1", clients=both),
            Listener(port=self.service_port, address="127.0.0.1", clients=services, has_boxes=False),
        ]
        if websocket:
            listeners.append(Listener(port=self.websocket_port, address="127.0.0.1", clients=both, is_websocket=True))
        self.files = BrokerFiles(
            state=directory,
            tls=directory,
            listeners=tuple(listeners),
            revoked=revoked,
            user="root" if os.geteuid() == 0 else "mosquitto",
            max_packet_bytes=max_packet_bytes,
            persistent=persistent,
            pid_file=directory / "mosquitto.pid",
        )
        self.set_acl(ACL)
        settings = self.files.settings().replace("autosave_interval 5", "autosave_interval 1\nautosave_on_changes true")
        (directory / "broker.conf").write_text(settings + "log_type all\n")

    def set_acl(self, text: str) -> None:
        """Replace who may do what; call `reload` for a running broker."""
        self.files.access_list_path.write_text(text)
        self.files.access_list_path.chmod(0o600)

    def start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._directory / "broker.conf")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        waiting = {listener.port for listener in self.files.listeners}
        while waiting:
            try:
                socket.create_connection(("127.0.0.1", min(waiting)), 1).close()
                waiting.remove(min(waiting))
            except OSError:
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def reload(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        """What a crash does: nothing is written down any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-4000:]
