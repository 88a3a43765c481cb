"""``omamori-cloud serve`` as a process: start, stop, refusals, death of a worker."""

from __future__ import annotations

import dataclasses
import signal
import socket
import subprocess  # noqa: TID251 - starts the program under test
import sys
from pathlib import Path

import httpx
import pytest

from omamori_cloud.config import load_config
from omamori_cloud.daemon import Daemon
from omamori_cloud.errors import WorkerError
from omamori_cloud.ingest import Ingest
from sim.mosquitto import free_port

from .cloud_rig import Cloud, Pki, running_rig, wait_for


def run(cloud: Cloud, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "omamori_cloud", *arguments, "--config", str(cloud.config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_term_ends_it_with_success_and_interrupt_with_130(tmp_path: Path) -> None:
    with running_rig(tmp_path) as rig:
        assert rig.cloud.stop(signal.SIGTERM) == 0
        rig.cloud.start()
        assert rig.cloud.stop(signal.SIGINT) == 130
        assert "ready page=http://127.0.0.1:" in rig.cloud.log()
        assert "Traceback" not in rig.cloud.log()


def test_no_key_and_no_url_password_is_logged(tmp_path: Path) -> None:
    with running_rig(tmp_path) as rig:
        rig.cloud.stop()
        assert "PRIVATE" not in rig.cloud.log()


def test_it_serves_the_page_while_the_broker_is_away(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path / "cloud", free_port(), Pki(tmp_path / "pki"))
    try:
        cloud.start(connected=False)
        assert "機器からの知らせを受け取れていません" in httpx.get(cloud.url).text
    finally:
        cloud.close()


def test_a_foreign_certificate_is_not_accepted_as_the_broker(tmp_path: Path) -> None:
    with running_rig(tmp_path) as rig:
        stranger = Cloud(tmp_path / "stranger", rig.broker.port, Pki(tmp_path / "other"))
        try:
            stranger.start(connected=False)
            trouble = wait_for(lambda: "certificate" in (text := stranger.health()["trouble"]).lower() and text, "why")
            assert "verify failed" in trouble
        finally:
            stranger.close()


def test_an_address_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path / "cloud", free_port(), Pki(tmp_path / "pki"))
    answer = run(cloud, "serve", "--listen", "0.0.0.0:0")
    assert answer.returncode == 1
    assert "the page has no login" in answer.stderr
    assert "hint: " in answer.stderr
    cloud.close()


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path / "cloud", free_port(), Pki(tmp_path / "pki"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        answer = run(cloud, "serve", "--listen", f"127.0.0.1:{other.getsockname()[1]}")
    assert answer.returncode == 1
    assert "in use" in answer.stderr
    cloud.close()


def test_an_unknown_key_is_said(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path / "cloud", free_port(), Pki(tmp_path / "pki"), extra="colour = 1")
    answer = run(cloud, "serve")
    assert (answer.returncode, answer.stderr) == (1, "error: colour: unknown key\n")
    cloud.close()


def test_a_worker_that_dies_takes_the_daemon_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud(tmp_path / "cloud", free_port(), Pki(tmp_path / "pki"))

    def die(_self: Ingest) -> None:
        raise RuntimeError("struck by lightning")

    monkeypatch.setattr(Ingest, "run", die)
    config = dataclasses.replace(load_config(cloud.config), listen="127.0.0.1:0")
    daemon = Daemon(config, allow_remote=False)
    address = daemon.address
    with pytest.raises(WorkerError, match="ingest: RuntimeError: struck by lightning"):
        daemon.run()
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)
    cloud.close()
