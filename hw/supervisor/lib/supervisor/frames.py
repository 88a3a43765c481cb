"""Frames on the serial line: found again after any disturbance, accepted only whole.

    00 | COBS( sequence, 2 bytes | body, 1 to 240 bytes | CRC-32 of both, 4 bytes ) | 00

Zero bytes occur only between frames (Cheshire and Baker 1999), so a damaged frame costs itself and nothing else. The
CRC is that of IEEE 802.3, numbers are big-endian. A frame with the sequence of the one before is a repeat.
"""

import binascii

MAX_BODY = 240
MAX_CONTENT = MAX_BODY + 6
MAX_STUFFED = MAX_CONTENT + 1
MAX_FRAME = MAX_STUFFED + 2
_RESTART = 1000


def encode(sequence, body):
    """Return the frame of a body.

    Raises:
        ValueError: The body is empty or too long.
    """
    if not 0 < len(body) <= MAX_BODY:
        raise ValueError("body")
    content = bytes((sequence >> 8 & 255, sequence & 255)) + body
    content += (binascii.crc32(content) & 0xFFFFFFFF).to_bytes(4, "big")
    out = bytearray(1)
    for run in content.split(b"\0"):  # no run is as long as COBS's longest block, 254 bytes
        out.append(len(run) + 1)
        out.extend(run)
    out.append(0)
    return bytes(out)


def unstuff(data):
    """Undo COBS; return None for what no encoder makes."""
    out = bytearray()
    at = 0
    end = len(data)
    while at < end:
        code = data[at]
        if code == 0 or at + code > end:
            return None
        out.extend(data[at + 1 : at + code])
        at += code
        if at < end:
            out.append(0)
    return out


class Decoder:
    """Finds frames in a stream of bytes, however it is cut into pieces.

    Attributes:
        good: Frames accepted.
        damaged: Pieces between zeros that were no frame.
        repeated: Frames with the sequence of the one before.
        lost: Sequences that never came.
    """

    def __init__(self):
        """Wait for the first frame."""
        self.good = 0
        self.damaged = 0
        self.repeated = 0
        self.lost = 0
        self._piece = bytearray()
        self._too_long = False
        self._sequence = None

    def feed(self, data):
        """Take bytes from the line and return the bodies of the frames that are complete now."""
        bodies = []
        parts = data.split(b"\0")
        for number, part in enumerate(parts):
            if number:
                body = self._end()
                if body is not None:
                    bodies.append(body)
            if len(self._piece) + len(part) > MAX_STUFFED:
                self._too_long = True
            elif part:
                self._piece.extend(part)
        return bodies

    def _end(self):
        piece, too_long = self._piece, self._too_long
        self._piece, self._too_long = bytearray(), False
        if not piece and not too_long:
            return None
        content = None if too_long else unstuff(piece)
        if content is None or not 6 < len(content) <= MAX_CONTENT:
            self.damaged += 1
            return None
        content = bytes(content)
        if binascii.crc32(content[:-4]) & 0xFFFFFFFF != int.from_bytes(content[-4:], "big"):
            self.damaged += 1
            return None
        return self._accept(content[0] << 8 | content[1], content[2:-4])

    def _accept(self, sequence, body):
        if sequence == self._sequence:
            self.repeated += 1
            return None
        if self._sequence is not None:
            missing = (sequence - self._sequence - 1) & 0xFFFF
            if missing < _RESTART:
                self.lost += missing
        self._sequence = sequence
        self.good += 1
        return body
