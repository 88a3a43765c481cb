"""The load programs' reports, the judgement of probes, and the programs themselves on the loopback."""

from __future__ import annotations

import json
import shutil
import socket
import struct
from pathlib import Path

import pytest

from omamori_lab.errors import LabError
from omamori_lab.load import office, probe
from omamori_lab.load.generators import Flood, parse_ping, parse_web
from omamori_lab.load.probe import judge, read_records
from omamori_lab.load.programs import PROGRAMS, compile_programs
from omamori_lab.load.web_server import content
from omamori_lab.run import end, run, spawn
from omamori_lab.waiting import wait_for

MS = 1_000_000


def sent(count: int) -> dict[int, int]:
    return {number: number * MS for number in range(count)}


def test_undisturbed_probes_are_interrupted_for_their_delay_only() -> None:
    report = judge(sent(100), [(number, number * MS + 50_000) for number in range(100)])
    assert (report.sent, report.lost, report.interruption_ms, report.p50_ms) == (100, 0, 0.05, 0.05)


def test_lost_probes_interrupt_from_the_first_in_vain_to_the_next_arrival() -> None:
    arrived = [(number, number * MS) for number in range(100) if not 20 <= number < 50]
    report = judge(sent(100), arrived)
    assert (report.lost, report.interruption_ms, report.at_s) == (30, 30.0, 0.02)


def test_delayed_probes_interrupt_though_none_is_lost() -> None:
    arrived = [(number, max(number, 60) * MS if number >= 20 else number * MS) for number in range(100)]
    report = judge(sent(100), arrived)
    assert (report.lost, report.interruption_ms, report.longest_ms) == (0, 40.0, 40.0)


def test_pause_of_the_sender_is_no_interruption() -> None:
    late = {number: (number + 500 if number >= 50 else number) * MS for number in range(100)}
    assert judge(late, [(number, at + 1000) for number, at in late.items()]).interruption_ms == 0.001


def test_probes_that_never_come_again_interrupt_to_the_end() -> None:
    report = judge(sent(100), [(number, number * MS) for number in range(40)])
    assert (report.lost, report.interruption_ms) == (60, 59.0)


def test_pauses_do_not_overlap_and_the_longest_comes_first() -> None:
    def at(number: int) -> int:
        return max(number, 60 if number >= 20 else 0, 150 if number >= 120 else 0, 185 if number >= 170 else 0) * MS

    begin = 5 * MS
    report = judge({number: begin + number * MS for number in range(200)}, [(n, begin + at(n)) for n in range(200)])
    assert report.first_s == 0.005
    assert report.pauses == ((0.02, 40.0), (0.12, 30.0))
    assert judge(sent(100), [(number, number * MS) for number in range(40)]).pauses == ((0.04, 59.0),)


def test_late_one_out_of_order_does_not_hide_the_others() -> None:
    arrived = [(number, number * MS) for number in range(100) if not 20 <= number < 50]
    report = judge(sent(100), [*arrived, (20, 49 * MS + 500_000)])
    assert report.lost == 29
    assert report.interruption_ms == 29.5


@pytest.mark.parametrize(
    ("sent_probes", "arrived"), [({}, [(0, 1)]), ({0: 1}, []), ({0: 1}, [(1, 2)])], ids=["sent", "arrived", "unknown"]
)
def test_probes_that_say_nothing_are_an_error(sent_probes: dict[int, int], arrived: list[tuple[int, int]]) -> None:
    with pytest.raises(LabError):
        judge(sent_probes, arrived)


def test_records_are_bounded_and_half_ones_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "records"
    file.write_bytes(struct.pack("=QQ", 1, 2) * 2 + b"half")
    assert read_records(file) == [(1, 2), (1, 2)]
    monkeypatch.setattr(probe, "MAX_BYTES", 36)
    assert len(read_records(file)) == 2
    monkeypatch.setattr(probe, "MAX_BYTES", 35)
    with pytest.raises(LabError):
        read_records(file)


def test_report_of_the_web_load_is_read() -> None:
    body = {"connections": 9, "requests": 90, "failures": 1, "bytes": 5000, "seconds": 2.0, "p50_us": 3, "p99_us": 4}
    load = parse_web(json.dumps(body))
    assert (load.connections, load.size_bytes, load.delay.p99_us) == (9, 5000, 4.0)


@pytest.mark.parametrize("output", ["", "[]", "{}", '{"requests": 0}', '{"requests": "many"}'])
def test_web_load_that_served_nothing_is_an_error(output: str) -> None:
    with pytest.raises(LabError):
        parse_web(output)


def test_delays_of_ping_are_read() -> None:
    lines = "".join(f"64 bytes from 198.51.100.10: icmp_seq={n} ttl=64 time=0.{n:03d} ms\n" for n in range(1, 101))
    delay = parse_ping(lines)
    assert (delay.count, delay.p50_us, delay.p99_us) == (100, 51.0, 100.0)
    with pytest.raises(LabError):
        parse_ping("connect: Network is unreachable")


def test_flood_in_no_time_has_no_rate() -> None:
    assert Flood(sent=1, received=1, seconds=0.0).rate == 0.0
    assert Flood(sent=9, received=8, seconds=2.0).rate == 4.0


def test_objects_of_the_web_are_the_same_every_time() -> None:
    assert content(1000) == content(1000)
    assert len(content(1_000_003)) == 1_000_003


def test_question_and_answer_of_names() -> None:
    query = office.question(0x1234, "host1.example")
    assert query[:2] == b"\x12\x34"
    assert b"\x05host1\x07example\0\0\x01\0\x01" in query
    reply = office.answer(query, "198.51.100.10")
    assert reply[:2] == query[:2]
    assert reply.endswith(bytes([198, 51, 100, 10]))


def test_quantiles_of_nothing_and_of_something() -> None:
    assert office.quantile_ms([], 0.5) == 0.0
    assert office.quantile_ms([0.001, 0.002, 0.003], 1.0) == 3.0


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None or not Path("/usr/include/openssl/ssl.h").exists():
        pytest.skip("no compiler, or no libssl-dev")
    directory = tmp_path_factory.mktemp("load")
    compile_programs(directory)
    return directory


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_program_says_how_it_is_used(programs: Path, name: str) -> None:
    finished = run([programs / name], timeout_s=10, check=False)
    assert finished.exit_code == 2
    assert "usage:" in finished.errors


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_probes_over_the_loopback_all_arrive(programs: Path, tmp_path: Path, kind: str) -> None:
    port = free_port(socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    came, went = tmp_path / "arrived", tmp_path / "sent"
    with (tmp_path / "log").open("wb") as log:
        receiver = spawn([programs / "probe", "receive", kind, "127.0.0.1", str(port), "60", came], log=log)
    try:
        words = [programs / "probe", "send", kind, "127.0.0.1", str(port), "500", "1", "40"]

        def all_arrived() -> bool:
            # Until the receiver listens, a first attempt may be refused or lost.
            return run([*words, went], timeout_s=20, check=False).ok and came.exists()

        wait_for(lambda: open_on(port, kind), "receiver", timeout_s=10)
        assert all_arrived()
    finally:
        end(receiver)
    report = judge(dict(read_records(went)), read_records(came))
    assert (report.sent, report.lost) == (500, 0)


def open_on(port: int, kind: str) -> bool:
    rows = [line.split() for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return any(int(row[1].rpartition(":")[2], 16) == port for row in rows)


def test_request_and_response_over_the_loopback(programs: Path, tmp_path: Path) -> None:
    port = free_port(socket.SOCK_STREAM)
    with (tmp_path / "log").open("wb") as log:
        server = spawn([programs / "flood", "serve", str(port)], log=log)
    try:
        wait_for(lambda: open_on(port, "tcp"), "server", timeout_s=10)
        output = run([programs / "flood", "ask", "127.0.0.1", str(port), "1"], timeout_s=20).output
    finally:
        end(server)
    assert json.loads(output)["count"] > 0
