"""The cable between box and supervisor: bytes both ways, noise, a cut, and ends that come and go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_lab.serial_cable import SerialCable


class Chip:
    """The supervisor's end: a listening socket that forgets one connection for the next."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(20)
        self.end: socket.socket | None = None

    def accept(self) -> socket.socket:
        self.drop()
        self.end, _ = self._listener.accept()
        self.end.settimeout(20)
        return self.end

    def drop(self) -> None:
        if self.end is not None:
            self.end.close()
            self.end = None

    def close(self) -> None:
        self.drop()
        self._listener.close()


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[Chip]:
    made = Chip(tmp_path / "chip")
    yield made
    made.close()


@pytest.fixture
def cable(chip: Chip, tmp_path: Path) -> Iterator[SerialCable]:
    made = SerialCable(tmp_path / "box", tmp_path / "chip")
    with made.lying():
        chip.accept()
        yield made


def connect(cable: SerialCable) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(20)
    end.connect(str(cable.box))
    return end


def received(end: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += end.recv(length - len(data))
    return data


def test_bytes_pass_both_ways_and_a_box_that_comes_back_is_connected(cable: SerialCable, chip: Chip) -> None:
    assert chip.end is not None
    for _ in range(2):
        with connect(cable) as box:
            box.sendall(b"to the chip")
            assert received(chip.end, 11) == b"to the chip"
            chip.end.sendall(b"to the box")
            assert received(box, 10) == b"to the box"


def test_a_supervisor_that_comes_back_is_connected(cable: SerialCable, chip: Chip) -> None:
    with connect(cable) as box:
        chip.accept()
        box.sendall(b"again")
        assert chip.end is not None
        assert received(chip.end, 5) == b"again"


def test_noise_flips_about_its_share_of_bits(cable: SerialCable, chip: Chip) -> None:
    assert chip.end is not None
    cable.noise = 0.01
    with connect(cable) as box:
        box.sendall(bytes(8000))
        data = received(chip.end, 8000)
    assert 300 < sum(byte.bit_count() for byte in data) < 1200


def test_nothing_passes_a_cut(cable: SerialCable, chip: Chip) -> None:
    assert chip.end is not None
    with connect(cable) as box:
        box.sendall(b"before")
        assert received(chip.end, 6) == b"before"
        cable.is_cut = True
        box.sendall(b"lost")
        chip.end.settimeout(0.3)
        with pytest.raises(TimeoutError):
            chip.end.recv(1)
