"""`omamori-gate`: its answers for people and programs, its bounds, its errors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from omamori_agent.gate import layout
from omamori_agent.gate.cli import main
from omamori_agent.gate.layout import ControlSlot, Counter, Uninspected
from sim.memory_maps import MemoryMap, make_maps, set_slot

CLIENT = bytes(10) + b"\xff\xff" + bytes([192, 168, 10, 11])
SERVER = bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 10])
MAC = b"\x02\x00\x00\x00\x00\x0b"
COMMANDS = ["terminals", "stations", "flows", "counters", "blocked", "block-list", "uninspected", "control"]


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryMap]:
    return make_maps(monkeypatch)


@pytest.fixture
def busy(maps: dict[str, MemoryMap]) -> dict[str, MemoryMap]:
    """A gate that has seen something of everything."""
    maps["terminals"].content[CLIENT] = layout.TERMINAL.pack(MAC, 900001, 0, 10**9, 7, 1500, 5, 2_500_000, 9, 8)
    maps["stations"].content[layout.STATION_KEY.pack(MAC, 10)] = layout.STATION.pack(900001, 10**9)
    for port, size, epoch in ((50001, 10, 1), (50002, 30, 1), (50003, 20, 1), (50004, 99, 0)):
        key = layout.FLOW_KEY.pack(CLIENT, SERVER, port.to_bytes(2, "big"), b"\x01\xbb", 0, 0, 0, 6, 0)
        maps["flows"].content[key] = layout.FLOW.pack(0, 10**9, 1, size, 1, size, epoch)
    set_slot(maps, ControlSlot.EPOCH, 1)
    blocked = layout.BLOCKED.pack(3, 180, 0, 10**9, MAC, b"\xc3\x50", 4)
    maps["blocked"].content[layout.BLOCKED_KEY.pack(CLIENT, SERVER, b"\x01\xbb", 6, 2)] = blocked
    for number in range(3):
        maps["block"].content[layout.BLOCK_KEY.pack(128, SERVER[:15] + bytes([number]))] = layout.BLOCK.pack(0, 4)
    maps["counters"].content[Counter.BYPASSED.to_bytes(4, "little")] = layout.COUNT.pack(12, 3400)
    maps["uninspected"].content[Uninspected.HUNG.to_bytes(4, "little")] = layout.COUNT.pack(5, 600)
    return maps


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def text(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_works_on_a_fresh_gate(
    maps: dict[str, MemoryMap], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert text(capsys, command)
    answer(capsys, command)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_works_on_a_busy_gate_and_changes_nothing(
    busy: dict[str, MemoryMap], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    before = {name: dict(one.content) for name, one in busy.items()}
    assert text(capsys, command)
    answer(capsys, command)
    assert {name: one.content for name, one in busy.items()} == before


def test_terminals(busy: dict[str, MemoryMap], capsys: pytest.CaptureFixture[str]) -> None:
    (item,) = answer(capsys, "terminals")["items"]
    assert (item["address"], item["mac"], item["port"]) == ("192.168.10.11", "02:00:00:00:00:0b", "900001")
    assert (item["rx_bytes"], item["bypassed_tx_bytes"]) == (2_500_000, 9)
    assert "1.5 kB  2.5 MB    17 B" in text(capsys, "terminals")


def test_flows_of_the_present_epoch_come_with_the_largest_first(
    busy: dict[str, MemoryMap], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = answer(capsys, "flows", "--limit", "2")
    assert (shown["total"], shown["shown"]) == (3, 2)
    assert [item["a_port"] for item in shown["items"]] == [50002, 50003]
    assert "(2 of 3; --limit shows more)" in text(capsys, "flows", "--limit", "2")
    assert "TCP" in text(capsys, "flows")


def test_blocked_and_block_list(busy: dict[str, MemoryMap], capsys: pytest.CaptureFixture[str]) -> None:
    (item,) = answer(capsys, "blocked")["items"]
    assert (item["src"], item["dport"], item["direction"], item["list_id"]) == ("192.168.10.11", 443, "out", 4)
    shown = answer(capsys, "block-list", "--limit", "1")
    assert (shown["total"], shown["items"]) == (3, [{"prefix": "198.51.100.0/32", "list_id": 4}])


def test_counts(busy: dict[str, MemoryMap], capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "counters")["bypassed"] == {"packets": 12, "bytes": 3400}
    assert set(answer(capsys, "counters")) == {counter.name.lower() for counter in Counter}
    assert answer(capsys, "uninspected")["hung"] == {"packets": 5, "bytes": 600}


def test_control(busy: dict[str, MemoryMap], capsys: pytest.CaptureFixture[str]) -> None:
    set_slot(busy, ControlSlot.FAIL_CLOSED, 1)
    set_slot(busy, ControlSlot.BUTTON_UNTIL_NS, 2**62)
    shown = answer(capsys, "control")
    assert (shown["fail_closed"], shown["epoch"], shown["bypass_until"]) == (True, 1, None)
    assert shown["button_until"] > 0
    assert shown["own_mac"] == "02:00:00:00:00:fe"
    assert "dropped (fail-closed)" in text(capsys, "control")


@pytest.mark.parametrize("limit", ["0", "-1", "200001", "many", "1.5", "", "２"])
def test_limit_is_bounded(maps: dict[str, MemoryMap], capsys: pytest.CaptureFixture[str], limit: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["flows", f"--limit={limit}"])
    assert caught.value.code == 2
    assert "a number from 1 to 200000" in capsys.readouterr().err


def test_gate_that_is_not_loaded_is_said_with_what_to_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["control", "--pins", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: gate map config: ")
    assert "hint: is omamori-wire.service active?" in printed.err


def test_reader_that_goes_away_is_no_error(busy: dict[str, MemoryMap], monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        assert main(["terminals"]) == 1


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "usage: omamori-gate" in capsys.readouterr().out


def test_command_line_without_a_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
