"""The update's states, which way leads between them, and what is to be done next. Pure: facts in, decisions out.

    IDLE → DOWNLOADING → VERIFIED → INSTALLING → REBOOT_PENDING → TRYING → COMMITTED
             any of these → FAILED            TRYING → ROLLED_BACK            COMMITTED → ROLLED_BACK → COMMITTED

Every change of state is written down before the work it stands for begins. The record is what was intended; what is
true, the slots' service has found out at boot (`BootFacts`), and it wins: `observe` brings the record to it.
"""

from __future__ import annotations

import dataclasses
import enum

from omamori_protocol.desired import FirmwareSettings
from omamori_protocol.vocabulary import FirmwareReason, FirmwareState, Slot

from .record import Record
from .states import UNDERWAY

_S = FirmwareState
_R = FirmwareReason

# Nothing of these speaks against the firmware itself: it may be tried again, a few times.
_TRY_AGAIN = frozenset({_R.NOT_STARTED, _R.INTERRUPTED, _R.CLOUD_LOST})
# These may be over by the next time.
_FAIL_AGAIN = frozenset(
    {
        _R.NO_SPACE,
        _R.INSTALL_FAILED,
        _R.ACTIVATION_FAILED,
        _R.PAYLOAD_REFUSED,
        _R.NOT_RELEASED,
        _R.OLDER_VERSION,
        _R.EPOCH_TOO_LOW,
        _R.NEEDS_STEP_BETWEEN,
        _R.WRONG_BOARD,
        _R.METADATA_REFUSED,
    }
)


class AttemptEnd(enum.StrEnum):
    """How far the last trial boot has come, in the slots' service's words."""

    SET = "set"
    STARTED = "started"
    COMMITTING = "committing"
    NEVER_STARTED = "never-started"
    INTERRUPTED = "interrupted"
    DEADLINE = "deadline"
    CRASH_LOOP = "crash-loop"
    MIGRATION = "migration"


_ENDS = {
    AttemptEnd.NEVER_STARTED: (
        _R.NOT_STARTED,
        "the machine did not start the firmware, or it found no root file system",
    ),
    AttemptEnd.INTERRUPTED: (_R.INTERRUPTED, "the trial ended with the power, by a panic or by the watchdog"),
    AttemptEnd.DEADLINE: (_R.DEADLINE, "the trial was not over in time"),
    AttemptEnd.CRASH_LOOP: (_R.CRASH_LOOP, "a service died again and again"),
    AttemptEnd.MIGRATION: (_R.MIGRATION_FAILED, "the data could not be brought to the new form"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BootFacts:
    """What is true about this boot.

    Attributes:
        slot: Slot that runs.
        is_trial: Whether it runs on trial.
        attempt: How far the last trial has come; None if there was none since the last commit.
        boot_id: The kernel's name of this boot.
        version: Version of the running image.
    """

    slot: Slot
    is_trial: bool
    attempt: AttemptEnd | None
    boot_id: str
    version: str


class Step(enum.Enum):
    """What is to be done next."""

    REST = "nothing to do"
    BEGIN = "look for the wanted firmware"
    FETCH = "go on fetching"
    INSTALL = "write the other slot and prepare its trial"
    HOLD = "take the prepared trial back: the owner does not want it"
    TAKE_BACK = "forget the update"
    RESTART = "restart when the window is open"
    JUDGE = "judge the trial"


def observe(record: Record, facts: BootFacts) -> Record:  # noqa: PLR0911 - one line for each thing that may be found
    """Return the record as it must be, given what is true at this start of the agent."""
    same_boot = record.boot_id == facts.boot_id
    # The service's word is from the start of this boot: a trial that we have judged since then is over.
    if facts.is_trial and same_boot:
        return record
    if facts.is_trial:
        known = record if record.version == facts.version else Record(version=facts.version, refused=record.refused)
        return known.move(
            _S.TRYING, boot_id=facts.boot_id, verdict=_R.NONE, detail="", trials=known.trials + 1, is_told=False
        )
    if record.state is _S.INSTALLING:
        # Half written or not: RAUC writes it again. The bundle is still there.
        return dataclasses.replace(record, state=_S.VERIFIED)
    if record.state is _S.COMMITTED and record.version not in {"", facts.version} and not same_boot:
        # Not by us: the committed slot got nowhere, and the one before was started for once. It cannot be fetched
        # again, its version is the floor; the next start is its own.
        text = "it was kept, but got nowhere; the firmware before runs until the next start"
        fallen = record.move(_S.ROLLED_BACK, boot_id=facts.boot_id, reason=_R.NOT_STARTED, detail=text, is_told=False)
        return fallen.with_refused()
    if record.state in {_S.FAILED, _S.ROLLED_BACK} and record.version == facts.version:
        others = tuple(item for item in record.refused if item.version != facts.version)
        return record.move(_S.COMMITTED, boot_id=facts.boot_id, refused=others, is_told=False)
    if record.state not in {_S.REBOOT_PENDING, _S.TRYING} or same_boot:
        return record
    if facts.version == record.version:
        return record.move(_S.COMMITTED, is_told=False)
    if facts.attempt in _ENDS:
        reason, detail = _ENDS[facts.attempt]
        return _rolled_back(record, reason, detail)
    if record.state is _S.TRYING:
        return _rolled_back(record, _R.INTERRUPTED, "the firmware before runs again")
    return record  # the box was restarted before the trial was prepared: prepare it once more


def _rolled_back(record: Record, reason: FirmwareReason, detail: str) -> Record:
    trials = record.trials if record.state is _S.TRYING else record.trials + 1
    if record.verdict is not _R.NONE:  # the trial's own word, written down before it restarted the box
        reason, detail = record.verdict, record.detail
    rolled_back = record.move(_S.ROLLED_BACK, reason=reason, detail=detail, trials=trials, is_told=False)
    return dataclasses.replace(rolled_back, verdict=_R.NONE)


def next_step(  # noqa: PLR0911 - one line for each state
    record: Record, wanted: FirmwareSettings | None, running: str, max_trials: int
) -> Step:
    """Return what is to be done, given the record and what the box shall run.

    Args:
        record: After `observe`.
        wanted: What the desired state says; None when it says nothing.
        running: Version of the running image.
        max_trials: Most trials of one firmware.
    """
    if record.state is _S.TRYING:
        return Step.JUDGE
    if wanted is None or wanted.version == running or wanted.version != record.version:
        if record.state in UNDERWAY:
            return Step.TAKE_BACK
        return Step.REST if wanted is None or wanted.version == running else _begin(record, wanted)
    match record.state:
        case _S.DOWNLOADING:
            return Step.FETCH
        case _S.VERIFIED | _S.INSTALLING:
            return Step.REST if is_refused_by_owner(record, wanted) else Step.INSTALL
        case _S.REBOOT_PENDING:
            return Step.HOLD if is_refused_by_owner(record, wanted) else Step.RESTART
        case _S.FAILED | _S.ROLLED_BACK:
            is_final = record.refusal(record.version) is not None or not may_try_again(record, max_trials)
            return Step.REST if is_final else Step.BEGIN
    return _begin(record, wanted)


def _begin(record: Record, wanted: FirmwareSettings) -> Step:
    return Step.REST if record.refusal(wanted.version) is not None else Step.BEGIN


def is_refused_by_owner(record: Record, wanted: FirmwareSettings) -> bool:
    """Tell whether the owner does not want this firmware."""
    return wanted.owner_refuses_scheduled and not record.is_important


def may_try_again(record: Record, max_trials: int) -> bool:
    """Tell whether a firmware that failed or was rolled back may get another chance by itself."""
    if record.state is _S.FAILED:
        return record.reason in _FAIL_AGAIN
    return record.reason in _TRY_AGAIN and record.trials < max_trials
