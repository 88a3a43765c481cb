"""Bounds and intervals of firmware updates."""

from __future__ import annotations

import dataclasses

_MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirmwareLimits:
    """All times in seconds, all sizes in bytes; the defaults are those of the product."""

    poll_s: float = 1.0  # how often window, trial and wishes are looked at
    retry_first_s: float = 30.0  # after something that may work later
    retry_cap_s: float = 3600.0
    refused_retry_s: float = 3600.0  # the metadata may say something else by then
    trial_pause_s: float = 6 * 3600.0  # between two trials of the same firmware
    trials: int = 3  # of one firmware, as long as nothing speaks against it but that it did not come up
    installs: int = 5  # of one firmware that RAUC could not write

    # Fetching.
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 15.0  # between two pieces
    request_s: float = 30.0  # every small download may take this long …
    min_bytes_per_s: int = 4 * 1024  # … and a second more for each this many bytes; less than that is a stall
    batch_bytes: int = 16 * _MIB  # fetched before it is unpacked
    segment_tries: int = 3  # of one that does not become what the index says
    reserve_bytes: int = 32 * _MIB  # of the data partition that an update leaves free

    # Unpacking and installing.
    apply_timeout_s: float = 1800.0
    install_timeout_s: float = 3600.0
    install_poll_s: float = 2.0
    call_timeout_s: float = 60.0  # one question to RAUC, which has to start for it

    # The trial.
    health_settle_s: float = 20.0  # everything has to be well for so long
    health_deadline_s: float = 540.0  # since power-on; the slots' service ends a trial after ten minutes
    health_poll_s: float = 2.0
    wait_note_s: float = 600.0  # how often it is written down how long a firmware has waited for its window
