"""Which box belongs to which part of the fleet: the same answer on the box, at the publisher and in the cloud.

A box's position is the same for every release of a channel: the boxes that get everything first are always the same
ones, so that an office is never surprised, and a ring's history says something about its boxes.
"""

from __future__ import annotations

import hashlib

PERMILLE = 1000


def position(device: str, channel: str) -> int:
    """Return a box's place in a channel's queue, from 0 (always first) to 999."""
    digest = hashlib.sha256(f"omamori ring\0{channel}\0{device}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % PERMILLE


def is_reached(device: str, channel: str, permille: int) -> bool:
    """Say whether a release that has reached so much of the fleet has reached this box."""
    return position(device, channel) < permille
