"""A question that the engine must notice: proof that packets reach it and that it matches rules of the current feed.

Every stored feed has one rule more, about a name with a secret of this box, made when the feed was unpacked. The name
is asked for over DNS, at an address that belongs to nobody; the engine drops the question and puts the name into a set,
where it is looked up over the engine's socket. So the whole way is seen: the box's own traffic, queue, engine, rule,
set. Nobody else knows the name, so nobody else can fill the set.

A box without an address or a route cannot ask; then nothing is known, and nothing follows from it. The same goes for an
engine that did not notice the canary of the feed before: what is broken then is not the new feed.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from omamori_agent.engine import EngineControl, EngineRefusedError
from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded

logger = logging.getLogger(__name__)

CANARY_NAME = "canary"
CANARY_RULES_NAME = "canary.rules"
SET = "omamori-canary"
_RULE_ID = 9900100  # of those that belong to the image, not to feeds
_ADDRESS = ("192.0.2.53", 53)  # RFC 5737: nobody's
_SECRET = re.compile(rb"[0-9a-f]{32}\n")
_TRY_S = 0.3


def write_canary(engine: Path) -> None:
    """Make the secret of a feed that is being unpacked, and the rule about it."""
    secret = secrets.token_hex(16)
    (engine / CANARY_NAME).write_text(f"{secret}\n", encoding="ascii")
    (engine / CANARY_RULES_NAME).write_bytes(_rule(secret))


def _rule(secret: str) -> bytes:
    return (
        f'drop:packet dns any any -> {_ADDRESS[0]} 53 (msg:"Omamori canary"; dns.query; content:"{secret}.invalid"; '
        f"bsize:{len(secret) + 8}; dataset:set,{SET},type string,memcap 1 MiB,hashsize 64; noalert; "
        f"sid:{_RULE_ID}; rev:1;)\n"
    ).encode()


class Canary:
    """Asks and looks.

    Args:
        control: The engine.
        tries: How often it asks; the engine may drop a packet when it is busy.
        send: Sends a datagram to an address; a parameter for tests.
    """

    def __init__(
        self,
        control: EngineControl,
        *,
        tries: int,
        send: Callable[[bytes, tuple[str, int]], None] | None = None,
    ) -> None:
        self._control = control
        self._tries = tries
        self._send = send or _send

    def is_noticed(self, engine: Path, stop: threading.Event) -> bool | None:
        """Return whether the engine noticed the canary of a feed; None if that cannot be known.

        Args:
            engine: The feed's directory for the engine.
            stop: Ends the waiting.

        Raises:
            EngineUnavailableError: The engine went away.
        """
        try:
            found = read_bounded(engine / CANARY_NAME, 64)
        except (FileNotFoundError, SetupError):
            return None
        if not _SECRET.fullmatch(found):
            return None
        name = found[:-1] + b".invalid"
        with contextlib.suppress(EngineRefusedError):  # no such set yet
            self._control.change_dataset(SET, [(False, name)])  # it may be there since the last time
        for _ in range(self._tries):
            try:
                self._send(_question(name), _ADDRESS)
            except OSError as err:
                logger.debug("canary: %s", err.strerror or err)
                return None
            if stop.wait(_TRY_S):
                return None
            if self._is_in_set(name):
                return True
        return False

    def _is_in_set(self, name: bytes) -> bool:
        try:
            return self._control.has_entry(SET, name)
        except EngineRefusedError:
            return False  # no such set: the rule is not loaded


def _question(name: bytes) -> bytes:
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
    return struct.pack("!HHHHHH", secrets.randbits(16), 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def _send(data: bytes, address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, address)
