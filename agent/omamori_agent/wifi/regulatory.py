"""Which channels a country allows, read from the kernel's own regulatory database.

The kernel refuses a channel only when the access point has already left the old one; asking the same database first
means that settings which cannot work never disconnect anybody. The file is part of the verified image, and the kernel
checks its signature before it uses it; the bounds here keep a damaged file from doing more than being refused.

Format (the kernel's "firmware database", version 20; all numbers big-endian): magic and version, then countries
(two letters, pointer) up to one with pointer 0. A pointer counts units of four bytes from the file's start. A
country points at a collection (its length, number of rules, DFS region), after whose length, rounded up to two, the
pointers of its rules follow. A rule: length, flags, power, then start, end and widest channel in kHz.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path

from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded

MAX_DATABASE_BYTES = 64 * 1024
CHANNELS = range(1, 14)  # channel 14 is for 11b alone

_MAGIC = 0x52474442
_VERSION = 20
_HEADER = struct.Struct(">II")
_COUNTRY = struct.Struct(">2sH")
_COLLECTION = struct.Struct(">BBB")
_POINTER = struct.Struct(">H")
_RULE = struct.Struct(">BBHIII")
_NO_OFDM, _DFS, _NO_IR = 0x01, 0x04, 0x08
_HALF_WIDTH_KHZ = 10_000


@dataclasses.dataclass(frozen=True)
class FrequencyRule:
    """A range of frequencies (kHz) and whether an access point may begin to talk there."""

    start_khz: int
    end_khz: int
    max_width_khz: int
    allows_access_point: bool

    def covers(self, centre_khz: int) -> bool:
        """Whether a 20 MHz channel around a frequency lies inside."""
        return (
            self.allows_access_point
            and self.max_width_khz >= 2 * _HALF_WIDTH_KHZ
            and self.start_khz <= centre_khz - _HALF_WIDTH_KHZ
            and centre_khz + _HALF_WIDTH_KHZ <= self.end_khz
        )


class RegulatoryDatabase:
    """A parsed database.

    Args:
        data: Content of ``regulatory.db``.

    Raises:
        SetupError: It is larger than the bound or not such a database.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_DATABASE_BYTES:
            raise SetupError(f"regulatory database: more than {MAX_DATABASE_BYTES} bytes")
        self._data = data
        try:
            if _HEADER.unpack_from(data) != (_MAGIC, _VERSION):
                raise SetupError("regulatory database: not of version 20")
            self._countries = dict(self._read_countries())
        except struct.error as err:
            raise SetupError("regulatory database: cut short") from err

    @property
    def countries(self) -> frozenset[str]:
        """Every country in it, as two letters."""
        return frozenset(self._countries)

    def channels(self, country: str) -> tuple[int, ...]:
        """Return the 2.4 GHz channels on which an access point may work in a country; none for an unknown one.

        Raises:
            SetupError: The database is damaged at this country.
        """
        pointer = self._countries.get(country)
        if pointer is None:
            return ()
        try:
            rules = list(self._read_rules(pointer))
        except struct.error as err:
            raise SetupError(f"regulatory database: {country} is cut short") from err
        return tuple(channel for channel in CHANNELS if any(rule.covers(centre_khz(channel)) for rule in rules))

    def _read_countries(self) -> Iterator[tuple[str, int]]:
        offset = _HEADER.size
        while True:
            letters, pointer = _COUNTRY.unpack_from(self._data, offset)
            if pointer == 0:
                return
            yield letters.decode("ascii", errors="replace"), pointer * 4
            offset += _COUNTRY.size

    def _read_rules(self, offset: int) -> Iterator[FrequencyRule]:
        length, count, _region = _COLLECTION.unpack_from(self._data, offset)
        first = offset + (length + 1) // 2 * 2
        for number in range(count):
            (pointer,) = _POINTER.unpack_from(self._data, first + number * _POINTER.size)
            _length, flags, _power, start, end, width = _RULE.unpack_from(self._data, pointer * 4)
            yield FrequencyRule(start, end, width, not flags & (_NO_OFDM | _DFS | _NO_IR))


def centre_khz(channel: int) -> int:
    """Return the middle of a 2.4 GHz channel 1-13 in kHz."""
    return 2_407_000 + 5_000 * channel


def load_database(path: Path) -> RegulatoryDatabase:
    """Read the database of the image.

    Raises:
        SetupError: It is missing, too large, or not such a database.
    """
    try:
        data = read_bounded(path, MAX_DATABASE_BYTES)
    except FileNotFoundError as err:
        raise SetupError(f"{path}: missing", hint="the image lacks the package wireless-regdb") from err
    return RegulatoryDatabase(data)
