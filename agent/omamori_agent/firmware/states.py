"""Which state of an update may follow which."""

from __future__ import annotations

from omamori_protocol.vocabulary import FirmwareState

_S = FirmwareState

UNDERWAY = frozenset({_S.DOWNLOADING, _S.VERIFIED, _S.INSTALLING, _S.REBOOT_PENDING})
TRANSITIONS: dict[FirmwareState, frozenset[FirmwareState]] = {
    _S.IDLE: frozenset({_S.DOWNLOADING, _S.TRYING, _S.COMMITTED, _S.FAILED}),
    _S.DOWNLOADING: frozenset({_S.VERIFIED, _S.IDLE, _S.FAILED, _S.TRYING, _S.COMMITTED}),
    _S.VERIFIED: frozenset({_S.INSTALLING, _S.DOWNLOADING, _S.IDLE, _S.FAILED, _S.TRYING, _S.COMMITTED}),
    _S.INSTALLING: frozenset(
        {_S.REBOOT_PENDING, _S.VERIFIED, _S.DOWNLOADING, _S.IDLE, _S.FAILED, _S.TRYING, _S.COMMITTED}
    ),
    _S.REBOOT_PENDING: frozenset({_S.TRYING, _S.VERIFIED, _S.IDLE, _S.FAILED, _S.ROLLED_BACK, _S.COMMITTED}),
    _S.TRYING: frozenset({_S.COMMITTED, _S.ROLLED_BACK}),
    _S.COMMITTED: frozenset({_S.IDLE, _S.DOWNLOADING, _S.TRYING, _S.FAILED, _S.ROLLED_BACK}),
    _S.FAILED: frozenset({_S.IDLE, _S.DOWNLOADING, _S.VERIFIED, _S.TRYING, _S.COMMITTED}),
    _S.ROLLED_BACK: frozenset({_S.IDLE, _S.DOWNLOADING, _S.VERIFIED, _S.TRYING, _S.COMMITTED, _S.FAILED}),
}
