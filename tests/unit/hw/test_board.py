"""Board descriptions are read strictly."""

from pathlib import Path

import pytest

from omamori_hw.board import MAX_BOARD_BYTES, list_boards, load_board, parse_board
from omamori_hw.errors import BoardError

BOARDS = Path(__file__).resolve().parents[3] / "hw" / "boards"
GOOD = (BOARDS / "x86_64-uefi" / "board.toml").read_text()


def test_every_board_of_this_repository_can_be_used() -> None:
    for name in list_boards(BOARDS):
        board = load_board(BOARDS / name)
        assert board.name == name
        assert board.disk.total_mib <= board.limits.disk_minimum_mib


def test_first_port_is_wan_and_the_others_count_from_one() -> None:
    ports = load_board(BOARDS / "x86_64-uefi").ports
    assert [ports.name(position) for position in range(4)] == ["wan", "lan1", "lan2", "lan3"]
    assert [ports.role(position) for position in range(3)] == ["wan", "lan", "lan"]


def test_a_radio_is_looked_for_only_where_a_board_may_have_one() -> None:
    assert parse_board(GOOD.encode()).radio.expected == "wlan0"
    assert parse_board(GOOD.replace('"detect"', '"never"', 1).encode()).radio.expected is None


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('arch = "x86_64"', 'arch = "riscv"', "platform.arch"),
        ('arch = "x86_64"', "arch = 64", "platform.arch"),
        ("format = 1", "format = 2", "format"),
        ('[radio]\npresence = "detect"\ninterface = "wlan0"', "", "radio"),
        ('presence = "detect"', 'presence = "maybe"', "radio.presence"),
        ('presence = "detect"', "presence = true", "radio.presence"),
        ('interface = "wlan0"', 'interface = "wlan0 up; reboot"', "radio.interface"),
        ('interface = "wlan0"', 'interface = "wlan0123456789ab"', "radio.interface"),
        ('kind = "acpi"', 'kind = "knob"', "button"),
        ("hold_ms = 0", "hold_ms = 60001", "button"),
        ('device = "Power Button"', 'device = "x$(reboot)"', "button.device"),
        ('modules = ["button", "evdev"]', 'modules = ["button", "gpio_keys"]', "button.modules"),
        ("slot_mib = 64", "slot_mib = 64\ncolour = 1", "disk.colour"),
        ("slot_mib = 64", "", "disk.slot_mib"),
        ("slot_mib = 64", "slot_mib = true", "disk.slot_mib"),
        ("slot_mib = 64", "slot_mib = 0", "disk"),
        ("verity_mib = 8", "verity_mib = 2", "verity_mib"),
        ("root_mib = 448", "root_mib = 1016", "disk"),
        ('"bridge", "dm_verity"', '"bridge", "bridge", "dm_verity"', "modules.initrd"),
        ('"bridge", "dm_verity"', '"bridge; reboot", "dm_verity"', "modules.initrd"),
        ('initrd_load = ["bridge"]', 'initrd_load = ["loop"]', "initrd_load"),
        ('console = "ttyS0,115200"', 'console = "ttyS0 init=/bin/sh"', "console"),
        ('"i6300esb.heartbeat=180"', '"quiet init=/x"', "kernel_arguments"),
        ("runtime_s = 60", "runtime_s = 1", "watchdog"),
        ("maximum = 9", "maximum = 1", "ports"),
        ('name = "x86_64-uefi"', 'name = "../x"', "name"),
        ('name = "x86_64-uefi"', 'name = "x86_64-uefi"\nowner = "x"', "board.toml"),
    ],
)
def test_a_faulty_description_names_the_key(old: str, new: str, where: str) -> None:
    assert old in GOOD
    with pytest.raises(BoardError) as caught:
        parse_board(GOOD.replace(old, new, 1).encode())
    assert where in caught.value.where


@pytest.mark.parametrize("raw", [b"\xff", b"name = ", b""])
def test_bytes_that_are_no_description(raw: bytes) -> None:
    with pytest.raises(BoardError):
        parse_board(raw)


def test_one_byte_over_the_limit(tmp_path: Path) -> None:
    directory = tmp_path / "x86_64-uefi"
    directory.mkdir()
    (directory / "board.toml").write_text(GOOD + "#" * (MAX_BOARD_BYTES + 1 - len(GOOD.encode())))
    with pytest.raises(BoardError, match="larger"):
        load_board(directory)
    (directory / "board.toml").write_text(GOOD + "#" * (MAX_BOARD_BYTES - len(GOOD.encode())))
    assert load_board(directory).name == "x86_64-uefi"


def test_a_board_in_the_wrong_directory(tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text(GOOD)
    with pytest.raises(BoardError, match="lies in"):
        load_board(tmp_path)


def test_an_absent_board(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="cannot be read"):
        load_board(tmp_path / "none")


SUPERVISOR = GOOD[GOOD.index("[supervisor]") : GOOD.index("[limits]")]
BARE = GOOD.replace(SUPERVISOR, "")


def test_a_board_may_have_a_supervisor() -> None:
    assert parse_board(BARE.encode()).supervisor is None
    chip = parse_board(GOOD.encode()).supervisor
    assert chip is not None
    assert (chip.presence, chip.device, chip.lease_ms) == ("detect", "/dev/ttyS2", 150)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('"detect"', '"maybe"', "supervisor.presence"),
        ("/dev/ttyS2", "/dev/../etc/passwd", "supervisor.device"),
        ("lease_ms = 150", "lease_ms = 49", "supervisor.lease_ms"),
        ("lease_ms = 150", "lease_ms = 2001", "supervisor.lease_ms"),
        ("boot_s = 600", "boot_s = 29", "supervisor.boot_s"),
        ("silence_s = 60", "silence_s = 601", "supervisor.silence_s"),
        ("resets = 3", "resets = 10", "supervisor.resets"),
        ("resets = 3", "", "supervisor.resets"),
        ("resets = 3", "resets = 3\ncolour = 1", "supervisor.colour"),
    ],
)
def test_a_supervisor_out_of_its_range_is_refused(old: str, new: str, where: str) -> None:
    with pytest.raises(BoardError, match=where):
        parse_board((BARE + SUPERVISOR.replace(old, new)).encode())


def test_boards_differ_in_their_processor_and_share_their_disk() -> None:
    boards = [load_board(BOARDS / name) for name in list_boards(BOARDS)]
    assert {board.platform.arch for board in boards} == {"x86_64", "aarch64"}
    assert len({board.model for board in boards}) == len(boards)
    assert len({board.disk for board in boards}) == 1, "a release has the same parts for every board"
    assert [board.platform.shell_device for board in boards] == ["ttyAMA1", "ttyS1"]
