"""All workers live, or the daemon ends."""

import threading
import time
from collections.abc import Callable

import pytest

from omamori_agent.notify import Notifier
from omamori_agent.supervisor import EXIT_OK, EXIT_WORKER_DIED, Supervisor


class FakeWorker:
    def __init__(self, name: str, body: Callable[[threading.Event], object]) -> None:
        self.name = name
        self._body = body

    def run(self, stop: threading.Event) -> None:
        self._body(stop)


class RecordingNotifier(Notifier):
    def __init__(self, watchdog_s: float = 0.0) -> None:
        super().__init__("", watchdog_s)
        self.said: list[str] = []

    def ready(self) -> None:
        self.said.append("ready")

    def stopping(self) -> None:
        self.said.append("stopping")

    def alive(self) -> None:
        self.said.append("alive")

    def status(self, text: str) -> None:
        self.said.append(text)


def patient(stop: threading.Event) -> None:
    stop.wait()


def supervise(
    *workers: FakeWorker, stop: threading.Event | None = None, watchdog_s: float = 0.0, stop_s: float = 2.0
) -> tuple[int, list[str]]:
    notifier = RecordingNotifier(watchdog_s)
    supervisor = Supervisor(
        workers,
        notifier=notifier,
        stop=stop or threading.Event(),
        stop_s=stop_s,
        describe=lambda: "fine",
    )
    return supervisor.run(), notifier.said


def test_clean_stop() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    code, said = supervise(FakeWorker("a", patient), FakeWorker("b", patient), stop=stop)
    assert code == EXIT_OK
    assert said[0] == "ready"
    assert said[-1] == "stopping"
    assert "fine" in said


@pytest.mark.parametrize("how", ["returns", "raises", "exits"])
def test_worker_that_ends_takes_the_daemon_down(how: str, caplog: pytest.LogCaptureFixture) -> None:
    others_ended = threading.Event()

    def body(_stop: threading.Event) -> None:
        if how == "raises":
            raise RuntimeError("broken")
        if how == "exits":
            raise SystemExit(0)

    def other(stop: threading.Event) -> None:
        stop.wait()
        others_ended.set()

    began = time.monotonic()
    code, said = supervise(FakeWorker("short", body), FakeWorker("other", other))
    assert code == EXIT_WORKER_DIED
    assert time.monotonic() - began < 2
    assert others_ended.is_set()
    assert "short" in caplog.text
    assert said[-1] == "stopping"


def test_worker_that_hangs_is_left_behind_in_time(caplog: pytest.LogCaptureFixture) -> None:
    stop, release = threading.Event(), threading.Event()
    stop.set()
    began = time.monotonic()
    code, _said = supervise(FakeWorker("stuck", lambda _stop: release.wait()), stop=stop, stop_s=0.2)
    assert code == EXIT_OK
    assert time.monotonic() - began < 1.5
    assert "stuck" in caplog.text
    release.set()


def test_watchdog_is_fed_at_a_third_of_its_patience() -> None:
    stop = threading.Event()
    threading.Timer(2.3, stop.set).start()
    _code, said = supervise(FakeWorker("a", patient), stop=stop, watchdog_s=3.0)
    assert 2 <= said.count("alive") <= 4
