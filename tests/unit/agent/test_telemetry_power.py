"""Each power event is told once, whoever restarts in between; and what began a run of the box is known."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.telemetry.power import MAX_LENGTH, Seen, decode, look, must_keep
from omamori_agent.telemetry.state_file import PowerEvent
from omamori_protocol.vocabulary import PowerKind

COLD = PowerEvent(serial=1, kind=PowerKind.COLD, outage_ms=0)
PULLED = PowerEvent(serial=2, kind=PowerKind.SHORT_PULL, outage_ms=5000)
DIPPED = PowerEvent(serial=3, kind=PowerKind.DIP, outage_ms=120)


def seen(event: PowerEvent = COLD, boot_id: str = "a", uptime_s: int = 400, restarts: int = 0) -> Seen:
    return Seen(boot_id=boot_id, event=event, uptime_s=uptime_s, restarts=restarts, beginning=None)


def test_the_first_one_ever() -> None:
    now, is_new = look(None, boot_id="a", event=COLD, uptime_s=30, restarts=0)
    assert is_new
    assert now == Seen(boot_id="a", event=COLD, uptime_s=30, restarts=0, beginning=COLD)
    assert look(now, boot_id="a", event=COLD, uptime_s=32, restarts=0)[1] is False


def test_a_pulled_plug_begins_a_run() -> None:
    now, is_new = look(seen(), boot_id="b", event=PULLED, uptime_s=900, restarts=0)
    assert (is_new, now.beginning) == (True, PULLED)
    after, is_new = look(now, boot_id="b", event=DIPPED, uptime_s=950, restarts=0)  # the box ran on
    assert (is_new, after.beginning) == (True, PULLED)


def test_a_restart_with_the_power_there() -> None:
    now, is_new = look(seen(PULLED), boot_id="b", event=PULLED, uptime_s=900, restarts=0)
    assert (is_new, now.beginning) == (False, None)


def test_the_same_number_after_the_supervisor_was_without_supply() -> None:
    now, is_new = look(seen(COLD, uptime_s=400), boot_id="b", event=COLD, uptime_s=45, restarts=0)
    assert (is_new, now.beginning) == (True, COLD)


def test_a_supervisor_that_restarted_itself_has_kept_its_memory() -> None:
    now, is_new = look(seen(PULLED, uptime_s=400), boot_id="a", event=PULLED, uptime_s=3, restarts=1)
    assert not is_new
    # And then it was without supply; its count of restarts begins anew as well.
    assert look(now, boot_id="b", event=PULLED, uptime_s=2, restarts=0)[1]


def test_the_same_number_and_kind_but_another_length() -> None:
    longer = dataclasses.replace(PULLED, outage_ms=5001)
    assert look(seen(PULLED), boot_id="b", event=longer, uptime_s=900, restarts=0)[1]


def test_nothing_happened_is_no_event() -> None:
    nothing = PowerEvent(serial=0, kind=PowerKind.NONE, outage_ms=0)
    now, is_new = look(None, boot_id="a", event=nothing, uptime_s=1, restarts=0)
    assert (is_new, now.beginning) == (False, None)


def test_the_supervisors_time_is_kept_early_and_then_rarely() -> None:
    kept, writes = seen(uptime_s=10), []
    for uptime_s in range(10, 24 * 3600, 2):
        now = dataclasses.replace(kept, uptime_s=uptime_s)
        if must_keep(kept, now):
            writes.append(uptime_s)
            kept = now
    assert writes[:4] == [80, 220, 500, 1060]
    assert len(writes) < 150
    assert must_keep(kept, dataclasses.replace(kept, uptime_s=kept.uptime_s - 1))
    assert must_keep(kept, dataclasses.replace(kept, boot_id="z"))


EVENTS = st.builds(
    PowerEvent,
    serial=st.integers(0, 65535),
    kind=st.sampled_from(list(PowerKind)),
    outage_ms=st.integers(0, 2**32 - 1),
)
SEEN = st.builds(
    Seen,
    boot_id=st.uuids().map(str),
    event=EVENTS,
    uptime_s=st.integers(0, 2**32 - 1),
    restarts=st.integers(0, 65535),
    beginning=st.none() | EVENTS,
)


@given(SEEN)
def test_round_trip(one: Seen) -> None:
    assert len(one.encode()) <= MAX_LENGTH
    assert decode(one.encode()) == one


@given(SEEN, st.uuids().map(str))
def test_looking_twice_finds_nothing_new(one: Seen, boot_id: str) -> None:
    now, _ = look(one, boot_id=boot_id, event=one.event, uptime_s=one.uptime_s, restarts=one.restarts)
    again, is_new = look(now, boot_id=boot_id, event=one.event, uptime_s=one.uptime_s, restarts=one.restarts)
    assert (again, is_new) == (now, False)


GOOD = json.loads(seen(PULLED).encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * MAX_LENGTH,
        json.dumps(GOOD).ljust(MAX_LENGTH + 1),
        *(json.dumps({**GOOD, name: value}) for name, value in [
            ("format", 2), ("boot_id", 1), ("boot_id", "x" * 65), ("event", None), ("event", [1, 2]),
            ("event", [1, 6, 0]), ("event", [1, 2, 2**32]), ("event", [1, True, 0]), ("uptime_s", -1),
            ("restarts", "1"), ("beginning", 1), ("more", 1),
        ]),
    ],
)  # fmt: skip
def test_what_was_not_kept_by_us(text: str) -> None:
    with pytest.raises(ValueError):
        decode(text)
