"""The English words about firmware updates."""

from __future__ import annotations

from omamori_protocol.vocabulary import FirmwareReason, FirmwareState

from .firmware import FirmwareWords

FIRMWARE = FirmwareWords(
    title="Firmware updates",
    lead=(
        "An update is written to the half of the storage that is not in use and kept only after the box "
        "has proved itself with it. Otherwise the firmware before comes back."
    ),
    none="The box has not reported about updates yet",
    version="Version {version}",
    running="Running: {version} (slot {slot})",
    since="Reported",
    states={
        FirmwareState.IDLE: "no update",
        FirmwareState.DOWNLOADING: "being fetched",
        FirmwareState.VERIFIED: "fetched",
        FirmwareState.INSTALLING: "being written",
        FirmwareState.REBOOT_PENDING: "waiting for a restart",
        FirmwareState.TRYING: "on trial",
        FirmwareState.COMMITTED: "installed",
        FirmwareState.FAILED: "not installed",
        FirmwareState.ROLLED_BACK: "undone; the one before runs",
    },
    reasons={
        FirmwareReason.NONE: "Nothing is wrong.",
        FirmwareReason.UNREACHABLE: "The repository could not be reached. It is tried again by itself.",
        FirmwareReason.METADATA_REFUSED: "The repository was not signed as it must be. It is not used.",
        FirmwareReason.METADATA_EXPIRED: "The repository's signatures have expired. Protection goes on as it is.",
        FirmwareReason.NOT_RELEASED: "This version is not released yet.",
        FirmwareReason.WRONG_BOARD: "It is for another model. It is not used.",
        FirmwareReason.OLDER_VERSION: "It is not newer than what the box has had. It is not used.",
        FirmwareReason.EPOCH_TOO_LOW: "For security, the box does not go back to so old a generation.",
        FirmwareReason.NEEDS_STEP_BETWEEN: "A version in between has to be installed first.",
        FirmwareReason.NO_SPACE: "There is not enough free storage.",
        FirmwareReason.NEEDS_PERMISSION: "The difference cannot be used; fetching the whole firmware needs permission.",
        FirmwareReason.PAYLOAD_REFUSED: "What was fetched was not right.",
        FirmwareReason.BUNDLE_REFUSED: "The firmware's signature could not be verified. It is not used.",
        FirmwareReason.INSTALL_FAILED: "It could not be written. It is tried again by itself.",
        FirmwareReason.ACTIVATION_FAILED: "Its start could not be prepared. It is tried again by itself.",
        FirmwareReason.OWNER_REFUSES: "As you wished, only important updates are installed.",
        FirmwareReason.WAITS_FOR_WINDOW: "It waits for the agreed hours, or until the box is switched off and on.",
        FirmwareReason.CLOCK_UNKNOWN: "The box does not know the time of day; it waits as long as was agreed at most.",
        FirmwareReason.NOT_STARTED: "The new firmware did not start.",
        FirmwareReason.WIRE_DOWN: "With the new firmware, traffic was not forwarded as it must be.",
        FirmwareReason.ENGINE_DOWN: "With the new firmware, the inspection engine did not work.",
        FirmwareReason.CANARY_UNSEEN: "With the new firmware, the test of detection failed.",
        FirmwareReason.DATA_NOT_WRITABLE: "With the new firmware, storage could not be written.",
        FirmwareReason.NO_IDENTITY: "With the new firmware, the box's certificate could not be read.",
        FirmwareReason.CLOUD_LOST: "With the new firmware, the cloud could not be reached.",
        FirmwareReason.CRASH_LOOP: "With the new firmware, a program stopped again and again.",
        FirmwareReason.MIGRATION_FAILED: "Settings and data could not be brought to the new form.",
        FirmwareReason.SUPERSEDED: "Something else was asked for meanwhile.",
        FirmwareReason.INTERRUPTED: "The power was cut or the box stopped during the trial.",
        FirmwareReason.DEADLINE: "The trial was not over in time.",
    },
)
