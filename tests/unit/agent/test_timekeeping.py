"""The right time: what is asked, what is believed, and what sets the clocks."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from omamori_agent.errors import TransientError
from omamori_agent.timekeeping import ImplausibleTimeError, TimeWorker, judge
from omamori_agent.timekeeping.files import LATEST_S, MAX_BYTES, Wanted, encode_known, parse_known, parse_wanted
from omamori_agent.timekeeping.rules import MAX_ROUND_TRIP_S
from omamori_agent.timekeeping.rules import Testimony as Said
from omamori_agent.timekeeping.service import settle
from omamori_agent.timekeeping.testimony import MAX_HEAD_BYTES, NoTimeError, ask
from omamori_protocol.errors import MalformedError
from omamori_protocol.vocabulary import EventKind
from sim.outbox import MemoryOutbox
from sim.pki import Authority

NOW = 1_800_000_000.0
FLOOR = NOW - 30 * 86400
YEAR = 365 * 86400


def said(at_s: float = NOW, *, asked_s: float = 100.0, took_s: float = 0.2, **changes: float) -> Said:
    validity = {"valid_from_s": NOW - YEAR, "valid_to_s": NOW + YEAR} | changes
    return Said(said_s=at_s, asked_s=asked_s, answered_s=asked_s + took_s, **validity)


# What is believed.


def judged(testimony: Said, clock_s: float, *, boottime_s: float = 100.2) -> float | None:
    correction = judge(testimony, clock_s=clock_s, boottime_s=boottime_s, floor_s=FLOOR)
    return None if correction is None else round(correction.offset_s, 1)


def test_clock_that_is_right_is_left_alone() -> None:
    assert judged(said(), NOW + 0.6) is None
    assert judged(said(), NOW + 3.0) is None


def test_clock_that_is_wrong_is_corrected_by_what_it_is_off() -> None:
    assert judged(said(), NOW + 0.6 - 3600) == 3600
    assert judged(said(), NOW + 0.6 + 30) == -30
    assert judged(said(), 0.0) == pytest.approx(NOW + 0.6)


def test_time_that_passed_since_the_answer_counts() -> None:
    assert judged(said(), NOW - 3600, boottime_s=160.1) == 3660.5


@pytest.mark.parametrize(
    ("testimony", "words"),
    [
        (said(FLOOR - 1), "before this firmware was built"),
        (said(NOW + YEAR + 1), "not valid"),
        (said(valid_from_s=NOW + 1), "not valid"),
        (said(took_s=MAX_ROUND_TRIP_S + 0.1), "took 10 s"),
        (said(took_s=-1), "took -1 s"),
    ],
)
def test_time_that_is_not_believed(testimony: Said, words: str) -> None:
    with pytest.raises(ImplausibleTimeError, match=words):
        judged(testimony, NOW)


# What agent and service tell each other.


def test_request_says_the_same_however_late_it_is_read() -> None:
    wanted = Wanted(NOW, 50.5)
    assert parse_wanted(wanted.encode(), boottime_s=60) == wanted


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"nonsense",
        b"[" * 256,
        json.dumps({"unix_s": NOW}).encode(),
        json.dumps({"unix_s": NOW, "boottime_s": 50, "more": 1}).encode(),
        json.dumps({"unix_s": str(NOW), "boottime_s": 50}).encode(),
        json.dumps({"unix_s": True, "boottime_s": 50}).encode(),
        json.dumps({"unix_s": float("nan"), "boottime_s": 50}).encode(),
        json.dumps({"unix_s": -1, "boottime_s": 50}).encode(),
        json.dumps({"unix_s": LATEST_S + 1, "boottime_s": 50}).encode(),
        json.dumps({"unix_s": NOW, "boottime_s": 61}).encode(),
        json.dumps({"unix_s": NOW, "boottime_s": -241}).encode(),
        json.dumps({"unix_s": NOW, "boottime_s": 50}).encode() + b" " * MAX_BYTES,
    ],
)
def test_request_that_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_wanted(data, boottime_s=60)


def test_known_time() -> None:
    assert parse_known(encode_known(NOW + 0.9)) == NOW
    assert parse_known(encode_known(LATEST_S)) == LATEST_S
    for data in (b"", b"\n", b"-1\n", b"1.5\n", encode_known(LATEST_S + 1), b"0" * (MAX_BYTES + 1)):
        with pytest.raises(MalformedError):
            parse_known(data)


# The service.


class FakeClocks:
    def __init__(self, now_s: float) -> None:
        self.now_s, self.boottime_s = now_s, 100.0
        self.slewed: list[float] = []
        self.kept: list[float] = []

    def now(self) -> float:
        return self.now_s

    def boottime(self) -> float:
        return self.boottime_s

    def step(self, unix_s: float) -> None:
        self.now_s = unix_s

    def slew(self, offset_s: float) -> None:
        self.slewed.append(offset_s)

    def keep(self, unix_s: float) -> None:
        self.kept.append(unix_s)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("var/lib/omamori/time", "run/omamori/time", "usr/lib/omamori"):
        (tmp_path / name).mkdir(parents=True)
    release = {"version": "1.0.0", "flavour": "dev", "board": "b", "model": "m", "kernel": "6", "radio": None}
    release |= {"build_time": int(FLOOR), "security_epoch": 0, "data_version": 0}
    (tmp_path / "usr/lib/omamori/release.json").write_text(json.dumps(release))
    return tmp_path


def want(root: Path, unix_s: float, boottime_s: float = 90.0) -> None:
    (root / "run/omamori/time/wanted.json").write_bytes(Wanted(unix_s, boottime_s).encode())


def test_clock_that_forgot_the_time_goes_on_from_the_last_one_known(root: Path) -> None:
    (root / "var/lib/omamori/time/known").write_bytes(encode_known(NOW))
    clocks = FakeClocks(0)
    assert settle(root, clocks) is None
    assert (clocks.now_s, clocks.kept) == (NOW, [])
    clocks = FakeClocks(NOW + 5)
    assert settle(root, clocks) is None
    assert clocks.now_s == NOW + 5


def test_nothing_known_and_nothing_wanted(root: Path) -> None:
    clocks = FakeClocks(0)
    assert settle(root, clocks) is None
    assert clocks.now_s == FLOOR


def test_damaged_record_of_the_last_time_is_no_obstacle(root: Path) -> None:
    (root / "var/lib/omamori/time/known").write_bytes(b"\0" * 20)
    want(root, NOW)
    clocks, lines = FakeClocks(0), []
    assert settle(root, clocks, tell=lines.append) is None
    assert clocks.now_s == NOW + 10
    assert "not one" in lines[0]


def test_large_error_is_stepped_and_kept(root: Path) -> None:
    want(root, NOW)
    clocks = FakeClocks(NOW + 10 + 3600)
    assert settle(root, clocks) is None
    assert (clocks.now_s, clocks.slewed, clocks.kept) == (NOW + 10, [], [NOW + 10])


def test_small_error_is_stretched_away(root: Path) -> None:
    want(root, NOW)
    clocks = FakeClocks(NOW + 10 + 4)
    assert settle(root, clocks) is None
    assert (clocks.now_s, clocks.slewed, clocks.kept) == (NOW + 14, [-4], [NOW + 10])


def test_what_the_service_refuses_changes_nothing(root: Path) -> None:
    clocks = FakeClocks(NOW)
    want(root, FLOOR - 100)
    assert settle(root, clocks) == "the wanted time is before this firmware was built"
    want(root, NOW, boottime_s=101)
    assert settle(root, clocks) == "the wanted time was asked for at another time"
    path = root / "run/omamori/time/wanted.json"
    path.unlink()
    path.symlink_to(root / "usr/lib/omamori/release.json")
    assert "cannot be set" in str(settle(root, clocks))
    path.unlink()
    path.mkdir()
    assert "cannot be set" in str(settle(root, clocks))
    assert (clocks.now_s, clocks.slewed, clocks.kept) == (NOW, [], [])


def test_image_without_a_release_sets_nothing(root: Path) -> None:
    (root / "usr/lib/omamori/release.json").unlink()
    want(root, NOW)
    clocks = FakeClocks(0)
    assert "release.json" in str(settle(root, clocks))
    assert clocks.now_s == 0


# The worker.


class Box:
    """A worker, and a service that sets its clock."""

    def __init__(self, directory: Path, clock_s: float) -> None:
        self.clock_s, self.boottime_s = clock_s, 100.0
        self.answers: list[Said | Exception] = []
        self.outbox = MemoryOutbox()
        self.lines: list[str] = []
        self.wanted, self.known = directory / "wanted.json", directory / "known"
        self.worker = TimeWorker(
            ask_time=self._ask,
            floor_s=FLOOR,
            wanted=self.wanted,
            known=self.known,
            outbox=self.outbox,
            report=self.lines.append,
            clock_s=lambda: self.clock_s,
            boottime_s=lambda: self.boottime_s,
        )

    def _ask(self) -> Said:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def set_clock(self) -> None:
        self.clock_s = parse_wanted(self.wanted.read_bytes(), boottime_s=self.boottime_s).unix_s


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, 0.0)


def test_clock_is_corrected_confirmed_and_told(box: Box) -> None:
    box.answers = [said(asked_s=99.9), said(asked_s=99.9)]
    assert box.worker.step() < 60
    assert not box.lines
    box.set_clock()
    assert box.worker.step() > 3600
    assert len(box.lines) == 1
    assert box.lines[0].startswith("clock set: it was 1800000001 s slow") or "s slow" in box.lines[0]
    assert [event.text for event in box.outbox.of(EventKind.SYSTEM)] == box.lines


def test_correction_that_nobody_makes_is_asked_for_again_and_told_once(box: Box) -> None:
    box.answers = [said(asked_s=99.9), said(asked_s=99.9), said(asked_s=99.9)]
    box.worker.step()
    box.wanted.unlink()
    box.worker.step()
    assert box.wanted.exists()
    assert not box.lines
    box.set_clock()
    box.worker.step()
    assert len(box.lines) == 1


def test_small_correction_is_no_event(box: Box) -> None:
    box.clock_s = NOW - 20
    box.answers = [said(asked_s=99.9), said(asked_s=99.9)]
    box.worker.step()
    box.set_clock()
    box.worker.step()
    assert len(box.lines) == 1
    assert not box.outbox.events


def test_nobody_answers_or_is_believed(box: Box) -> None:
    box.answers = [NoTimeError("no route"), said(FLOOR - 1, asked_s=99.9), TransientError("no"), said(asked_s=99.9)]
    pauses = [box.worker.step() for _ in range(3)]
    assert all(pause < 10 for pause in pauses)
    assert not box.wanted.exists()
    box.clock_s = NOW
    assert box.worker.step() > 3600


def test_full_disk_and_missing_directory_are_survived(box: Box, tmp_path: Path) -> None:
    box.outbox.failures = 1
    box.worker._wanted = tmp_path / "missing/wanted.json"
    box.answers = [said(asked_s=99.9), said(asked_s=99.9)]
    box.worker.step()
    box.clock_s = NOW
    box.worker.step()
    assert len(box.lines) == 1
    assert not box.outbox.events


def test_right_time_is_kept_and_a_doubtful_one_is_not(box: Box) -> None:
    stop = threading.Event()
    box.clock_s = NOW
    box.answers = [said(asked_s=99.9)]
    runner = threading.Thread(target=box.worker.run, args=(stop,))
    runner.start()
    deadline_s = time.monotonic() + 10
    while not box.known.exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    stop.set()
    runner.join()
    assert parse_known(box.known.read_bytes()) == NOW

    box.known.unlink()
    doubtful = Box(box.known.parent, 5.0)
    doubtful.answers = [NoTimeError("no")] * 5
    stop.clear()
    runner = threading.Thread(target=doubtful.worker.run, args=(stop,))
    runner.start()
    stop.set()
    runner.join()
    assert not doubtful.known.exists()


# The question, asked of real TLS servers.

Answer = Callable[[], bytes]


def date_of(at_s: float) -> bytes:
    return email.utils.formatdate(at_s, usegmt=True).encode()


@contextlib.contextmanager
def server(
    directory: Path, authority: Authority, answer: bytes, *, begins: dt.datetime | None = None, days: int = 90
) -> Iterator[str]:
    """Run a server that gives one answer to whoever asks, and return its address."""
    key, certificate = directory / "server.key", directory / "server.crt"
    authority.issue("localhost", client=False, names=("localhost",), begins=begins, life=dt.timedelta(days=days)).write(
        key, certificate
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    plain, _ = listener.accept()
                    plain.settimeout(5)
                    with context.wrap_socket(plain, server_side=True) as connection:
                        assert connection.recv(4096).startswith(b"HEAD /repository HTTP/1.1\r\n")
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{listener.getsockname()[1]}/repository"
        finally:
            over.set()
            with contextlib.suppress(OSError), socket.create_connection(listener.getsockname(), timeout=1):
                pass
            thread.join(5)


@pytest.fixture
def world(tmp_path: Path) -> SimpleNamespace:
    authority = Authority("Service CA")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)

    def question(url: str, trusted: Path = ca) -> Said:
        return ask(url, str(trusted), proxy=None, boottime_s=time.monotonic, timeout_s=5)

    return SimpleNamespace(authority=authority, directory=tmp_path, ask=question)


def head(at_s: float, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 404 Not Found\r\n" + more + b"DATE: " + date_of(at_s) + b"\r\nContent-Length: 0\r\n\r\n"


def test_server_of_the_service_is_asked(world: SimpleNamespace) -> None:
    now_s = int(time.time())
    with server(world.directory, world.authority, head(now_s)) as url:
        testimony = world.ask(url)
    assert testimony.said_s == now_s
    assert testimony.valid_from_s < now_s < testimony.valid_to_s
    assert 0 <= testimony.answered_s - testimony.asked_s < 5


@pytest.mark.parametrize("days_from_now", [400, -400])
def test_clock_that_is_wrong_by_years_does_not_keep_it_from_asking(world: SimpleNamespace, days_from_now: int) -> None:
    there = dt.datetime.now(dt.UTC) + dt.timedelta(days=days_from_now)
    with server(world.directory, world.authority, head(there.timestamp()), begins=there - dt.timedelta(days=1)) as url:
        testimony = world.ask(url)
    offset_s = judge(testimony, clock_s=time.time(), boottime_s=testimony.answered_s, floor_s=0)
    assert offset_s is not None
    assert offset_s.offset_s == pytest.approx(days_from_now * 86400, abs=60)


def test_certificate_that_has_expired_vouches_for_nothing_later(world: SimpleNamespace) -> None:
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=400)
    with server(world.directory, world.authority, head(time.time()), begins=long_ago) as url:
        testimony = world.ask(url)
    with pytest.raises(ImplausibleTimeError, match="not valid"):
        judge(testimony, clock_s=0, boottime_s=testimony.answered_s, floor_s=0)


def test_foreign_server_is_not_asked_whatever_the_time(world: SimpleNamespace) -> None:
    then = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
    for begins in (None, then):
        with (
            server(world.directory, Authority("Foreign"), head(NOW), begins=begins) as url,
            pytest.raises(NoTimeError, match="certificate verify failed"),
        ):
            world.ask(url)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "no date"),
        (b"HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n", "date"),
        (b"HTTP/1.1 200 OK\r\nDate: Mon, 99 Foo 2026 00:00:00 GMT\r\n\r\n", "date"),
        (b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 00:00:00 -0000\r\n\r\n", "no zone"),
        (b"nonsense\r\nDate: " + date_of(NOW) + b"\r\n\r\n", "no date"),
        (b"HTTP/1.1 200 OK\r\nDate: " + date_of(NOW), "ends in the middle"),
        (head(NOW, b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n"), "more than 8192 bytes"),
    ],
)
def test_answers_that_say_nothing(world: SimpleNamespace, answer: bytes, words: str) -> None:
    with server(world.directory, world.authority, answer) as url, pytest.raises(NoTimeError, match=words):
        world.ask(url)


def test_as_long_as_it_may_be(world: SimpleNamespace) -> None:
    short = head(NOW, b"X: \r\n")
    answer = head(NOW, b"X: " + b"x" * (MAX_HEAD_BYTES - len(short)) + b"\r\n")
    assert len(answer) == MAX_HEAD_BYTES
    with server(world.directory, world.authority, answer) as url:
        assert world.ask(url).said_s == NOW


def test_nobody_there(world: SimpleNamespace) -> None:
    with pytest.raises(NoTimeError, match="localhost"):
        world.ask("https://localhost:1/repository")
