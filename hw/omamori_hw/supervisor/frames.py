"""Frames on the serial line, the box's end: COBS between zeros, sequence, CRC-32.

    00 | COBS( sequence, 2 bytes | body, 1 to 240 bytes | CRC-32 of both, 4 bytes ) | 00

The supervisor's end is another program in another place (`hw/supervisor/lib`); the tests hold both against the same
vectors. Nothing here knows what a body means.
"""

import zlib
from dataclasses import dataclass, field

MAX_BODY = 240
_OVERHEAD = 6
_MAX_STUFFED = MAX_BODY + _OVERHEAD + 1
# A jump this far is a supervisor that began anew, not a loss.
_RESTART = 1000


def encode(sequence: int, body: bytes) -> bytes:
    """Return the frame of a body.

    Args:
        sequence: Number of the frame, modulo 65536.
        body: 1 to 240 bytes.

    Raises:
        ValueError: The body is empty or too long.
    """
    if not 0 < len(body) <= MAX_BODY:
        raise ValueError(f"a body of {len(body)} bytes")
    content = (sequence & 0xFFFF).to_bytes(2, "big") + body
    content += zlib.crc32(content).to_bytes(4, "big")
    stuffed = b"".join(bytes([len(run) + 1]) + run for run in content.split(b"\0"))
    return b"\0" + stuffed + b"\0"


def unstuff(data: bytes) -> bytes | None:
    """Undo COBS; None for what no encoder makes."""
    runs = []
    at = 0
    while at < len(data):
        code = data[at]
        if code == 0 or at + code > len(data):
            return None
        runs.append(data[at + 1 : at + code])
        at += code
    return b"\0".join(runs)


@dataclass
class Counters:
    """What came over the line.

    Attributes:
        good: Frames accepted.
        damaged: Pieces between zeros that were no frame.
        repeated: Frames with the sequence of the one before.
        lost: Sequences that never came.
    """

    good: int = 0
    damaged: int = 0
    repeated: int = 0
    lost: int = 0


@dataclass
class Decoder:
    """Finds frames in a stream of bytes, however it is cut into pieces; keeps at most one frame's bytes."""

    counters: Counters = field(default_factory=Counters)
    _piece: bytes = b""
    _too_long: bool = False
    _sequence: int | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes from the line and return the bodies of the frames that are complete now."""
        first, *others = data.split(b"\0")
        self._append(first)
        bodies = []
        for part in others:
            body = self._end()
            if body is not None:
                bodies.append(body)
            self._append(part)
        return bodies

    @property
    def held(self) -> int:
        """How many bytes of an unfinished frame are kept."""
        return len(self._piece)

    def _append(self, part: bytes) -> None:
        if len(self._piece) + len(part) > _MAX_STUFFED:
            self._too_long = True
        else:
            self._piece += part

    def _end(self) -> bytes | None:
        piece, too_long = self._piece, self._too_long
        self._piece, self._too_long = b"", False
        if not piece and not too_long:
            return None
        content = None if too_long else unstuff(piece)
        if content is None or not _OVERHEAD < len(content) <= MAX_BODY + _OVERHEAD:
            self.counters.damaged += 1
            return None
        if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "big"):
            self.counters.damaged += 1
            return None
        sequence = int.from_bytes(content[:2], "big")
        if sequence == self._sequence:
            self.counters.repeated += 1
            return None
        if self._sequence is not None:
            missing = (sequence - self._sequence - 1) & 0xFFFF
            self.counters.lost += missing if missing < _RESTART else 0
        self._sequence = sequence
        self.counters.good += 1
        return content[2:-4]
