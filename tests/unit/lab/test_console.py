import os
import time
import tty

import pytest

from omamori_lab.console import Console, LineBuffer
from omamori_lab.errors import BoxError, NotReadyError
from omamori_lab.waiting import wait_for


class Machine:
    """The machine's side of a serial line."""

    def __init__(self) -> None:
        self.handle, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self._held = slave

    def say(self, text: str) -> None:
        os.write(self.handle, text.encode())

    def close(self) -> None:
        os.close(self._held)
        os.close(self.handle)


@pytest.fixture
def machine():
    made = Machine()
    yield made
    made.close()


@pytest.fixture
def console(tmp_path, machine):
    made = Console(tmp_path / "console.txt")
    made.attach(machine.path)
    yield made
    made.close()


def test_lines_come_out_clean_whatever_pieces_they_came_in() -> None:
    buffer = LineBuffer()
    assert buffer.feed(b"\x1b[32momam") == []
    assert buffer.feed("ori: お守り\r\nne".encode()) == ["omamori: お守り"]
    assert buffer.feed(b"xt\n") == ["next"]


def test_a_colour_code_and_carriage_return_are_removed() -> None:
    assert LineBuffer().feed(b"\x1b[0;32momamori: ready\x1b[0m\r\n") == ["omamori: ready"]


def test_bytes_that_are_no_text_do_not_stop_the_console() -> None:
    assert LineBuffer().feed(b"a\xffb\n") == ["a�b"]


def test_a_line_without_end_is_cut() -> None:
    buffer = LineBuffer()
    assert len(buffer.feed(b"x" * 5000)[0]) == 5000
    assert buffer.feed(b"\n") == [""]


def test_a_line_is_found_before_and_after_it_was_waited_for(console, machine) -> None:
    machine.say("omamori: forwarding uptime=5.1\r\n")
    _, match = console.wait(r"uptime=([\d.]+)", timeout_s=5)
    assert match[1] == "5.1"
    assert console.wait("forwarding", timeout_s=0)[0].text.startswith("omamori")


def test_lines_before_the_mark_do_not_count(console, machine) -> None:
    machine.say("one\n")
    console.wait("one", timeout_s=5)
    mark = console.mark()
    with pytest.raises(NotReadyError, match="one"):
        console.wait("one", timeout_s=0.3, since=mark)


def test_a_dead_machine_ends_the_wait_at_once(console, machine) -> None:
    machine.say("Kernel panic\n")
    console.wait("panic", timeout_s=5)
    begin = time.monotonic()
    with pytest.raises(BoxError, match="Kernel panic"):
        console.wait("protecting", timeout_s=60, alive=lambda: False)
    assert time.monotonic() - begin < 5


def test_the_mirror_repeats_the_console_and_takes_input(console, machine) -> None:
    reader = os.open(console.mirror, os.O_RDWR | os.O_NOCTTY)
    try:
        machine.say("hello\n")
        assert os.read(reader, 100) == b"hello\n"
        os.write(reader, b"typed")
        assert os.read(machine.handle, 100) == b"typed"
    finally:
        os.close(reader)


def test_a_mirror_without_reader_does_not_stop_the_console(console, machine) -> None:
    for number in range(3000):
        machine.say(f"line {number} {'x' * 60}\n")
    console.wait("line 2999 ", timeout_s=10)
    assert wait_for(lambda: console.mark() == 3000, "all lines", timeout_s=5)


def test_the_console_outlives_a_power_cut(console, machine, tmp_path) -> None:
    machine.say("first boot\n")
    console.wait("first boot", timeout_s=5)
    console.detach()
    second = Machine()
    try:
        console.attach(second.path)
        second.say("second boot\n")
        console.wait("second boot", timeout_s=5)
    finally:
        console.detach()
        second.close()
    assert [line.text for line in console.since(0)] == ["first boot", "second boot"]
    assert "second boot" in (tmp_path / "console.txt").read_text()
