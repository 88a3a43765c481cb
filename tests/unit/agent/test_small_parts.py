"""Back-off, text, vitals, clock and the service manager's socket."""

import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent import vitals
from omamori_agent.backoff import Backoff
from omamori_agent.clock import SystemClock
from omamori_agent.notify import Notifier
from omamori_agent.status import Status, StatusBoard
from omamori_agent.text import clean_text
from omamori_protocol.record import Text
from sim.box import make_box


def test_back_off_doubles_to_its_cap_with_jitter_and_starts_over() -> None:
    asked = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    backoff = Backoff(1.0, 10.0, uniform=uniform)
    assert [backoff.next_s() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert asked[-1] == (5.0, 10.0)
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_real_jitter_stays_between_half_and_all() -> None:
    assert all(0.5 <= Backoff(1.0, 8.0).next_s() <= 1.0 for _ in range(100))


@given(st.text(), st.integers(1, 50))
def test_clean_text_always_fits_a_message(text: str, maximum: int) -> None:
    Text(maximum).from_wire(clean_text(text, maximum))


def test_clean_text_keeps_what_people_read() -> None:
    assert clean_text(" 規則\n7行目\tエラー\x1b[31m ", 50) == "規則 7行目 エラー [31m"
    assert clean_text("x" * 10, 10) == "x" * 10
    assert clean_text("x" * 11, 10) == "x" * 9 + "…"


def test_vitals_of_a_box(tmp_path: Path) -> None:
    proc = make_box(tmp_path).proc
    assert vitals.uptime_s(proc) == 86460
    assert vitals.own_rss_kib(proc) == 41200
    assert vitals.memory_available_kib(proc) == 612344


def test_vitals_that_cannot_be_read_are_zero(tmp_path: Path) -> None:
    assert (vitals.uptime_s(tmp_path), vitals.own_rss_kib(tmp_path), vitals.memory_available_kib(tmp_path)) == (0, 0, 0)
    (tmp_path / "uptime").write_bytes(b"\xffsoon")
    (tmp_path / "meminfo").write_text("MemAvailable:\nMemAvailable: lots kB\n")
    assert (vitals.uptime_s(tmp_path), vitals.memory_available_kib(tmp_path)) == (0, 0)


def test_vitals_of_this_very_process() -> None:
    assert vitals.own_rss_kib(Path("/proc")) > 1000
    assert vitals.uptime_s(Path("/proc")) > 0


def test_clock_does_not_go_below_its_floor() -> None:
    assert abs(SystemClock().now() - time.time()) < 5
    assert SystemClock(floor_s=4_000_000_000).now() == 4_000_000_000
    assert SystemClock().monotonic() <= time.monotonic()


def test_status_board_tells_changes_only() -> None:
    board, heard = StatusBoard(), []
    board.subscribe(heard.append)
    board.update(feed_serial=3)
    board.update(feed_serial=3)
    assert heard == [Status(feed_serial=3)]
    with pytest.raises(TypeError):
        board.update(no_such_field=1)


class Manager:
    """The service manager's side of the socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0.2)

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except TimeoutError:
                return found


def test_notifications_in_order_and_status_only_when_it_changes(tmp_path: Path) -> None:
    manager = Manager(tmp_path / "notify")
    with manager.socket:
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
        assert notifier.watchdog_s == 30
        notifier.ready()
        notifier.status("one\ntwo")
        notifier.status("one\ntwo")
        notifier.alive()
        notifier.stopping()
        assert manager.heard() == ["READY=1", "STATUS=one two", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nonexistent/socket", "WATCHDOG_USEC": "soon"}])
def test_without_a_service_manager_nothing_happens(environment: dict[str, str]) -> None:
    notifier = Notifier.from_environment(environment)
    assert notifier.watchdog_s == 0
    notifier.ready()
    notifier.alive()
