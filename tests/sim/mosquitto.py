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

from .pki import Authority

ACL = """\
pattern write omamori/v1/%u/hb
pattern write omamori/v1/%u/state
pattern write omamori/v1/%u/reported
pattern write omamori/v1/%u/evt
pattern write omamori/v1/%u/reported
pattern write omamori/v1/%u/job/#
pattern read omamori/v1/%u/cmd
pattern read omamori/v1/%u/desired
pattern read omamori/v1/announce/#
user ingest
topic read omamori/v1/+/hb
topic read omamori/v1/+/state
topic read omamori/v1/+/reported
topic read omamori/v1/+/evt
topic read omamori/v1/+/reported
topic read omamori/v1/+/job/#
user publisher
topic write omamori/v1/announce/#
topic write omamori/v1/+/desired
topic write omamori/v1/+/cmd
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One broker; its sessions and retained messages survive `stop` and `start`."""

    def __init__(self, directory: Path, service_ca: Authority, device_ca: Authority) -> None:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not os.access(program, os.X_OK):
            pytest.skip("mosquitto is not installed")
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        directory.mkdir()
        service_ca.issue("localhost", client=False, names=("localhost",)).write(
            directory / "tls.key", directory / "tls.crt"
        )
        (directory / "ca.pem").write_bytes(service_ca.pem + device_ca.pem)
        self.set_acl(ACL)
        (directory / "broker.conf").write_text(
            f"listener {self.port} 127.0.0.1\n"
            f"cafile {directory}/ca.pem\ncertfile {directory}/tls.crt\nkeyfile {directory}/tls.key\n"
            "tls_version tlsv1.3\nrequire_certificate true\nuse_identity_as_username true\n"
            f"allow_anonymous false\nacl_file {directory}/acl\n"
            f"persistence true\npersistence_location {directory}/\nautosave_interval 1\nautosave_on_changes true\n"
            "max_queued_messages 100000\nlog_dest stderr\nlog_type all\n" + ("user root\n" if os.geteuid() == 0 else "")
        )

    def set_acl(self, text: str) -> None:
        """Replace who may do what; call `reload` for a running broker."""
        (self._directory / "acl").write_text(text)
        (self._directory / "acl").chmod(0o600)

    def start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._directory / "broker.conf")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.02)

    def reload(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-4000:]
