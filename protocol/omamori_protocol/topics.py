"""Every MQTT topic of Omamori, declared once.

    omamori/v1/<device>/{hb,state,evt,reported}      published by the box
    omamori/v1/<device>/{cmd,desired}                for the box, signed; desired is retained
    omamori/v1/<device>/job/<id>                     published by the box: the answer to the command with this id
    omamori/v1/announce/feed/<channel>

A device id cannot be `announce` (ids are upper case), so the two trees never meet.
"""

from __future__ import annotations

import re
from enum import StrEnum

from .device import check_device_id
from .errors import MalformedError

PREFIX = "omamori/v1"
MAX_TOPIC_LENGTH = 128

_CHANNEL = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_DEVICE_TOPIC = re.compile(rf"{PREFIX}/([A-Z0-9-]{{1,64}})/(hb|state|evt|reported|job)(/[0-9a-f]{{16}})?")


class Leaf(StrEnum):
    """Last level of a device's topic."""

    HEARTBEAT = "hb"
    STATE = "state"
    EVENT = "evt"
    COMMAND = "cmd"
    DESIRED = "desired"
    REPORTED = "reported"
    JOB = "job"


def device_topic(device: str, leaf: Leaf) -> str:
    """Return the topic of `device`; raises `MalformedError` on a bad id."""
    return f"{PREFIX}/{check_device_id(device)}/{leaf}"


def job_topic(device: str, command_id: bytes) -> str:
    """Return the topic of the answer to a command; raises `MalformedError` on a bad id."""
    return f"{device_topic(device, Leaf.JOB)}/{command_id.hex()}"


def any_device(leaf: Leaf) -> str:
    """Return the subscription filter for `leaf` of all devices."""
    return f"{PREFIX}/+/{leaf}/+" if leaf is Leaf.JOB else f"{PREFIX}/+/{leaf}"


def parse_device_topic(topic: str) -> tuple[str, Leaf]:
    """Split a topic that a device publishes on into device id and leaf.

    Raises:
        MalformedError: It is not such a topic.
    """
    match = _DEVICE_TOPIC.fullmatch(topic) if len(topic) <= MAX_TOPIC_LENGTH else None
    if match is None or (match[2] == Leaf.JOB) is not bool(match[3]):
        raise MalformedError(f"not a device's topic: {topic[:MAX_TOPIC_LENGTH]!r}")
    return check_device_id(match[1]), Leaf(match[2])


def check_channel(channel: str) -> str:
    """Return `channel` if it is a feed channel's name; raises `MalformedError` otherwise."""
    if not isinstance(channel, str) or not _CHANNEL.fullmatch(channel):
        raise MalformedError(
            f"not a feed channel: {str(channel)[:40]!r}", hint="lower case letters, digits and hyphens"
        )
    return channel


def feed_announcement(channel: str) -> str:
    """Return the retained topic on which new serials of a feed channel are announced."""
    return f"{PREFIX}/announce/feed/{check_channel(channel)}"


def feed_target(channel: str) -> str:
    """Return the TUF target path of a feed channel's pack."""
    return f"feed/{check_channel(channel)}/pack.tar.gz"


def candidate_target(channel: str) -> str:
    """Return the TUF target path of the pack that a channel tries on a part of its boxes."""
    return f"feed/{check_channel(channel)}/candidate.tar.gz"
