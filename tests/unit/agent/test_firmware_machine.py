"""Rules of the update without a box: what follows from what, what is true after a start, what is written down."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.errors import SetupError
from omamori_agent.firmware.boot_facts import load_boot_facts
from omamori_agent.firmware.floor import Floor, load_floor, save_floor
from omamori_agent.firmware.machine import AttemptEnd, BootFacts, Step, next_step, observe
from omamori_agent.firmware.record import MAX_REFUSED, Record, Refused, StateError, parse_record
from omamori_agent.firmware.states import TRANSITIONS
from omamori_protocol.vocabulary import FirmwareReason, FirmwareState, Slot
from sim.firmware_box import settings

S = FirmwareState
R = FirmwareReason

REASONS = st.sampled_from(list(R))
RECORDS = st.builds(
    Record,
    state=st.sampled_from(list(S)),
    version=st.sampled_from(["", "1.0.0", "1.1.0", "1.2.0"]),
    reason=REASONS,
    verdict=REASONS,
    trials=st.integers(0, 5),
    installs=st.integers(0, 5),
    boot_id=st.sampled_from(["", "now", "before"]),
    is_important=st.booleans(),
    refused=st.lists(
        st.builds(Refused, version=st.sampled_from(["1.1.0", "1.2.0"]), reason=REASONS, detail=st.just("x")),
        max_size=2,
    ).map(tuple),
)
FACTS = st.builds(
    BootFacts,
    slot=st.sampled_from(list(Slot)),
    is_trial=st.booleans(),
    attempt=st.none() | st.sampled_from(list(AttemptEnd)),
    boot_id=st.just("now"),
    version=st.sampled_from(["1.0.0", "1.1.0"]),
)


def facts(**changes: Any) -> BootFacts:
    values: dict[str, Any] = {"slot": Slot.A, "is_trial": False, "attempt": None, "boot_id": "now", "version": "1.0.0"}
    return BootFacts(**(values | changes))


def test_every_state_has_its_ways() -> None:
    assert set(TRANSITIONS) == set(S)
    for state, ways in TRANSITIONS.items():
        assert state not in ways
    assert TRANSITIONS[S.TRYING] == {S.COMMITTED, S.ROLLED_BACK}


def test_way_that_does_not_exist() -> None:
    with pytest.raises(StateError):
        Record(state=S.DOWNLOADING).move(S.REBOOT_PENDING)


@given(RECORDS, FACTS)
def test_whatever_was_written_down_the_truth_is_found(record: Record, found: BootFacts) -> None:
    seen = observe(record, found)
    assert observe(seen, found) == seen
    if found.is_trial and record.boot_id != "now":
        assert (seen.state, seen.version) == (S.TRYING, found.version)
    if not found.is_trial and record.boot_id != "now":
        assert seen.state is not S.TRYING
    assert seen.state is not S.INSTALLING or (found.is_trial and record.boot_id == "now")


@given(RECORDS, st.none() | st.builds(settings, st.sampled_from(["1.0.0", "1.1.0", "1.2.0"])))
def test_there_is_always_something_to_do_and_it_is_allowed(record: Record, wanted: Any) -> None:
    step = next_step(record, wanted, "1.0.0", 3)
    if step in {Step.FETCH, Step.INSTALL, Step.RESTART, Step.HOLD}:
        assert wanted is not None
        assert record.version == wanted.version != "1.0.0"
    if step is Step.BEGIN:
        assert wanted is not None
        assert record.refusal(wanted.version) is None
    if record.state is S.TRYING:
        assert step is Step.JUDGE


@pytest.mark.parametrize("state", [S.REBOOT_PENDING, S.TRYING])
@pytest.mark.parametrize("end", [None, *AttemptEnd])
def test_old_firmware_runs_again(state: S, end: AttemptEnd | None) -> None:
    record = Record(state=state, version="1.1.0", boot_id="before", trials=0 if state is S.REBOOT_PENDING else 1)
    seen = observe(record, facts(attempt=end))
    if state is S.REBOOT_PENDING and end in {None, AttemptEnd.SET, AttemptEnd.STARTED, AttemptEnd.COMMITTING}:
        assert seen.state is S.REBOOT_PENDING  # nobody has tried it
        return
    assert seen.state is S.ROLLED_BACK
    assert seen.trials == 1
    assert not seen.is_told


def test_verdict_of_the_trial_is_what_counts() -> None:
    record = Record(state=S.TRYING, version="1.1.0", boot_id="before", verdict=R.ENGINE_DOWN, detail="not well")
    seen = observe(record, facts(attempt=AttemptEnd.INTERRUPTED))
    assert (seen.reason, seen.detail, seen.verdict) == (R.ENGINE_DOWN, "not well", R.NONE)


def test_commit_that_was_not_written_down() -> None:
    record = Record(state=S.TRYING, version="1.1.0", boot_id="before")
    assert observe(record, facts(version="1.1.0", slot=Slot.B)).state is S.COMMITTED


@given(RECORDS)
def test_record_there_and_back(record: Record) -> None:
    assert parse_record(record.to_json()) == record


def test_record_of_a_newer_agent() -> None:
    body = json.loads(Record(version="1.1.0", state=S.TRYING).to_json()) | {"new": [1]}
    body["reason"] = 200
    assert parse_record(json.dumps(body).encode()) == Record(version="1.1.0", state=S.TRYING)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"state": 99},
        {"state": True},
        {"version": "one"},
        {"version": 1},
        {"sha256": "xyz"},
        {"length": -1},
        {"is_told": 1},
        {"trials": 2**40},
        {"refused": 5},
        {"refused": [{"version": "1.1.0"}]},
        {"detail": None},
    ],
)
def test_record_that_cannot_be(changes: dict[str, Any]) -> None:
    body = json.loads(Record(version="1.1.0").to_json()) | changes
    with pytest.raises(ValueError):
        parse_record(json.dumps(body).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"[" * 100_000])
def test_record_that_is_none(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_record(data)


def test_oldest_refusals_are_forgotten() -> None:
    record = Record()
    for number in range(MAX_REFUSED + 3):
        record = dataclasses.replace(record, version=f"1.{number}.0").with_refused()
    assert len(record.refused) == MAX_REFUSED
    assert record.refusal("1.0.0") is None
    assert record.refusal(f"1.{MAX_REFUSED + 2}.0") is not None
    assert parse_record(record.to_json()) == record


def test_floor_only_rises(tmp_path: Path) -> None:
    path = tmp_path / "floor.json"
    assert load_floor(path) == Floor()
    floor = Floor().raised("1.2.0", 3).raised("1.10.0", 2).raised("1.3.0-dev.1", 5)
    assert floor == Floor("1.10.0", 5)
    save_floor(path, floor)
    assert load_floor(path) == floor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format":2}',
        '{"format":1,"version":"x","epoch":1}',
        '{"format":1,"version":"","epoch":-1}',
        "x" * 2000,
    ],
)
def test_floor_that_is_damaged_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "floor.json"
    path.write_text(text)
    assert load_floor(path) == Floor()


GOOD: dict[str, Any] = {
    "format": 1,
    "slot": "B",
    "committed": "A",
    "is_trial": True,
    "reason": "trial",
    "attempt": {"slot": "B", "end": "started"},
    "other": {"slot": "A", "state": "good"},
}


def test_boot_facts(tmp_path: Path) -> None:
    path = tmp_path / "boot.json"
    path.write_text(json.dumps(GOOD | {"new": 1}))
    assert load_boot_facts(path, boot_id="b", version="1.0.0") == BootFacts(
        slot=Slot.B, is_trial=True, attempt=AttemptEnd.STARTED, boot_id="b", version="1.0.0"
    )
    path.write_text(json.dumps(GOOD | {"attempt": None}))
    assert load_boot_facts(path, boot_id="b", version="1.0.0").attempt is None


@pytest.mark.parametrize(
    "changes",
    [{"format": 2}, {"slot": "C"}, {"slot": None}, {"is_trial": 1}, {"attempt": {"end": "x"}}, {"attempt": []}],
)
def test_boot_facts_that_cannot_be(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "boot.json"
    path.write_text(json.dumps(GOOD | changes))
    with pytest.raises(SetupError):
        load_boot_facts(path, boot_id="b", version="1.0.0")
    path.unlink()
    with pytest.raises(SetupError, match="missing"):
        load_boot_facts(path, boot_id="b", version="1.0.0")
