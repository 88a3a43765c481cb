"""What is read of the herald's file, and what of it is not believed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.telemetry.state_file import (
    MAX_BYTES,
    MAX_CHIP_LENGTH,
    STALE_S,
    PowerEvent,
    Refusal,
    RefusedStateError,
    StateReader,
    SupervisorFile,
    parse,
)
from omamori_protocol.vocabulary import PowerKind
from sim.clock import ManualClock
from sim.herald_file import herald_body, write_herald_file

U32 = 2**32 - 1
TOLD = {
    "state": 6,
    "through": 1,
    "cause": 9,
    "moves": U32,
    "resets": 255,
    "code": 9999,
    "good": U32,
    "damaged": U32,
    "lost": U32,
    "unknown": U32,
    "uptime_s": U32,
    "slowest_ms": U32,
    "chip_restarts": 65535,
    "celsius": 127,
    "millivolts": 65535,
    "past_s": U32,
}
ALWAYS = {"lease_ms": 65535, "line_good": 2**64 - 1, "line_damaged": 2**64 - 1, "line_unknown": 2**64 - 1}


def encoded(**changes: Any) -> bytes:
    return json.dumps(herald_body(**changes)).encode()


def refused(data: bytes) -> Refusal:
    with pytest.raises(RefusedStateError) as caught:
        parse(data)
    assert len(str(caught.value)) <= 200
    return caught.value.reason


def test_everything_that_is_told() -> None:
    assert parse(encoded(celsius=-3, power=(4, "short-pull", 5012))) == SupervisorFile(
        is_up=True,
        chip="1.4.0",
        lease_ms=150,
        power=PowerEvent(serial=4, kind=PowerKind.SHORT_PULL, outage_ms=5012),
        through=True,
        moves=1,
        resets=0,
        restarts=0,
        uptime_s=40,
        celsius=-3,
        millivolts=3300,
        past_s=12,
    )


def test_before_the_supervisor_has_told_anything() -> None:
    found = parse(encoded(is_up=False, said="nothing", chip=None, power=(0, "none", 0), **dict.fromkeys(TOLD)))
    assert (found.is_up, found.chip, found.power, found.through, found.celsius) == (False, None, None, None, None)


@pytest.mark.parametrize("kind", list(PowerKind))
def test_every_kind_of_power_event(kind: PowerKind) -> None:
    power = parse(encoded(power=(65535, kind.word, U32))).power
    assert power == PowerEvent(serial=65535, kind=kind, outage_ms=U32)


@pytest.mark.parametrize(("name", "maximum"), [*TOLD.items(), *ALWAYS.items()])
def test_one_more_than_each_bound(name: str, maximum: int) -> None:
    minimum = -128 if name == "celsius" else 0
    for value in (minimum, maximum):
        parse(encoded(**{name: value}))
    for wrong in (minimum - 1, maximum + 1, 1.0, True, "1", [1], {}):
        assert refused(encoded(**{name: wrong})) is Refusal.MALFORMED


@pytest.mark.parametrize("power", [(65536, "cold", 0), (-1, "cold", 0), (1, "storm", 0), (1, 3, 0), (1, "cold", 2**32)])
def test_one_more_than_each_bound_of_the_power(power: tuple[Any, ...]) -> None:
    assert refused(encoded(power=power)) is Refusal.MALFORMED


@pytest.mark.parametrize("name", herald_body())
def test_a_key_that_is_missing(name: str) -> None:
    body = herald_body()
    del body[name]
    assert refused(json.dumps(body).encode()) is Refusal.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"is_up": 1},
        {"said": "hello"},
        {"said": None},
        {"chip": "v" * (MAX_CHIP_LENGTH + 1)},
        {"chip": "1.0\n"},
        {"chip": "<b>"},
        {"chip": "バ"},
        {"chip": 1},
    ],
)
def test_another_value(change: dict[str, Any]) -> None:
    parse(encoded(chip="v" * MAX_CHIP_LENGTH))
    assert refused(encoded(**change)) is Refusal.MALFORMED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"[" * MAX_BYTES,
        b"\xff" * 20,
        encoded()[:-1] + b', "more": 1}',
        encoded()[:-1] + b', "past_s": 0}',
        encoded().replace(b'"outage_ms": 0', b'"outage_ms": 0, "more": 0'),
        encoded().replace(b'{"serial": 1, "kind": "cold", "outage_ms": 0}', b"null"),
        encoded().replace(b'"moves": 1', b'"moves": NaN'),
        encoded().replace(b'"moves": 1', b'"moves": ' + b"9" * 1000),
    ],
)
def test_what_is_no_such_file(data: bytes) -> None:
    assert refused(data) is Refusal.MALFORMED


def test_one_byte_too_many() -> None:
    parse(encoded().ljust(MAX_BYTES))
    assert refused(encoded().ljust(MAX_BYTES + 1)) is Refusal.OVERSIZE


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(herald_body())), inner),
    max_leaves=30,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_stands_there_is_believed_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except RefusedStateError:
        return


@given(st.sampled_from(sorted(herald_body())), st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=70))
def test_one_value_that_is_anything(name: str, value: object) -> None:
    body = herald_body() | {name: value}
    try:
        found = parse(json.dumps(body).encode())
    except RefusedStateError:
        return
    for field, maximum in (("moves", U32), ("past_s", U32), ("millivolts", 65535), ("celsius", 127), ("resets", 255)):
        told = getattr(found, field)
        assert told is None or -128 <= told <= maximum


class TestReader:
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "supervisor" / "state.json"
        self.clock = ManualClock()
        self.reader = StateReader(self.path, self.clock.monotonic)

    def refused(self) -> Refusal:
        with pytest.raises(RefusedStateError) as caught:
            self.reader.read()
        return caught.value.reason

    def test_a_board_without_a_supervisor(self) -> None:
        assert self.reader.read() is None
        write_herald_file(self.path, is_up=False, chip=None)  # the herald is there, nobody has answered it
        self.clock.advance(STALE_S * 100)
        assert self.reader.read() is None
        assert not self.reader.refused

    def test_a_supervisor_that_went_silent_is_told_as_one(self) -> None:
        write_herald_file(self.path, is_up=False)
        self.clock.advance(STALE_S * 100)
        found = self.reader.read()
        assert found is not None
        assert not found.is_up

    def test_a_file_that_does_not_change_any_more(self, caplog: pytest.LogCaptureFixture) -> None:
        write_herald_file(self.path)
        assert self.reader.read() is not None
        self.clock.advance(STALE_S)
        assert self.reader.read() is not None
        self.clock.advance(0.1)
        assert [self.refused(), self.refused()] == [Refusal.STALE] * 2
        assert self.reader.refused == {Refusal.STALE: 2}
        assert len(caplog.records) == 1  # not a line every two seconds
        write_herald_file(self.path)
        assert self.reader.read() is not None
        assert self.reader.refused == {Refusal.STALE: 2}

    def test_the_box_s_clock_may_jump(self) -> None:
        write_herald_file(self.path)
        os.utime(self.path, (0, 0))
        assert self.reader.read() is not None

    def test_each_reason_is_counted(self, tmp_path: Path) -> None:
        write_herald_file(self.path)
        self.path.write_bytes(b"{")
        assert self.refused() is Refusal.MALFORMED
        self.path.write_bytes(bytes(MAX_BYTES + 1))
        assert self.refused() is Refusal.OVERSIZE
        self.path.unlink()
        self.path.mkdir()
        assert self.refused() is Refusal.UNREADABLE
        self.path.rmdir()
        write_herald_file(tmp_path / "elsewhere")
        self.path.symlink_to(tmp_path / "elsewhere")
        assert self.refused() is Refusal.UNREADABLE
        assert self.reader.refused == {Refusal.MALFORMED: 1, Refusal.OVERSIZE: 1, Refusal.UNREADABLE: 2}
