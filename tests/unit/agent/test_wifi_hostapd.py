"""hostapd's control socket: what is asked, and what an odd answer does."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_agent.wifi.errors import HostapdError, HostapdGoneError
from omamori_agent.wifi.hostapd import MAX_ANSWER_BYTES, MAX_RUNS, MAX_STATIONS, HostapdSession, control_sockets
from sim.hostapd import answering, bound, printed

STATUS = b"state=ENABLED\nchannel=6\nieee80211n=1\nieee80211ac=0\nssid[0]=office\nnum_sta[0]=2\n"


def mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wlan0"


def test_nobody_listens(path: Path) -> None:
    with pytest.raises(HostapdGoneError):
        HostapdSession(path)


def test_status(path: Path) -> None:
    with answering(path, lambda _: STATUS), HostapdSession(path) as session:
        status = session.status()
    assert (status.state, status.ssid, status.channel, status.stations) == ("ENABLED", b"office", 6, 2)
    assert status.is_ht
    assert not status.is_newer


@pytest.mark.parametrize("word", [b"ieee80211ac=1", b"ieee80211ax=1"])
def test_newer_radio_standards_show(path: Path, word: bytes) -> None:
    answer = STATUS.replace(b"ieee80211ac=0", word)
    with answering(path, lambda _: answer), HostapdSession(path) as session:
        assert session.status().is_newer


@pytest.mark.parametrize("ssid", ["おまもり".encode(), b'quo"te \\ back\x1b\n\r\t\x00\xff', b"\\x41"])
def test_an_ssid_is_read_as_hostapd_prints_it(path: Path, ssid: bytes) -> None:
    answer = STATUS.replace(b"office", printed(ssid).encode())
    with answering(path, lambda _: answer), HostapdSession(path) as session:
        assert session.status().ssid == ssid


@pytest.mark.parametrize("answer", [b"", b"FAIL\n", b"UNKNOWN COMMAND\n", b"state=ENABLED\nchannel=x\n", b"\xff\xfe"])
def test_a_status_that_is_none(path: Path, answer: bytes) -> None:
    with (
        answering(path, lambda _: answer),
        HostapdSession(path) as session,
        pytest.raises(HostapdError, match="STATUS not understood"),
    ):
        session.status()


def test_one_byte_more_than_the_bound(path: Path) -> None:
    for size, is_read in ((MAX_ANSWER_BYTES, True), (MAX_ANSWER_BYTES + 1, False)):
        answer = STATUS + b"x" * (size - len(STATUS))
        with answering(path, lambda _, answer=answer: answer), HostapdSession(path) as session:
            if is_read:
                assert session.status().channel == 6
            else:
                with pytest.raises(HostapdError, match="more than"):
                    session.status()
        path.unlink()


def test_no_answer(path: Path) -> None:
    with answering(path, lambda _: None), HostapdSession(path, timeout_s=0.05) as session:
        with pytest.raises(HostapdError, match="no answer to STATUS"):
            session.status()
        assert not session.is_alive()


def test_it_ends_while_we_are_connected(path: Path) -> None:
    with bound(path) as _, HostapdSession(path, timeout_s=0.05) as session:
        _.close()
        with pytest.raises(HostapdGoneError):
            session.is_alive()


def test_stations(path: Path) -> None:
    known = [mac(1), mac(2)]

    def answer(command: bytes) -> bytes:
        word, _, after = command.decode().partition(" ")
        position = known.index(after) + 1 if word == "STA-NEXT" else 0
        return f"{known[position]}\nflags=[AUTH]\n".encode() if position < len(known) else b"FAIL\n"

    with answering(path, answer), HostapdSession(path) as session:
        assert session.stations() == known
        known.clear()
        assert session.stations() == []


def test_one_station_more_than_the_bound(path: Path) -> None:
    def answer(command: bytes) -> bytes:
        word, _, after = command.decode().partition(" ")
        number = int(after[12:14] + after[15:17], 16) + 1 if word == "STA-NEXT" else 0
        return f"{mac(number)}\n".encode() if number < MAX_STATIONS + 1 else b""

    with answering(path, answer), HostapdSession(path) as session:
        assert len(session.stations()) == MAX_STATIONS


@pytest.mark.parametrize("answer", [b"not a station\n", b"02:00:00:00:00:01 x\n", f"{mac(1)}\n".encode()])
def test_a_list_of_stations_that_is_none_or_never_ends(path: Path, answer: bytes) -> None:
    with (
        answering(path, lambda _: answer),
        HostapdSession(path) as session,
        pytest.raises(HostapdError, match="not understood"),
    ):
        session.stations()


def test_it_does_not_want_to_end(path: Path) -> None:
    with (
        answering(path, lambda _: b"FAIL\n"),
        HostapdSession(path) as session,
        pytest.raises(HostapdError, match="does not end"),
    ):
        session.terminate()


def test_only_sockets_count_and_not_more_than_the_bound(tmp_path: Path) -> None:
    assert control_sockets(tmp_path / "absent", "wlan0") == []
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for number in range(MAX_RUNS + 1):
        run = tmp_path / f"run{number:02}"
        run.mkdir()
        with bound(run / "wlan0"):
            pass
    assert len(control_sockets(tmp_path, "wlan0")) == MAX_RUNS - 2  # the two others were looked at, too
