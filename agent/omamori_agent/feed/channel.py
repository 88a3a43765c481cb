"""Which feed channel the box follows: the factory's, unless its desired state names another one.

The choice is a file, so that the first question after a start goes to the right channel, before the desired state is
taken up. Serials count through all channels of an installation: a box takes the pack of another channel when it is
newer than the one in force, and goes back for nothing but a withdrawal.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from omamori_agent.desired.errors import PendingError
from omamori_agent.errors import SetupError, TransientError
from omamori_agent.files import read_bounded, write_atomic
from omamori_agent.text import clean_text
from omamori_protocol.desired import FeedSettings
from omamori_protocol.errors import ProtocolError
from omamori_protocol.reported import PartName
from omamori_protocol.topics import check_channel

logger = logging.getLogger(__name__)

_MAX_BYTES = 64


class FeedChannel:
    """The choice; from any thread.

    Args:
        path: Where it is written down.
        default: The factory's channel.
    """

    def __init__(self, path: Path, default: str) -> None:
        self._path = path
        self._default = default
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._chosen = _load(path) or default
        self._active = ""

    def get(self) -> str:
        """Return the channel that the box follows."""
        with self._lock:
            return self._chosen

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the box follows another channel; it must not block."""
        self._listeners.append(listener)

    def choose(self, channel: str | None) -> None:
        """Follow a channel, None for the factory's; durable.

        Raises:
            TransientError: It could not be written down; nothing changed.
        """
        wanted = channel or self._default
        with self._lock:
            if wanted == self._chosen:
                return
            try:
                write_atomic(self._path, f"{wanted}\n".encode(), mode=0o600)
            except OSError as err:
                raise TransientError(f"the feed channel cannot be written down: {err.strerror or err}") from err
            self._chosen = wanted
        logger.info("the feed channel is %s", wanted)
        for listener in self._listeners:
            listener()

    def show(self, active: str) -> None:
        """Take note of the channel that the feed in force is from; empty without a feed."""
        with self._lock:
            self._active = active

    def active(self) -> str:
        """Return the channel that the feed in force is from; empty if there is none, or nobody has looked yet."""
        with self._lock:
            return self._active


class FeedPart:
    """`desired.part.Part` of the feed channel.

    Args:
        channel: The choice.
    """

    name = PartName.FEED

    def __init__(self, channel: FeedChannel) -> None:
        self._channel = channel

    def apply(self, settings: FeedSettings | None) -> None:
        """Follow the channel that is wanted.

        Raises:
            TransientError: It could not be written down.
            PendingError: No newer feed of that channel has come yet; the one before protects meanwhile.
        """
        self._channel.choose(settings.channel if settings is not None else None)
        if settings is None:
            return
        active = self._channel.active()
        if active != settings.channel:
            kept = f"the feed of channel {active} stays until then" if active else "there is no feed yet"
            raise PendingError(f"waits for a newer feed of channel {settings.channel}; {kept}")


def _load(path: Path) -> str | None:
    try:
        return check_channel(read_bounded(path, _MAX_BYTES).decode("ascii").strip())
    except FileNotFoundError:
        return None
    except (SetupError, ProtocolError, UnicodeDecodeError) as err:
        logger.warning("%s is not usable: %s", path, clean_text(str(err), 120))
        return None
