"""Closed choices that cross a process or a machine, with their numbers on the wire.

Numbers are assigned once and never reused; the words are those of docs/glossary.md.
What a customer reads ("危険サイト") is the cloud's business, not this module's.
"""

from __future__ import annotations

from enum import IntEnum


class WireEnum(IntEnum):
    """A closed choice: an integer on the wire, a lower-case word (with hyphens) in JSON and rule metadata."""

    @property
    def word(self) -> str:
        """The choice as a word, for example ``dangerous-site``."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def from_word(cls, word: str) -> WireEnum:
        """Return the choice that `word` names.

        Raises:
            ValueError: No choice of this enumeration has that name.
        """
        for member in cls:
            if member.word == word:
                return member
        raise ValueError(f"{word!r} is not one of {', '.join(member.word for member in cls)}")


class Function(WireEnum):
    """Security function that raised an alert (requirement R91)."""

    VIRUS = 1
    IPS = 2
    DANGEROUS_SITE = 3
    CATEGORY = 4
    APPLICATION = 5
    BEHAVIOUR = 6
    FIREWALL = 7


class Direction(WireEnum):
    """Which way the offending traffic went, seen from the office."""

    IN = 1
    OUT = 2


class Severity(WireEnum):
    """How urgent it is for the customer: one, two or three stars (design, section 6)."""

    ONE = 1
    TWO = 2
    THREE = 3

    @property
    def stars(self) -> str:
        """The severity as the customer sees it, for example ``★★``."""
        return "★" * self.value


class Action(WireEnum):
    """What the box did with the traffic."""

    BLOCKED = 1
    LOGGED = 2


class Slot(WireEnum):
    """Firmware slot the box runs from."""

    A = 1
    B = 2


class EngineState(WireEnum):
    """State of the inspection engine as the engine itself tells."""

    DOWN = 0
    STARTING = 1
    INSPECTING = 2


class FeedState(WireEnum):
    """How the last attempt to take a feed ended."""

    NONE = 0
    ACTIVE = 1
    REFUSED = 2
    ROLLED_BACK = 3
    STALE = 4


class EventKind(WireEnum):
    """What an event tells."""

    ALERT = 1
    FEED = 2
    SYSTEM = 3
    LEDGER = 4
    FIRMWARE = 5
    POWER = 6


class UninspectedReason(WireEnum):
    """Why traffic passed without inspection, as the uninspected ledger has it."""

    ENGINE_DOWN = 1
    ENGINE_STARTING = 2
    ENGINE_HUNG = 3
    OVERLOAD = 4
    COMMAND = 5
    EXEMPT = 6
    NO_GATE = 7
    RELAY = 8


class FirmwareState(WireEnum):
    """How far the box has come with the firmware that it shall have.

    VERIFIED holds the whole bundle, REBOOT_PENDING has it in the other slot for the next start, TRYING runs it on
    trial. After FAILED nothing of it was started; after ROLLED_BACK it was, and the firmware before runs again.
    """

    IDLE = 0
    DOWNLOADING = 1
    VERIFIED = 2
    INSTALLING = 3
    REBOOT_PENDING = 4
    TRYING = 5
    COMMITTED = 6
    FAILED = 7
    ROLLED_BACK = 8


class FirmwareReason(WireEnum):
    """Why an update waits, failed or was rolled back."""

    NONE = 0
    # What the repository, or the stick, shows.
    UNREACHABLE = 1
    METADATA_REFUSED = 2
    METADATA_EXPIRED = 3
    NOT_RELEASED = 4
    WRONG_BOARD = 5
    OLDER_VERSION = 6
    EPOCH_TOO_LOW = 7
    NEEDS_STEP_BETWEEN = 8
    # Fetching and installing.
    NO_SPACE = 9
    NEEDS_PERMISSION = 10
    PAYLOAD_REFUSED = 11
    BUNDLE_REFUSED = 12
    INSTALL_FAILED = 13
    ACTIVATION_FAILED = 14
    # Waiting.
    OWNER_REFUSES = 15
    WAITS_FOR_WINDOW = 16
    CLOCK_UNKNOWN = 17
    # The trial.
    NOT_STARTED = 18
    WIRE_DOWN = 19
    ENGINE_DOWN = 20
    CANARY_UNSEEN = 21
    DATA_NOT_WRITABLE = 22
    NO_IDENTITY = 23
    CLOUD_LOST = 24
    CRASH_LOOP = 25
    MIGRATION_FAILED = 26
    # Somebody changed their mind.
    SUPERSEDED = 27
    # The trial, again: it ended with the power, by a panic or the watchdog; or nobody had judged it in time.
    INTERRUPTED = 28
    DEADLINE = 29


class Presence(WireEnum):
    """Whether a box is connected to the broker."""

    OFFLINE = 0
    ONLINE = 1


class RunEnd(WireEnum):
    """How the box's run before this one ended, as the box found out at its start.

    ABRUPT is what is left when nothing else was found: the power went away, or somebody pressed reset.
    """

    UNKNOWN = 0
    ORDERLY = 1
    ABRUPT = 2
    WATCHDOG = 3
    PANIC = 4


class PowerKind(WireEnum):
    """What happened to a box's power, as its supervisor saw it (docs/supervisor.md).

    NONE is "the power stayed". COLD: the supervisor itself was without, so nobody knows for how long. DIP: under 0.3 s,
    SHORT_PULL: under 30 s, LONG_PULL: longer. BROWN_OUT: too little voltage with the plug in.
    """

    NONE = 0
    COLD = 1
    DIP = 2
    SHORT_PULL = 3
    LONG_PULL = 4
    BROWN_OUT = 5


class Leaving(WireEnum):
    """Why a box says goodbye."""

    SESSION = 1  # it only connects anew
    PROGRAM = 2  # the agent restarts
    UPDATE = 3  # the box restarts with new firmware
    REBOOT = 4
    OFF = 5
