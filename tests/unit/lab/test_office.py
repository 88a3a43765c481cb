import pytest

from omamori_lab.errors import LabError
from omamori_lab.office import Download, PingSummary, parse_ping, parse_ping_loop


def test_the_summary_of_ping() -> None:
    text = "--- 198.51.100.10 ping statistics ---\n12 packets transmitted, 11 received, 8.3% packet loss, time 2204ms\n"
    assert parse_ping(text) == PingSummary(12, 11)


def test_ping_with_errors() -> None:
    text = "5 packets transmitted, 0 received, +5 errors, 100% packet loss, time 4094ms"
    assert parse_ping(text) == PingSummary(5, 0)


def test_ping_that_did_not_run() -> None:
    with pytest.raises(LabError, match="Operation not permitted"):
        parse_ping("ping: socktype: SOCK_RAW: Operation not permitted\n")


@pytest.mark.parametrize(
    ("exit_code", "status", "complete"), [(0, 200, True), (18, 200, False), (0, 404, False), (28, 0, False)]
)
def test_only_a_whole_good_answer_is_complete(exit_code: int, status: int, complete: bool) -> None:
    assert Download(exit_code, status, 10, "", 0.1).complete is complete


def _loop(*answered: int, sent: int) -> str:
    lines = [f"64 bytes from 203.0.113.80: icmp_seq={number} ttl=63 time=1.2 ms" for number in answered]
    summary = f"{sent} packets transmitted, {len(answered)} received, 0% packet loss, time 400ms"
    return "\n".join([*lines, "", "--- 203.0.113.80 ping statistics ---", summary])


def test_ping_that_is_ended_does_not_count_the_request_on_its_way() -> None:
    assert parse_ping_loop(_loop(1, 2, sent=3)) == PingSummary(2, 2)


def test_ping_that_is_ended_counts_what_was_lost_before() -> None:
    assert parse_ping_loop(_loop(1, 3, sent=3)) == PingSummary(3, 2)
    assert parse_ping_loop(_loop(1, sent=4)) == PingSummary(3, 1)


def test_ping_that_was_ended_at_once() -> None:
    assert parse_ping_loop(_loop(sent=0)) == PingSummary(0, 0)
