"""The whole agent put together in a directory, and its command line."""

import json
import os
import signal
import subprocess  # noqa: TID251 - the agent is a process here
import sys
import threading
import time
from pathlib import Path

import pytest

from omamori_agent import app, cli
from omamori_agent.config import load_config
from omamori_agent.notify import Notifier
from omamori_agent.report import box_report
from omamori_agent.spool import Lane, Spool
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind
from sim.box import CLAIM, DEVICE, make_box
from sim.clock import ManualClock
from sim.mosquitto import free_port
from sim.pki import Authority
from sim.proxy import Proxy
from sim.repository import RepositorySimulator


@pytest.fixture
def box(tmp_path: Path) -> Path:
    paths = make_box(tmp_path)
    (paths.run / "agent").mkdir()
    paths.service_ca.write_bytes(Authority("Service CA").pem)
    return tmp_path


def test_every_part_is_wired_under_its_own_name(box: Path) -> None:
    agent = app.build(load_config(box))
    names = [worker.name for worker in agent.workers]
    assert {"identity", "link", "heartbeat", "health", "feed"} <= set(names)
    assert any(name.startswith("engine") for name in names)
    assert len(set(names)) == len(names)
    assert app.describe(agent) == "engine down, feed 0 none, not enrolled, not connected"
    agent.spool.close()


def test_start_leaves_an_event_and_a_stop_is_clean_and_quick(box: Path) -> None:
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    began = time.monotonic()
    assert app.run(load_config(box), Notifier(), stop) == 0
    assert time.monotonic() - began < 1.0 + 3.0
    config = load_config(box)
    spool = Spool(config.paths.spool, config.spool, ManualClock())
    spool.open()
    first = Event.decode(spool.read_after(Lane.ONE, 0, 1)[0].body)
    spool.close()
    assert (first.kind, first.seq) == (EventKind.SYSTEM, 1)
    assert first.text == "agent started: firmware 2026.11.1 dev, slot A"


def test_enrolment_and_feed_are_asked_for_through_the_offices_proxy(tmp_path: Path) -> None:
    proxy = Proxy(set())  # refuses, and remembers what for
    ports = [free_port(), free_port()]
    enrolment, repository = (f"https://localhost:{port}" for port in ports)
    paths = make_box(
        tmp_path,
        enrolment_url=enrolment,
        repository_url=repository,
        proxy={"host": "127.0.0.1", "port": proxy.port},
    )
    (paths.run / "agent").mkdir()
    paths.trust_root.write_bytes(RepositorySimulator().trusted_root)
    paths.service_ca.write_bytes(Authority("Service CA").pem)
    stop = threading.Event()
    runner = threading.Thread(target=app.run, args=(load_config(tmp_path), Notifier(), stop))
    runner.start()
    wanted = {f"CONNECT localhost:{port} HTTP/1.1".encode() for port in ports}
    deadline = time.monotonic() + 30
    while not wanted <= {head.split(b"\r\n")[0] for head in list(proxy.requests)} and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    runner.join(20)
    proxy.close()
    assert wanted <= {head.split(b"\r\n")[0] for head in proxy.requests}


def test_worker_that_dies_ends_the_daemon(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_self: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("omamori_agent.health.HealthWorker.step", die)
    assert app.run(load_config(box), Notifier(), threading.Event()) == 1


def start(box: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "omamori_agent.cli", "run", "--root", str(box)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_process_within_three_seconds(box: Path, number: int) -> None:
    with start(box) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "started:" in line:
                break
        began = time.monotonic()
        process.send_signal(number)
        _out, rest = process.communicate(timeout=20)
        assert time.monotonic() - began < 3
        assert process.returncode == 0, rest
        assert CLAIM not in rest


def test_broken_box_is_an_error_with_a_hint_and_exit_code_1(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (box / "var/lib/omamori/factory/provision.json").unlink()
    assert cli.main(["run", "--root", str(box)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "provision.json: missing" in said
    assert "\nhint: " in said


def test_status_of_a_box_fresh_from_the_factory(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--json", "--root", str(box)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["release"] == {
        "version": "2026.11.1",
        "flavour": "dev",
        "board": "x86_64-uefi",
        "model": "ZA-SA3500N",
        "slot": "A",
    }
    assert report["device"]["id"] == DEVICE
    assert report["identity"] == {"enrolled": False, "key": False, "expires": None}
    assert report["feed"]["serial"] == 0
    assert "missing" in report["spool"]["error"]
    assert cli.main(["status", "--root", str(box)]) == 0
    out = capsys.readouterr().out
    assert f"  id: {DEVICE}\n" in out
    assert CLAIM not in out


def test_status_of_a_box_at_work(box: Path) -> None:
    config = load_config(box)
    spool = Spool(config.paths.spool, config.spool, ManualClock())
    spool.open()
    spool.put([Event(boot=0, seq=0, at_ms=1, kind=EventKind.SYSTEM, text="x")])
    config.paths.identity.mkdir()
    Authority("CA").issue(DEVICE).write(config.paths.identity / "device.key", config.paths.identity / "device.crt")
    config.paths.feed_current.unlink()
    config.paths.feed_current.symlink_to("store/1203")
    report = box_report(config.paths)
    assert report["spool"]["events"] == 1
    assert report["spool"]["boot"] == spool.boot
    assert report["identity"]["enrolled"]
    assert report["feed"]["serial"] == 1203
    spool.close()


def test_status_tells_what_it_cannot_read_and_goes_on(box: Path) -> None:
    config = load_config(box)
    config.paths.identity.mkdir()
    (config.paths.identity / "device.crt").write_text("junk")
    (config.paths.spool / "spool.db").write_bytes(os.urandom(8192))
    config.paths.release.write_text("{")
    report = box_report(config.paths)
    assert all("error" in report[name] for name in ("release", "identity", "spool"))
    assert report["device"]["id"] == DEVICE


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run", "--fast"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: omamori-agent" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            cli.main([option])
        assert caught.value.code == 0
        assert "omamori-agent" in capsys.readouterr().out
