"""Bounds and intervals of desired state and commands."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class DesiredLimits:
    """Defaults are those of the product."""

    poll_s: float = 1.0  # how often pending parts, ends of exemptions and the bypass are looked at
    retry_cap_s: float = 60.0  # longest pause before a part that failed is tried again
    max_waiting_commands: int = 8  # arrived and not yet looked at; more are dropped
    max_remembered_commands: int = 64  # ids of commands that have not expired
    refusals: int = 6  # told in the cloud …
    refusals_per_s: float = 3600.0  # … within this time; more are only counted
    address_trial_s: float = 180.0  # a new address has to reach the broker within this time
    address_settle_s: float = 20.0  # the settings service has to have done its part within this time
