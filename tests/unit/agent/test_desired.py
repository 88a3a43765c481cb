"""Desired state: judged whole, kept, applied part by part, reported; whatever is refused changes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from omamori_agent import desired
from omamori_agent.config import AgentConfig
from omamori_agent.desired import DesiredLimits, DesiredWorker, PendingError
from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.feed import RuleExclusion
from omamori_agent.report import box_report
from omamori_protocol import cbor, cose
from omamori_protocol.command import Command, Moment, Verb
from omamori_protocol.desired import (
    DesiredState,
    Exemption,
    ExemptionKind,
    FirmwareSettings,
    FirmwareWindow,
    Metered,
    Policy,
    WifiSecurity,
    WifiSettings,
)
from omamori_protocol.reported import PartName, PartState, Reported
from sim.box import DEVICE, box_config
from sim.clock import ManualClock
from sim.desired import SimulatedSteering
from sim.outbox import MemoryOutbox
from sim.power import PowerCut, count_steps, power_cut_before

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FOREIGN = Ed25519PrivateKey.from_private_bytes(bytes(32))
WIFI = WifiSettings(
    enabled=True,
    ssid="office",
    passphrase="correct horse",
    channel=6,
    country="JP",
    security=WifiSecurity.WPA2,
    isolation=False,
)

FIRMWARE = FirmwareSettings(
    version="2026.11.1",
    window=FirmwareWindow(days=127, start_min=120, length_min=60, zone="Asia/Tokyo"),
    max_wait_s=0,
    metered=Metered.ASK,
    rate_kbps=0,
    owner_refuses_scheduled=False,
)


class FakePart:
    """A part that does as it is told."""

    def __init__(self, name: PartName) -> None:
        self.name = name
        self.seen: list[Any] = []
        self.answers: list[Exception | None] = []

    def apply(self, settings: Any) -> None:
        self.seen.append(settings)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer


class Box:
    """The worker with everything around it; `restart` is what a kill and a new start leave."""

    def __init__(self, root: Path, keys: list[Ed25519PrivateKey] | None = None) -> None:
        self.config: AgentConfig = box_config(root)
        self.config.paths.desired.mkdir(parents=True)
        self.trust([KEY] if keys is None else keys)
        self.clock = ManualClock()
        self.outbox = MemoryOutbox()
        self.gate = SimulatedSteering()
        self.limits = DesiredLimits()
        self.restart()

    def trust(self, keys: list[Ed25519PrivateKey]) -> None:
        """Be an image that trusts these keys."""
        how = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        pem = b"".join(key.public_key().public_bytes(*how) for key in keys)
        self.config.paths.desired_keys.write_bytes(pem)

    def restart(self) -> None:
        self.wifi = FakePart(PartName.WIFI)
        self.rules = RuleExclusion()
        self.worker: DesiredWorker = desired.build(
            self.config,
            self.outbox,
            self.clock,
            rules=self.rules,
            parts=lambda _version: [self.wifi],
            gate=self.gate,
            limits=self.limits,
        )
        self.worker.start()

    def deliver(self, signed: bytes) -> Reported:
        self.worker.offer_document(signed)
        self.worker.step()
        return self.report

    def settle(self) -> Reported:
        """Let the feed do its part, and the worker look again."""
        if self.rules.wanted is not None:
            self.rules.report(self.rules.wanted)
        self.clock.advance(1.0)
        self.worker.step()
        return self.report

    @property
    def report(self) -> Reported:
        encoded = self.worker.reported()
        assert encoded is not None
        return Reported.decode(encoded)

    @property
    def states(self) -> dict[str, str]:
        return {item.part.word: item.state.word for item in self.report.parts}

    @property
    def texts(self) -> list[str]:
        return [event.text or "" for event in self.outbox.events]

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.config.paths.desired.iterdir()}


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def document(version: int = 1, **changes: Any) -> DesiredState:
    values: dict[str, Any] = {"device": DEVICE, "issued_s": 1_789_999_000, "expires_s": 1_800_000_000}
    return DesiredState(version=version, **(values | changes))


def sealed(what: DesiredState, key: Ed25519PrivateKey = KEY, context: bytes = cose.DESIRED_CONTEXT) -> bytes:
    return cose.seal(what.encode(), key, context)


def test_before_any_document(box: Box) -> None:
    box.worker.step()
    assert box.report == Reported(at_s=1_790_000_000, version=0, state=PartState.NONE)
    assert box.wifi.seen == []
    assert box.gate.epoch == 0


def test_document_is_applied_part_by_part_and_reported(box: Box) -> None:
    exemptions = (
        Exemption(id=1, kind=ExemptionKind.TERMINAL_MAC, value="02:00:5e:10:00:01"),
        Exemption(id=2, kind=ExemptionKind.DESTINATION, value="203.0.113.80"),
        Exemption(id=3, kind=ExemptionKind.RULE, value="9000001"),
    )
    report = box.deliver(sealed(document(7, wifi=WIFI, policy=Policy(fail_closed=True), exemptions=exemptions)))
    assert (report.version, report.state) == (7, PartState.PENDING)
    assert box.states == {"policy": "applied", "exemptions": "pending", "wifi": "applied"}
    assert box.wifi.seen == [WIFI]
    assert box.gate.fail_closed
    assert len(box.gate.entries) == 2
    assert box.rules.wanted == {9000001}
    assert box.gate.epoch == 2
    report = box.settle()
    assert report.state is PartState.APPLIED
    assert "desired state 7 accepted" in box.texts
    assert not any("horse" in text for text in box.texts)


def test_same_document_again_changes_and_tells_nothing(box: Box) -> None:
    signed = sealed(document(1, wifi=WIFI))
    box.deliver(signed)
    report = box.settle()
    events, epoch = len(box.outbox.events), box.gate.epoch
    box.clock.advance(20_000_000)  # past its expiry: it is in force already
    assert box.deliver(signed) == report
    assert (len(box.outbox.events), box.gate.epoch, len(box.wifi.seen)) == (events, epoch, 1)


def test_absent_sections_are_the_products_defaults(box: Box) -> None:
    exemption = Exemption(id=1, kind=ExemptionKind.TERMINAL_IP, value="192.168.10.0/24")
    box.deliver(sealed(document(1, wifi=WIFI, policy=Policy(fail_closed=True), exemptions=(exemption,))))
    box.settle()
    box.deliver(sealed(document(2)))
    assert box.settle().state is PartState.APPLIED
    assert box.wifi.seen == [WIFI, None]
    assert not box.gate.fail_closed
    assert box.gate.entries == {}


def unknown_field() -> bytes:
    body = cbor.decode(document(2, wifi=WIFI).encode(), max_bytes=4096)
    body[5][99] = 1
    return cose.seal(cbor.encode(body), KEY, cose.DESIRED_CONTEXT)


def tampered() -> bytes:
    data = bytearray(sealed(document(2, policy=Policy(fail_closed=True))))
    data[60] ^= 1
    return bytes(data)


REFUSED: dict[str, tuple[bytes, str, int | None]] = {
    "junk": (b"\xff" * 40, "no tag 18", None),
    "signed by a stranger": (sealed(document(2), FOREIGN), "not signed by a trusted key", None),
    "signed for another purpose": (sealed(document(2), context=cose.COMMAND_CONTEXT), "not signed", None),
    "changed on the way": (tampered(), "not signed by a trusted key", None),
    "for another box": (sealed(document(2, device="ZA35-000002")), "it is for ZA35-000002", None),
    "older": (sealed(document(4)), "version 4 is older than 5", 4),
    "same version, another content": (sealed(document(5)), "version 5 was accepted with another content", 5),
    "expired": (sealed(document(6, expires_s=1_790_000_000)), "version 6 has expired", 6),
    "with an unknown field": (unknown_field(), "unknown key 99", None),
    "too large": (bytes([cose.TAG]) + bytes(DesiredState.MAX_BYTES + cose.OVERHEAD_BYTES), "allowed", None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_document_changes_nothing_and_is_told_once(box: Box, name: str) -> None:
    signed, reason, version = REFUSED[name]
    box.deliver(sealed(document(5, wifi=WIFI, policy=Policy(fail_closed=True))))
    before = box.settle()
    files, gate = box.files(), box.gate.state()
    for _ in range(3):
        report = box.deliver(signed)
    assert reason in (report.refused_reason or "")
    assert report.refused_version == version
    assert dataclasses.replace(report, at_s=before.at_s, refused_reason=None, refused_version=None) == before
    assert box.gate.state() == gate
    assert box.wifi.seen == [WIFI]
    assert {key: value for key, value in box.files().items() if key != "state.json"} == {
        key: value for key, value in files.items() if key != "state.json"
    }
    assert sum("desired state refused" in text for text in box.texts) == 1
    box.restart()
    assert box.worker.version == 5
    box.deliver(signed)
    assert sum("desired state refused" in text for text in box.texts) == 1
    box.deliver(sealed(document(8)))
    assert box.settle().refused_reason is None


def test_document_refused_for_a_wrong_clock_is_taken_when_the_clock_is_right(box: Box) -> None:
    signed = sealed(document(1, wifi=WIFI))
    box.clock.advance(20_000_000)
    assert "expired" in (box.deliver(signed).refused_reason or "")
    box.clock.advance(-20_000_000)
    box.restart()
    assert box.deliver(signed).version == 1
    assert box.report.refused_reason is None


def test_document_of_a_key_that_only_a_newer_image_knows(tmp_path: Path) -> None:
    box = Box(tmp_path, keys=[FOREIGN])
    signed = sealed(document(1))
    assert "not signed" in (box.deliver(signed).refused_reason or "")
    box.trust([FOREIGN, KEY])
    box.restart()
    assert box.deliver(signed).version == 1


def test_a_flood_of_bad_documents_is_told_a_few_times_an_hour(box: Box) -> None:
    for version in range(2, 50):
        box.deliver(sealed(document(version), FOREIGN))
    told = sum("refused" in text for text in box.texts)
    assert told == box.limits.refusals
    box.clock.advance(3601)
    box.deliver(sealed(document(99), FOREIGN))
    assert "more were refused before" in box.texts[-1]


def test_after_a_restart_the_document_is_applied_without_the_cloud(box: Box) -> None:
    exemption = Exemption(id=1, kind=ExemptionKind.TERMINAL_MAC, value="02:00:5e:10:00:01")
    box.deliver(sealed(document(3, wifi=WIFI, policy=Policy(fail_closed=True), exemptions=(exemption,))))
    box.gate.reset()  # a new boot: the maps are empty
    box.clock.advance(100_000_000)  # and its expiry is long past
    box.restart()
    box.worker.step()
    assert box.settle().state is PartState.APPLIED
    assert box.report.version == 3
    assert box.gate.fail_closed
    assert len(box.gate.entries) == 1
    assert box.wifi.seen == [WIFI]


def test_cut_between_keeping_and_applying(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    class CutError(BaseException):
        pass

    def cut(*_args: object) -> bool:
        raise CutError

    monkeypatch.setattr("omamori_agent.desired.progress.Progress.step", cut)
    with pytest.raises(CutError):
        box.deliver(sealed(document(3, wifi=WIFI)))
    assert box.wifi.seen == []
    monkeypatch.undo()
    box.restart()
    box.worker.step()
    assert box.wifi.seen == [WIFI]
    assert box.settle().version == 3


def test_disk_that_is_full_keeps_the_document_before_and_tries_again(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.deliver(sealed(document(1)))

    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omamori_agent.desired.store.write_atomic", full)
    assert box.deliver(sealed(document(2, wifi=WIFI))).version == 1
    assert WIFI not in box.wifi.seen
    monkeypatch.undo()
    box.worker.step()
    assert box.worker.version == 1  # not at once: the disk may stay full for long
    box.clock.advance(1)
    box.worker.step()
    assert box.worker.version == 2
    assert box.wifi.seen[-1] == WIFI


def test_power_cut_at_every_step_of_taking_a_document(tmp_path: Path) -> None:
    """Afterwards the old or the new one is in force, whole, and what is older than it stays refused."""
    old, new = sealed(document(4)), sealed(document(5, policy=Policy(fail_closed=True)))

    def fresh(name: str) -> Box:
        box = Box(tmp_path / name)
        box.deliver(old)
        return box

    box = fresh("count")
    steps = count_steps(lambda: box.deliver(new))
    assert steps >= 8
    seen = set()
    for step in range(1, steps + 1):
        box = fresh(str(step))
        with pytest.raises(PowerCut), power_cut_before(step):
            box.deliver(new)
        box.gate.reset()
        box.restart()
        box.worker.step()
        seen.add(box.worker.version)
        assert box.gate.fail_closed is (box.worker.version == 5), f"step {step}"
        assert not list(box.config.paths.desired.glob("*.bad"))
        assert "older" in (box.deliver(sealed(document(3))).refused_reason or "")
        assert box.deliver(new).version == 5
        assert box.gate.fail_closed
    assert seen == {4, 5}


@pytest.mark.parametrize("damage", ["junk", "tampered", "of another key", "of another box"])
def test_damaged_document_is_put_aside_and_older_ones_stay_refused(box: Box, damage: str) -> None:
    box.deliver(sealed(document(5, wifi=WIFI)))
    path = box.config.paths.desired / "document.cose"
    path.write_bytes(
        {
            "junk": b"junk",
            "tampered": path.read_bytes()[:-1] + b"x",
            "of another key": sealed(document(9), FOREIGN),
            "of another box": sealed(document(9, device="ZA35-000002")),
        }[damage]
    )
    box.restart()
    box.worker.step()
    assert box.report.version == 0
    assert box.wifi.seen == []
    assert (box.config.paths.desired / "document.cose.bad").exists()
    assert "older than 5" in (box.deliver(sealed(document(4))).refused_reason or "")
    assert box.deliver(sealed(document(6))).version == 6


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "floor": -1, "refused": null}']
)
def test_damaged_record_costs_nothing_but_the_refusal(box: Box, content: bytes) -> None:
    box.deliver(sealed(document(5)))
    (box.config.paths.desired / "state.json").write_bytes(content)
    box.restart()
    box.worker.step()
    assert box.report.version == 5
    assert "older than 5" in (box.deliver(sealed(document(4))).refused_reason or "")


def test_part_that_refuses_keeps_the_others_and_says_why(box: Box) -> None:
    box.wifi.answers = [RejectedError("channel 13 is not allowed in US")]
    box.deliver(sealed(document(2, wifi=WIFI, policy=Policy(fail_closed=True))))
    report = box.settle()
    assert report.state is PartState.REFUSED
    assert box.states == {"policy": "applied", "exemptions": "applied", "wifi": "refused"}
    assert {item.reason for item in report.parts if item.part is PartName.WIFI} == {"channel 13 is not allowed in US"}
    assert box.texts.count("desired state 2: wifi refused: channel 13 is not allowed in US") == 1
    for _ in range(5):
        box.settle()
    assert len(box.wifi.seen) == 1
    box.deliver(sealed(document(3, wifi=WIFI)))
    assert box.settle().state is PartState.APPLIED


def test_pending_part_is_asked_soon_and_a_failing_one_less_and_less(box: Box) -> None:
    box.wifi.answers = [PendingError("on its way")] * 3
    box.deliver(sealed(document(2, wifi=WIFI)))
    for _ in range(3):
        assert box.states["wifi"] == "pending"
        box.settle()
    assert box.states["wifi"] == "applied"
    box.wifi.answers = [TransientError("no such file")] * 1000
    box.deliver(sealed(document(3, wifi=WIFI)))
    tries = len(box.wifi.seen)
    for _ in range(600):
        box.settle()
    assert 10 <= len(box.wifi.seen) - tries <= 40  # at most a minute apart
    assert {item.reason for item in box.report.parts if item.part is PartName.WIFI} == {"no such file"}


def test_gate_that_comes_late(box: Box) -> None:
    box.gate.is_there = False
    box.deliver(sealed(document(2, policy=Policy(fail_closed=True))))
    assert box.states["policy"] == "pending"
    box.gate.is_there = True
    for _ in range(3):
        box.settle()
    assert box.report.state is PartState.APPLIED
    assert box.gate.fail_closed


def test_exemption_ends_by_itself_and_stays_ended_after_a_restart(box: Box) -> None:
    end_s = int(box.clock.now()) + 60
    box.deliver(
        sealed(
            document(
                2,
                exemptions=(
                    Exemption(id=1, kind=ExemptionKind.TERMINAL_MAC, value="02:00:5e:10:00:01", until_s=end_s),
                    Exemption(id=2, kind=ExemptionKind.RULE, value="7", until_s=end_s),
                    Exemption(id=3, kind=ExemptionKind.RULE, value="8"),
                ),
            )
        )
    )
    box.settle()
    assert len(box.gate.entries) == 1
    assert box.rules.wanted == {7, 8}
    epoch = box.gate.epoch
    box.clock.advance(60)
    box.worker.step()
    assert box.gate.entries == {}
    assert box.rules.wanted == {8}
    assert box.gate.epoch == epoch + 1
    assert box.settle().state is PartState.APPLIED
    box.restart()
    box.worker.step()
    assert box.gate.entries == {}
    assert box.rules.wanted == {8}


def test_epoch_rises_only_when_something_changes(box: Box) -> None:
    box.deliver(sealed(document(1)))
    box.settle()
    assert box.gate.epoch == 0
    box.deliver(sealed(document(2, policy=Policy(fail_closed=True))))
    assert box.gate.epoch == 1
    box.deliver(sealed(document(3, policy=Policy(fail_closed=True))))
    assert box.gate.epoch == 1


def test_image_without_a_key_refuses_every_document_and_works(tmp_path: Path) -> None:
    box = Box(tmp_path, keys=[])
    assert "not signed by a trusted key" in (box.deliver(sealed(document(1))).refused_reason or "")
    assert box.report.version == 0


def test_image_with_two_keys_takes_both(tmp_path: Path) -> None:
    box = Box(tmp_path, keys=[FOREIGN, KEY])
    assert box.deliver(sealed(document(1))).version == 1
    assert box.deliver(sealed(document(2), FOREIGN)).version == 2


def test_removed_retained_message_changes_nothing(box: Box) -> None:
    box.deliver(sealed(document(1, wifi=WIFI)))
    report = box.settle()
    assert box.deliver(b"") == report


def test_only_the_newest_of_several_waits(box: Box) -> None:
    for version in (1, 2, 3):
        box.worker.offer_document(sealed(document(version)))
    box.worker.step()
    assert box.report.version == 3
    assert [text for text in box.texts if "accepted" in text] == ["desired state 3 accepted"]


def test_button_that_lets_everything_pass_is_reported(box: Box) -> None:
    box.gate.button_s = 600.0
    box.worker.step()
    assert box.report.bypass_until_s == 1_790_000_600
    box.clock.advance(1)
    box.gate.button_s = 598.5  # the clocks differ a little: no news
    report = box.report
    box.worker.step()
    assert box.report == report
    box.gate.button_s = 0.0
    box.worker.step()
    assert box.report.bypass_until_s is None
    box.gate.is_there = False
    box.worker.step()
    assert box.report.bypass_until_s is None


def test_restart_in_the_window_of_the_document_is_reported_until_it_is_done(box: Box) -> None:
    def reboot(number: int) -> bytes:
        made = Command(
            device=DEVICE,
            command_id=bytes([number] * 8),
            verb=Verb.REBOOT,
            issued_s=1_789_999_999,
            expires_s=1_790_000_599,
            moment=Moment.WINDOW,
        )
        return cose.seal(made.encode(), KEY, cose.COMMAND_CONTEXT)

    box.config.paths.restart_request.parent.mkdir(parents=True)
    box.worker.offer_command(reboot(1))
    box.worker.step()
    assert (box.report.command_id, box.report.command_state) == (bytes([1] * 8), PartState.REFUSED)
    box.deliver(sealed(document(firmware=FIRMWARE)))
    box.worker.offer_command(reboot(2))
    box.worker.step()
    assert (box.report.command_id, box.report.command_state) == (bytes([2] * 8), PartState.PENDING)
    assert box.report.command_reason == "the window opens 2026-09-22 02:00 Asia/Tokyo"
    box.clock.advance(3 * 3600)
    box.worker.step()
    assert box.config.paths.restart_request.exists()
    box.config.paths.restart_request.unlink()
    box.config.paths.boot_id.write_text("another\n")
    box.restart()
    box.worker.step()
    assert (box.report.command_id, box.report.command_state) == (bytes([2] * 8), PartState.APPLIED)
    assert box.report.command_reason is None
    box.clock.advance(24 * 3600)
    box.worker.step()
    assert not box.config.paths.restart_request.exists()


def test_status_command_tells_version_and_refusal(box: Box) -> None:
    box.deliver(sealed(document(5)))
    assert box_report(box.config.paths)["desired"] == {"version": 5, "refused": None}
    box.deliver(sealed(document(4)))
    assert "older than 5" in box_report(box.config.paths)["desired"]["refused"]
    (box.config.paths.desired / "state.json").write_bytes(b"[]")
    assert "error" in box_report(box.config.paths)["desired"]
