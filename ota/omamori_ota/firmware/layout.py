"""Where an image's bytes lie in its bundle.

The bundle's file system stores files as they are, in one piece but for blocks of zeros, which it leaves out. So a file
is found by its first block that is not empty, and followed from there. What is found is compared byte by byte; a file
that does not lie like that is simply not found, and its bytes travel without reference to an older release.
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator
from pathlib import Path

from omamori_ota.errors import SetupError

BLOCK = 131072  # of the bundle's file system


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Bytes of an image: from `offset` in it, `length` of them, at `place` in the bundle; None for zeros left out."""

    offset: int
    length: int
    place: int | None


def find_image(bundle: mmap.mmap, image: mmap.mmap) -> tuple[Stretch, ...]:
    """Return the stretches of an image in a bundle, in the image's order; empty when it does not lie there like that.

    Neighbouring blocks are put together.
    """
    empty = bytes(BLOCK)
    first = next((at for at in range(0, len(image), BLOCK) if image[at : at + BLOCK] != empty[: len(image) - at]), None)
    if first is None:
        return ()
    place = bundle.find(image[first : first + BLOCK])
    if place < 0:
        return ()
    stretches: list[Stretch] = []
    for at in range(0, len(image), BLOCK):
        data = image[at : at + BLOCK]
        if data == empty[: len(data)]:
            _append(stretches, Stretch(at, len(data), None))
        elif bundle[place : place + len(data)] == data:
            _append(stretches, Stretch(at, len(data), place))
            place += len(data)
        else:
            return ()
    return tuple(stretches)


def _append(stretches: list[Stretch], new: Stretch) -> None:
    last = stretches[-1] if stretches else None
    end = None if last is None or last.place is None else last.place + last.length
    if last is not None and (last.place is None) == (new.place is None) and end == new.place:
        stretches[-1] = dataclasses.replace(last, length=last.length + new.length)
    else:
        stretches.append(new)


class MappedFile:
    """A file that is read as if it lay in memory; use it in a `with` block.

    Raises:
        SetupError: It cannot be read, or is empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> mmap.mmap:
        try:
            with self._path.open("rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as err:
            raise SetupError(f"cannot read {self._path}: {err}") from err
        return self._map

    def __exit__(self, *_: object) -> None:
        self._map.close()


def stored(stretches: tuple[Stretch, ...]) -> Iterator[tuple[int, int, int]]:
    """Give what is really there: place in the bundle, length, offset in the image."""
    for stretch in stretches:
        if stretch.place is not None:
            yield stretch.place, stretch.length, stretch.offset
