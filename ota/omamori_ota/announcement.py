"""Tells boxes over MQTT that a feed serial is published.

Only a hint ("look now"): boxes believe nothing but the TUF repository, and look there by themselves anyway. So a
failed announcement never undoes a publication.
"""

from __future__ import annotations

from omamori_protocol.messages import FeedAnnouncement
from omamori_protocol.topics import feed_announcement

from .broker import BrokerAddress, publish

__all__ = ["BrokerAddress", "announce"]


def announce(broker: BrokerAddress, channel: str, serial: int, *, timeout_s: float = 10.0) -> None:
    """Publish the retained announcement and wait until the broker has acknowledged it.

    Args:
        broker: Where.
        channel: Feed channel.
        serial: Serial that is now published.
        timeout_s: Seconds for connecting and acknowledging together.

    Raises:
        SetupError: The TLS directory is not usable.
        TransientError: The broker was not reached, refused, or did not acknowledge in time.
    """
    payload = FeedAnnouncement(serial=serial).encode()
    publish(broker, feed_announcement(channel), payload, retain=True, timeout_s=timeout_s)
