"""The engine's socket: what is asked, how long it may take, and what an odd answer does."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.clock import SystemClock
from omamori_agent.engine import EngineControl, EngineRefusedError, EngineUnavailableError
from omamori_agent.engine.control import MAX_ANSWER_BYTES
from sim.engine import BUILT_IN_RULES, SimulatedEngine

NEVER = threading.Event()


def write_feed(feed: Path, *, names: tuple[str, ...] = ("dangerous",), rules: int = 3) -> None:
    engine = feed / "engine"
    engine.mkdir(parents=True, exist_ok=True)
    declarations = "".join(f"  {name}:\n    type: string\n    load: {name}.lst\n" for name in names)
    (engine / "datasets.yaml").write_text("%YAML 1.1\n---\ndatasets:\n" + declarations)
    for name in names:
        (engine / f"{name}.lst").write_text("bWFsd2FyZS50ZXN0\n")
    (engine / "all.rules").write_text("".join(f"alert ip any any -> any any (sid:{n};)\n" for n in range(rules)))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SimulatedEngine]:
    write_feed(tmp_path / "feed")
    simulated = SimulatedEngine(tmp_path / "engine.sock", tmp_path / "feed")
    simulated.start()
    yield simulated
    simulated.stop()


@pytest.fixture
def control(engine: SimulatedEngine) -> EngineControl:
    return EngineControl(engine.path, SystemClock(), timeout_s=2.0, identify=engine.identify)


def test_version_and_numbers(control: EngineControl) -> None:
    assert control.version() == "8.0.8"
    assert control.run_id() == 1
    stats = control.ruleset_stats()
    assert (stats.loaded, stats.failed, stats.skipped) == (BUILT_IN_RULES + 3, 0, 0)
    assert control.failed_rules() == []


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="does not listen"):
        EngineControl(tmp_path / "nothing.sock", SystemClock()).version()


def test_run_id_of_a_real_peer_is_its_process(tmp_path: Path) -> None:
    engine = SimulatedEngine(tmp_path / "engine.sock", tmp_path / "feed")
    write_feed(tmp_path / "feed")
    engine.start()
    try:
        assert EngineControl(engine.path, SystemClock()).run_id() == os.getpid()
    finally:
        engine.stop()


def test_entries_of_a_dataset(engine: SimulatedEngine, control: EngineControl) -> None:
    changes = [(True, b"new.test"), (True, b"malware.test"), (False, b"malware.test"), (False, b"absent.test")]
    result = control.change_dataset("dangerous", changes)
    assert (result.added, result.removed) == (2, 1)
    assert engine.datasets["dangerous"] == {b"new.test"}
    assert control.has_entry("dangerous", b"new.test")
    assert not control.has_entry("dangerous", b"malware.test")


def test_many_entries_use_one_connection_and_one_command_at_a_time(
    engine: SimulatedEngine, control: EngineControl
) -> None:
    entries = [(True, b"host%d.test" % number) for number in range(500)]
    assert control.change_dataset("dangerous", entries).added == 500
    assert len(engine.datasets["dangerous"]) == 501


@pytest.mark.parametrize("is_added", [True, False])
def test_unknown_dataset_is_an_error_both_ways(control: EngineControl, is_added: bool) -> None:
    with pytest.raises(EngineRefusedError, match="set not found") as caught:
        control.change_dataset("nothing", [(is_added, b"x.test")])
    assert caught.value.command == ("dataset-add" if is_added else "dataset-remove")
    with pytest.raises(EngineRefusedError, match="set not found"):
        control.has_entry("nothing", b"x.test")


def test_command_longer_than_the_engine_reads(engine: SimulatedEngine, control: EngineControl) -> None:
    with pytest.raises(EngineRefusedError, match="allowed 4000"):
        control.change_dataset("dangerous", [(True, b"x" * 4000)])
    assert "dataset-add" not in engine.commands


def test_reload_returns_what_was_loaded(engine: SimulatedEngine, control: EngineControl) -> None:
    engine.reload_s = 0.3
    write_feed(engine.feed, rules=7)
    assert control.reload_rules(timeout_s=5, stop=NEVER).loaded == BUILT_IN_RULES + 7


def test_reload_of_broken_rules_shows_in_the_numbers(engine: SimulatedEngine, control: EngineControl) -> None:
    (engine.feed / "engine/all.rules").write_text("alert broken (sid:1;)\nalert fine (sid:2;)\n")
    stats = control.reload_rules(timeout_s=5, stop=NEVER)
    assert (stats.loaded, stats.failed) == (BUILT_IN_RULES + 1, 1)
    assert control.failed_rules() == ["alert broken (sid:1;)"]


def test_reload_waits_for_one_that_is_going_on(engine: SimulatedEngine, control: EngineControl) -> None:
    busy = iter([True, True])
    refusal = b'{"message":"Reload already in progress","return":"NOK"}\n'
    engine.answer = lambda command: refusal if command == "ruleset-reload-nonblocking" and next(busy, False) else None
    control.reload_rules(timeout_s=5, stop=NEVER)
    assert engine.commands.count("ruleset-reload-nonblocking") == 3
    assert engine.reload_time == 1


def test_reload_that_never_ends(engine: SimulatedEngine, control: EngineControl) -> None:
    engine.answer = lambda command: (
        b'{"message":"done","return":"OK"}\n' if command == "ruleset-reload-nonblocking" else None
    )
    with pytest.raises(EngineUnavailableError, match="did not end in time"):
        control.reload_rules(timeout_s=0.3, stop=NEVER)


def test_stop_ends_the_waiting_for_a_reload(engine: SimulatedEngine, control: EngineControl) -> None:
    engine.reload_s = 1.0
    stop = threading.Event()
    stop.set()
    with pytest.raises(EngineUnavailableError, match="stops"):
        control.reload_rules(timeout_s=60, stop=stop)


def test_engine_that_dies_during_a_reload(engine: SimulatedEngine, control: EngineControl) -> None:
    engine.before_reload = lambda: threading.Thread(target=engine.stop).start() or time.sleep(0.5)  # type: ignore[func-returns-value]
    with pytest.raises(EngineUnavailableError):
        control.reload_rules(timeout_s=10, stop=NEVER)


def test_restart_shows_in_the_run_id(engine: SimulatedEngine, control: EngineControl) -> None:
    before = control.run_id()
    control.shutdown()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if control.run_id() != before:
                return
        except EngineUnavailableError:
            time.sleep(0.02)
    pytest.fail("the engine did not come back")


@pytest.mark.parametrize(
    "answer",
    [
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b"null\n",
        b'{"message":"8.0.8"}\n',
        b'{"message":8,"return":"OK"}\n',
        b'{"return":"OK"}\n',
        b"[" * 50_000 + b"\n",
    ],
)
def test_answer_that_is_not_understood(engine: SimulatedEngine, control: EngineControl, answer: bytes) -> None:
    engine.answer = lambda _command: answer
    with pytest.raises(EngineUnavailableError, match="not understood"):
        control.version()
    with pytest.raises(EngineUnavailableError, match="not understood"):
        control.ruleset_stats()


@pytest.mark.parametrize(
    "message", ["[]", "[{}]", "[{},{}]", '[{"rules_loaded":"5","rules_failed":0,"rules_skipped":0}]', "{}"]
)
def test_ruleset_stats_of_another_shape(engine: SimulatedEngine, control: EngineControl, message: str) -> None:
    engine.answer = lambda _command: f'{{"message":{message},"return":"OK"}}\n'.encode()
    with pytest.raises(EngineUnavailableError, match="not understood"):
        control.ruleset_stats()


def test_answer_without_end_is_cut_off(engine: SimulatedEngine, control: EngineControl) -> None:
    engine.answer = lambda _command: b"x" * (MAX_ANSWER_BYTES + 100_000)
    with pytest.raises(EngineUnavailableError, match="not understood"):
        control.version()


def test_engine_that_accepts_and_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        started = time.monotonic()
        with pytest.raises(EngineUnavailableError, match="no answer"):
            EngineControl(path, SystemClock(), timeout_s=0.2).version()
        assert time.monotonic() - started < 2


def test_somebody_else_on_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "other.sock"

    def serve(server: socket.socket) -> None:
        connection, _address = server.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b'{"return":"NOK","message":"what?"}\n')

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        with pytest.raises(EngineUnavailableError):
            EngineControl(path, SystemClock(), timeout_s=2).version()
        thread.join()
