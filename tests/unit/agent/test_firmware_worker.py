"""An update from the wish to the commit, and everything that may come between."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_agent.firmware.machine import AttemptEnd
from omamori_agent.report import box_report
from omamori_protocol.desired import Metered
from omamori_protocol.firmware_release import Importance
from omamori_protocol.vocabulary import FirmwareReason, FirmwareState, Slot
from sim.firmware_box import NEVER, TUESDAYS, WELL, FirmwareBox, settings
from sim.firmware_release import ReleaseSource, noise
from sim.repository import status

S = FirmwareState
R = FirmwareReason
OLD = noise("old root", 300_000)
BUNDLE = noise("1.1.0", 500_000)
ROOTHASH = bytes.fromhex("ab" * 32)


def source(version: str = "1.1.0", **changes: Any) -> ReleaseSource:
    return ReleaseSource(version=version, bundle=BUNDLE if version == "1.1.0" else noise(version, 400_000), **changes)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[FirmwareBox]:
    made = FirmwareBox(tmp_path)
    made.devices[0].write_bytes(OLD)
    with made.server:
        yield made


def test_from_the_wish_to_the_commit(box: FirmwareBox) -> None:
    box.release(source())
    box.status.update(connected=True)
    assert box.part_state() == "applied"
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    assert box.slots.versions == {Slot.A: "1.0.0", Slot.B: "1.1.0"}
    assert box.part_state().startswith("pending: reboot-pending")
    box.steps(1)
    assert box.wants_restart
    assert box.record.was_connected
    box.restart()
    assert (box.state, box.slots.running) == (S.TRYING, Slot.B)
    assert box.part_state() == "pending: 1.1.0 is on trial"
    box.steps(30)
    assert (box.state, box.slots.committed) == (S.COMMITTED, Slot.B)
    assert box.part_state() == "applied"
    assert not box.store.bundle.exists()
    assert (box.store.floor.version, box.store.floor.epoch) == ("1.1.0", 3)
    assert [state for _, state, _ in box.told] == [
        S.DOWNLOADING,
        S.VERIFIED,
        S.INSTALLING,
        S.REBOOT_PENDING,
        S.TRYING,
        S.COMMITTED,
    ]
    assert box.console[-1] == "firmware version=1.1.0 state=committed slot=B reason=-"
    assert box.paths.firmware_result.read_text() == "done\n"
    before = list(box.slots.calls)
    box.boot()
    box.steps(5)
    assert (box.state, box.slots.calls) == (S.COMMITTED, before)


def test_status_tells_how_far_it_is(box: FirmwareBox) -> None:
    assert "error" in box_report(box.paths)["firmware"]
    box.release(source())
    box.want(settings(window=TUESDAYS))
    box.until(S.REBOOT_PENDING)
    box.steps(2)
    assert box_report(box.paths)["firmware"] == {
        "version": "1.1.0",
        "state": "reboot-pending",
        "reason": "waits-for-window",
        "detail": "the window opens 2026-09-22 01:00 UTC",
        "trials": 0,
    }


def test_three_updates_in_a_row_and_never_back(box: FirmwareBox) -> None:
    for version, slot in (("1.1.0", Slot.B), ("1.2.0", Slot.A), ("1.10.0", Slot.B)):
        box.release(source(version))
        box.want(settings(version))
        box.until(S.REBOOT_PENDING)
        box.restart()
        box.until(S.COMMITTED)
        assert (box.slots.version, box.slots.committed) == (version, slot)
    box.want(settings("1.2.0"))
    box.steps(3)
    assert (box.state, box.record.reason) == (S.FAILED, R.OLDER_VERSION)
    assert box.part_state() == "pending: failed: older-version: 1.2.0 is not newer than 1.10.0"
    assert box.slots.version == "1.10.0"


def test_difference_is_fetched_where_there_is_one(box: FirmwareBox) -> None:
    mixed = OLD[:200_000] + noise("new", 100_000) + OLD[200_000:]
    made = ReleaseSource(version="1.1.0", bundle=mixed, base=("1.0.0", OLD, ROOTHASH))
    places = box.release(made)
    box.want(settings(metered=Metered.NEVER, rate_kbps=50_000))
    box.until(S.VERIFIED)
    assert set(box.server.sent) == {places["delta"]}
    assert box.server.sent[places["delta"]] == len(box.repo.files[places["delta"]]) < 150_000
    assert box.store.bundle.read_bytes() == mixed


@pytest.mark.parametrize("trouble", ["another build", "changed bytes", "short device", "no device"])
@pytest.mark.parametrize("metered", list(Metered))
def test_difference_that_does_not_fit(box: FirmwareBox, trouble: str, metered: Metered) -> None:
    made = source(base=("1.0.0", OLD, ROOTHASH if trouble != "another build" else bytes(32)))
    made.bundle = OLD[:250_000] + noise("new", 50_000)
    places = box.release(made)
    if trouble == "changed bytes":
        box.devices[0].write_bytes(noise("something else", len(OLD)))
    if trouble == "no device":
        box.devices[1].unlink()
    if trouble == "short device":
        box.devices[0].write_bytes(OLD[:1000])
    box.want(settings(metered=metered))
    if metered is Metered.ALLOW:
        box.until(S.VERIFIED)
        assert places["full"] in box.server.sent
        return
    box.steps(6)
    assert (box.state, box.record.reason) == (S.DOWNLOADING, R.NEEDS_PERMISSION)
    assert places["full"] not in box.server.sent
    assert ("1.1.0", S.DOWNLOADING, R.NEEDS_PERMISSION) in box.told
    assert ("somebody has to allow" in box.part_state()) == (metered is Metered.ASK)
    box.want(settings(metered=Metered.ALLOW))
    box.until(S.VERIFIED)


def test_owner_refuses_what_is_not_important(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings(owner_refuses_scheduled=True))
    box.steps(4)
    assert (box.state, box.record.reason) == (S.IDLE, R.OWNER_REFUSES)
    assert box.server.sent == {}
    assert box.told == [("1.1.0", S.IDLE, R.OWNER_REFUSES)]
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    box.want(settings(owner_refuses_scheduled=True))
    box.steps(2)
    assert (box.state, box.record.reason, box.slots.next) == (S.VERIFIED, R.OWNER_REFUSES, None)
    box.restart()
    assert (box.slots.running, box.state) == (Slot.A, S.VERIFIED)
    box.steps(3)
    assert "install" in box.slots.calls
    assert box.slots.calls.count("install") == 1
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    assert box.slots.next is Slot.B


def test_owner_cannot_refuse_what_is_important(box: FirmwareBox) -> None:
    box.release(source(importance=Importance.IMPORTANT))
    box.want(settings(owner_refuses_scheduled=True))
    box.until(S.REBOOT_PENDING)


def test_it_waits_for_its_window(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings(window=TUESDAYS))
    box.until(S.REBOOT_PENDING)
    box.steps(5)
    assert not box.wants_restart
    assert box.record.reason is R.WAITS_FOR_WINDOW
    assert box.record.detail == "the window opens 2026-09-22 01:00 UTC"
    opens_s = dt.datetime(2026, 9, 22, 1, tzinfo=dt.UTC).timestamp()
    box.clock.advance(opens_s - box.clock.now() - 3)
    box.steps(2)
    assert not box.wants_restart
    box.steps(3)
    assert box.wants_restart


def test_the_owners_power_pull_does_not_wait_for_the_window(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings(window=TUESDAYS))
    box.until(S.REBOOT_PENDING)
    box.steps(2)
    box.restart()
    box.until(S.COMMITTED)


def test_longest_wait_counts_across_starts_of_the_agent(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings(window=TUESDAYS, max_wait_s=7200))
    box.until(S.REBOOT_PENDING)
    for _ in range(11):
        box.steps(3, seconds=300.0)  # of which ten minutes are written down
        box.boot()
    assert not box.wants_restart
    box.steps(8, seconds=300.0)
    assert box.wants_restart


def test_clock_that_is_not_known_leaves_the_longest_wait(box: FirmwareBox) -> None:
    box.release(source())
    box.is_clock_known = False
    box.want(settings(max_wait_s=3600))
    box.until(S.REBOOT_PENDING)
    box.steps(3)
    assert (box.record.reason, box.wants_restart) == (R.CLOCK_UNKNOWN, False)
    box.steps(2, seconds=3600.0)
    assert box.wants_restart


def test_clock_that_is_not_known_is_told_where_no_server_can_be_believed(box: FirmwareBox) -> None:
    box.release(source())
    box.is_clock_known = False
    box.server.behaviours["metadata/timestamp.json"] = status(503)  # as good as a certificate that begins in 2026
    box.want(settings())
    box.steps(3)
    assert (box.state, box.record.reason) == (S.IDLE, R.CLOCK_UNKNOWN)
    assert "no server can be believed: metadata" in box.part_state()
    assert box.told == [("1.1.0", S.IDLE, R.CLOCK_UNKNOWN)]
    box.is_clock_known = True
    box.server.behaviours.clear()
    box.steps(6, seconds=30.0)  # not after an hour
    box.until(S.REBOOT_PENDING)


def test_zone_that_the_image_does_not_know_leaves_the_longest_wait(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings(window=dataclasses.replace(TUESDAYS, zone="Mars/Olympus"), max_wait_s=3600))
    box.until(S.REBOOT_PENDING)
    box.steps(3)
    assert (box.record.reason, box.wants_restart) == (R.CLOCK_UNKNOWN, False)
    assert "no time zone Mars/Olympus" in box.record.detail


def test_no_waiting_at_all(box: FirmwareBox) -> None:
    box.release(source())
    box.is_clock_known = False
    box.want(settings(window=TUESDAYS, max_wait_s=0))
    box.until(S.REBOOT_PENDING)
    box.steps(1)
    assert box.wants_restart


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"forwards": False}, R.WIRE_DOWN),
        ({"inspects": False}, R.ENGINE_DOWN),
        ({"canary": False}, R.CANARY_UNSEEN),
        ({"data_is_writable": False}, R.DATA_NOT_WRITABLE),
        ({"has_identity": False}, R.NO_IDENTITY),
        ({"is_connected": False}, R.CLOUD_LOST),
    ],
)
def test_trial_that_is_not_well_ends_on_the_old_slot(box: FirmwareBox, changes: dict[str, Any], reason: R) -> None:
    box.release(source())
    box.status.update(connected=True)
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    box.restart()
    box.health = dataclasses.replace(WELL, **changes)
    box.steps(20)
    assert not box.wants_restart
    box.boottime_s = 541.0
    box.steps(3)
    assert box.wants_restart
    assert box.slots.calls[-1] == "reject"
    box.restart()
    assert (box.slots.running, box.state, box.record.reason) == (Slot.A, S.ROLLED_BACK, reason)
    box.steps(1)
    assert ("1.1.0", S.ROLLED_BACK, reason) in box.told
    assert box.paths.firmware_result.read_text() == "taken-back\n"
    event = box.outbox.events[-1]
    assert (event.booted_slot, event.running_firmware) == (Slot.A, "1.0.0")
    installs = box.slots.calls.count("install")
    box.steps(10, seconds=6000.0)
    is_tried_again = box.slots.calls.count("install") > installs
    assert is_tried_again == (reason is R.CLOUD_LOST)
    assert box.part_state().startswith("pending" if is_tried_again else f"refused: {reason.word}")


@pytest.mark.parametrize(
    ("end", "reason", "is_final"),
    [
        (AttemptEnd.NEVER_STARTED, R.NOT_STARTED, False),
        (AttemptEnd.INTERRUPTED, R.INTERRUPTED, False),
        (AttemptEnd.DEADLINE, R.DEADLINE, True),
        (AttemptEnd.CRASH_LOOP, R.CRASH_LOOP, True),
        (AttemptEnd.MIGRATION, R.MIGRATION_FAILED, True),
    ],
)
def test_trial_that_never_reached_the_agent(box: FirmwareBox, end: AttemptEnd, reason: R, is_final: bool) -> None:
    box.release(source())
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    box.restart(end)
    box.steps(1)
    assert (box.slots.running, box.state, box.record.reason) == (Slot.A, S.ROLLED_BACK, reason)
    assert box.told[-1] == ("1.1.0", S.ROLLED_BACK, reason)
    assert box.part_state().startswith("refused" if is_final else "pending")
    assert box.store.bundle.exists() != is_final  # what may be tried again is not fetched again
    box.steps(5)
    assert box.state is S.ROLLED_BACK  # not in the same night
    box.release(source("1.2.0"))
    box.want(settings("1.2.0"))
    box.until(S.REBOOT_PENDING)
    box.restart()
    box.until(S.COMMITTED)
    assert box.slots.version == "1.2.0"


def test_firmware_that_never_starts_is_tried_three_times(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings())
    for _ in range(3):
        box.until(S.REBOOT_PENDING)
        box.restart(AttemptEnd.NEVER_STARTED)
        assert box.state is S.ROLLED_BACK
        box.steps(3, seconds=7 * 3600.0)
    box.steps(10, seconds=7 * 3600.0)
    assert (box.state, box.record.trials) == (S.ROLLED_BACK, 3)
    assert (
        box.part_state()
        == "refused: not-started: the machine did not start the firmware, or it found no root file system"
    )
    assert box.slots.calls.count("activate") == 3


def test_power_pull_during_the_trial_is_no_verdict(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    box.restart()
    box.steps(3)
    box.restart()
    assert (box.slots.running, box.state, box.record.reason) == (Slot.A, S.ROLLED_BACK, R.INTERRUPTED)
    box.steps(2, seconds=7 * 3600.0)
    box.until(S.REBOOT_PENDING)
    box.restart()
    box.until(S.COMMITTED)
    assert box.record.trials == 2


def test_wish_taken_back_before_the_restart(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings(window=TUESDAYS))
    box.until(S.REBOOT_PENDING)
    box.want(None)
    box.steps(2)
    assert (box.state, box.record.reason, box.slots.next) == (S.IDLE, R.SUPERSEDED, None)
    assert not box.store.bundle.exists()
    box.restart()
    assert (box.slots.running, box.part_state()) == (Slot.A, "applied")


def test_another_wish_before_the_restart(box: FirmwareBox) -> None:
    box.release(source())
    box.release(source("1.2.0"))
    box.want(settings(window=TUESDAYS))
    box.until(S.REBOOT_PENDING)
    box.want(settings("1.2.0", window=TUESDAYS))
    box.steps(1)
    assert box.slots.next is None
    box.until(S.REBOOT_PENDING)
    assert (box.record.version, box.slots.versions[Slot.B]) == ("1.2.0", "1.2.0")


def test_bundle_that_rauc_refuses_is_not_tried_again(box: FirmwareBox) -> None:
    box.release(source())
    box.slots.bundles.clear()
    box.want(settings())
    box.steps(8)
    assert (box.state, box.record.reason) == (S.FAILED, R.BUNDLE_REFUSED)
    assert box.part_state().startswith("refused: bundle-refused: RAUC:")
    assert not box.store.bundle.exists()
    box.boot()
    box.steps(20, seconds=3600.0)
    assert box.slots.calls.count("install") == 1
    box.release(source("1.2.0"))
    box.want(settings("1.2.0"))
    box.until(S.REBOOT_PENDING)


def test_install_that_fails_is_tried_again_without_fetching(box: FirmwareBox) -> None:
    places = box.release(source())
    box.slots.failures["install"] = 2
    box.want(settings())
    for _ in range(3):
        box.steps(8, seconds=1800.0)
    assert box.state is S.REBOOT_PENDING
    assert box.slots.calls.count("install") == 3
    assert box.server.sent[places["full"]] == len(box.repo.files[places["full"]])


def test_install_that_always_fails_ends(box: FirmwareBox) -> None:
    box.release(source())
    box.slots.failures["install"] = 100
    box.want(settings())
    box.steps(60, seconds=1800.0)
    assert (box.state, box.record.reason) == (S.FAILED, R.INSTALL_FAILED)
    assert box.slots.calls.count("install") == box.limits.installs
    assert box.part_state().startswith("refused: install-failed")


def test_activation_that_fails_is_tried_again(box: FirmwareBox) -> None:
    box.release(source())
    box.slots.failures["activate"] = 1
    box.want(settings())
    box.steps(12, seconds=1800.0)
    assert box.state is S.REBOOT_PENDING
    assert box.slots.next is Slot.B


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        ({"min_from": "1.0.5"}, R.NEEDS_STEP_BETWEEN, "needs 1.0.5 first, this box runs 1.0.0"),
        ({"epoch": 2}, R.EPOCH_TOO_LOW, "security epoch 2 is lower than 3"),
    ],
)
def test_release_that_this_box_must_not_take(box: FirmwareBox, changes: dict[str, Any], reason: R, text: str) -> None:
    box.release(source(**changes))
    box.want(settings())
    box.steps(3)
    assert (box.state, box.record.reason) == (S.FAILED, reason)
    assert text in box.part_state()
    assert box.server.sent == {}
    assert box.told == [("1.1.0", S.FAILED, reason)]
    box.steps(10, seconds=3600.0)
    assert len(box.told) == 1


def test_release_of_another_board(box: FirmwareBox) -> None:
    box.release(source(), board="aarch64-uefi", payloads=[])
    box.want(settings())
    box.steps(3)
    assert (box.state, box.record.reason) == (S.FAILED, R.METADATA_REFUSED)


def test_version_that_nobody_has_signed_is_looked_for_again(box: FirmwareBox) -> None:
    box.want(settings())
    box.steps(3)
    assert (box.state, box.record.reason) == (S.FAILED, R.NOT_RELEASED)
    box.release(source())
    box.steps(3, seconds=3600.0)
    box.until(S.REBOOT_PENDING)


def test_metadata_that_has_expired_stops_nothing_but_the_update(box: FirmwareBox) -> None:
    box.release(source())
    box.repo.timestamp.expires = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
    box.repo.resign()
    box.want(settings())
    box.steps(3)
    assert (box.state, box.record.reason) == (S.IDLE, R.METADATA_EXPIRED)
    assert box.told == [("1.1.0", S.IDLE, R.METADATA_EXPIRED)]
    box.repo.timestamp.expires = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    box.repo.resign()
    box.steps(2, seconds=3600.0)
    box.until(S.REBOOT_PENDING)


def test_metadata_signed_by_the_wrong_key(box: FirmwareBox) -> None:
    box.release(source())
    box.repo.targets.version += 1
    box.repo.write(box.repo.targets, "targets", by=box.repo.signers["feed"])
    box.repo.resign()
    box.want(settings())
    box.steps(3)
    assert (box.state, box.record.reason) == (S.FAILED, R.METADATA_REFUSED)
    assert box.server.sent == {}


def test_stick_with_everything_needs_no_network(box: FirmwareBox) -> None:
    box.release(source())
    box.make_stick()
    box.repo.files.clear()
    box.want(settings(metered=Metered.NEVER))
    box.until(S.REBOOT_PENDING)
    assert box.server.requests == []
    box.restart()
    box.until(S.COMMITTED)


def test_stick_that_comes_later_ends_the_wait(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings(metered=Metered.NEVER))
    box.steps(3)
    assert box.record.reason is R.NEEDS_PERMISSION
    box.make_stick()
    box.until(S.VERIFIED, steps=4)


@pytest.mark.parametrize("spoil", ["metadata", "payload", "link"])
def test_stick_that_was_tampered_with(box: FirmwareBox, spoil: str) -> None:
    places = box.release(source())
    box.make_stick()
    payload = box.paths.stick / places["full"]
    if spoil == "payload":
        payload.write_bytes(bytes(payload.stat().st_size))
    elif spoil == "link":
        moved = payload.with_name("moved")
        payload.rename(moved)
        payload.symlink_to(moved)
    else:
        (box.paths.stick / "metadata/timestamp.json").write_text("{}")
    box.want(settings())
    if spoil == "metadata":  # then the repository is asked
        box.until(S.VERIFIED)
        assert box.server.sent
        return
    box.steps(8)
    assert box.state in {S.DOWNLOADING, S.FAILED}
    assert box.record.reason in {R.PAYLOAD_REFUSED, R.UNREACHABLE}
    assert not box.slots.calls


def test_space_that_is_not_there(box: FirmwareBox) -> None:
    box.limits = dataclasses.replace(box.limits, reserve_bytes=2**60)
    box.boot()
    box.release(source())
    box.want(settings())
    box.steps(3)
    assert (box.state, box.record.reason) == (S.DOWNLOADING, R.NO_SPACE)
    assert ("1.1.0", S.DOWNLOADING, R.NO_SPACE) in box.told


def test_box_without_the_truth_about_its_slots_does_nothing(box: FirmwareBox) -> None:
    box.paths.boot_facts.unlink()
    box.boot()
    box.release(source())
    box.want(settings())
    box.steps(3)
    assert (box.state, box.server.requests) == (S.IDLE, [])
    assert box.part_state() == "pending: not looked at yet"


def test_trial_that_the_record_knows_nothing_of(box: FirmwareBox) -> None:
    box.slots.versions[Slot.B] = "1.1.0"
    box.slots.activate()
    box.restart()
    assert (box.state, box.record.version) == (S.TRYING, "1.1.0")
    box.until(S.COMMITTED)


def test_agent_that_starts_again_after_the_commit_of_the_same_boot(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    box.restart()
    box.until(S.COMMITTED)
    box.boot()  # the slots' service still says "trial": it wrote that when the box started
    assert box.state is S.COMMITTED
    box.release(source("1.2.0"))
    box.want(settings("1.2.0"))
    box.until(S.VERIFIED)
    box.boot()
    assert box.state is S.VERIFIED
    box.until(S.REBOOT_PENDING)


def test_event_waits_for_a_spool_that_is_full(box: FirmwareBox) -> None:
    box.outbox.failures = 5
    box.release(source())
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    box.steps(3)
    assert box.told[-1] == ("1.1.0", S.REBOOT_PENDING, R.NONE) or box.told[-1][1] is S.REBOOT_PENDING


def test_damaged_record_is_put_right_by_what_is_true(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    (box.paths.firmware / "state.json").write_text("{")
    box.restart()
    assert (box.state, box.record.version) == (S.TRYING, "1.1.0")
    box.until(S.COMMITTED)
    assert box.store.floor.version == "1.1.0"


def test_floor_outlives_the_record_and_the_slot(box: FirmwareBox) -> None:
    box.release(source(epoch=7))
    box.want(settings())
    box.until(S.REBOOT_PENDING)
    box.restart()
    box.until(S.COMMITTED)
    box.store.raise_floor("1.1.0", 7)  # what the image of epoch 7 says of itself
    (box.paths.firmware / "state.json").unlink()
    box.slots.committed = Slot.A  # somebody went back by hand
    box.restart()
    assert box.slots.version == "1.0.0"
    box.release(source("1.0.5", epoch=3))
    box.want(settings("1.0.5"))
    box.steps(3)
    assert box.record.reason is R.EPOCH_TOO_LOW
    box.worker.step(NEVER)


def test_return_to_the_firmware_before_is_told_and_ends_with_the_next_start(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings(max_wait_s=0))
    box.until(S.REBOOT_PENDING)
    box.restart()
    box.until(S.COMMITTED)
    box.slots.fall_back(box.paths.boot_facts)
    box.boot()
    assert (box.slots.running, box.state, box.record.reason) == (Slot.A, S.ROLLED_BACK, R.NOT_STARTED)
    box.steps(20, seconds=3600.0)
    assert (box.state, box.wants_restart, box.store.bundle.exists()) == (S.ROLLED_BACK, False, False)
    assert box.told[-1] == ("1.1.0", S.ROLLED_BACK, R.NOT_STARTED)
    assert box.part_state().startswith("refused: not-started")
    box.boot()  # the agent alone: nothing is told twice
    box.steps()
    assert box.told.count(("1.1.0", S.ROLLED_BACK, R.NOT_STARTED)) == 1
    box.restart()
    box.steps()
    assert (box.slots.running, box.state, box.record.refused) == (Slot.B, S.COMMITTED, ())
    assert box.told[-1] == ("1.1.0", S.COMMITTED, R.NONE)
    assert box.part_state() == "applied"


def test_next_firmware_is_taken_from_a_fallback_too(box: FirmwareBox) -> None:
    box.release(source())
    box.want(settings(max_wait_s=0))
    box.until(S.REBOOT_PENDING)
    box.restart()
    box.until(S.COMMITTED)
    box.slots.fall_back(box.paths.boot_facts)
    box.boot()
    box.steps()
    box.release(source("1.2.0"))
    box.want(settings("1.2.0", max_wait_s=0))
    box.until(S.REBOOT_PENDING)
    assert box.slots.versions == {Slot.A: "1.0.0", Slot.B: "1.2.0"}
