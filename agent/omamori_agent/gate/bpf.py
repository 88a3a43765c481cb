"""bpf(2) for pinned maps: open, look up, update, delete, walk.

Only the commands that an unprivileged owner of a map may use. Everything is bounded: a walk ends after as many
elements as the map can hold, even if others keep adding.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_LOOKUP, _UPDATE, _DELETE, _OBJ_GET, _INFO = 1, 2, 3, 7, 15
_LOOKUP_BATCH, _TAKE_BATCH, _UPDATE_BATCH, _DELETE_BATCH = 24, 25, 26, 27
_READ_ONLY = 1 << 3
_ATTRIBUTE_BYTES = 128
_INFO_BYTES = 88
_BATCH = 512
_MAX_POSITION_BYTES = 64

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attribute: bytes) -> tuple[int, bytes]:
    """Make the call; return its result and the attribute as the kernel left it.

    Raises:
        OSError: The kernel refused.
    """
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) is not known on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_BYTES)
    result = int(_libc.syscall(number, command, buffer, _ATTRIBUTE_BYTES))
    if result < 0:
        raise _error(buffer.raw)
    return result, buffer.raw


class _BatchError(OSError):
    """A refused call, with the attribute as the kernel left it (a batch may be done in part)."""

    attribute: bytes = b""


def _error(attribute: bytes) -> _BatchError:
    number = ctypes.get_errno()
    error = _BatchError(number, os.strerror(number))
    error.attribute = attribute
    return error


class BpfMap:
    """One pinned map.

    Args:
        path: Its pin.
        key_size: Expected size of a key in bytes.
        value_size: Expected size of a value in bytes.
        read_only: Ask for no more than reading; the kernel then refuses writes, and the pin's read permission is
            enough.

    Raises:
        OSError: There is no such pin, it may not be used, or the sizes differ (EINVAL).
    """

    def __init__(self, path: Path, key_size: int, value_size: int, *, read_only: bool = False) -> None:
        name = ctypes.create_string_buffer(os.fsencode(path))
        flags = _READ_ONLY if read_only else 0
        self._fd, _ = _bpf(_OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, flags))
        self.key_size = key_size
        self.value_size = value_size
        try:
            self.max_entries = self._checked_size()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the map; it lives on through its pin."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def lookup(self, key: bytes, *, size: int | None = None) -> bytes | None:
        """Return the value of a key, or None.

        Args:
            key: The key.
            size: Bytes the kernel writes, if not the value's size (values per CPU).
        """
        value = ctypes.create_string_buffer(size or self.value_size)
        try:
            self._element(_LOOKUP, key, value)
        except OSError as err:
            if err.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        self._element(_UPDATE, key, ctypes.create_string_buffer(value, self.value_size))

    def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        try:
            self._element(_DELETE, key, None)
        except OSError as err:
            if err.errno == errno.ENOENT:
                return False
            raise
        return True

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk over keys and values; one that changes meanwhile may or may not be seen."""
        return self._walk(_LOOKUP_BATCH)

    def take(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk over keys and values and remove them, so that each is seen once."""
        return self._walk(_TAKE_BATCH)

    def update_many(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Set the values of many keys."""
        for start in range(0, len(keys), _BATCH):
            part = keys[start : start + _BATCH]
            self._batch(_UPDATE_BATCH, b"".join(part), b"".join(values[start : start + _BATCH]), len(part))

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """Remove many keys; one that is gone already does not matter."""
        for start in range(0, len(keys), _BATCH):
            part = list(keys[start : start + _BATCH])
            while part:
                try:
                    self._batch(_DELETE_BATCH, b"".join(part), None, len(part))
                    break
                except _BatchError as err:
                    if err.errno != errno.ENOENT:
                        raise
                    done = struct.unpack_from("=I", err.attribute, 32)[0]
                    part = part[done + 1 :]

    def _checked_size(self) -> int:
        info = ctypes.create_string_buffer(_INFO_BYTES)
        _bpf(_INFO, struct.pack("=IIQ", self._fd, _INFO_BYTES, ctypes.addressof(info)))
        _, _, key_size, value_size, max_entries = struct.unpack_from("=IIIII", info.raw)
        if (key_size, value_size) != (self.key_size, self.value_size):
            raise OSError(errno.EINVAL, f"its elements have {key_size}+{value_size} bytes")
        return int(max_entries)

    def _element(self, command: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None) -> None:
        if len(key) != self.key_size:
            raise OSError(errno.EINVAL, f"a key has {self.key_size} bytes, not {len(key)}")
        raw = ctypes.create_string_buffer(key, self.key_size)
        at = ctypes.addressof(value) if value is not None else 0
        _bpf(command, struct.pack("=I4xQQQ", self._fd, ctypes.addressof(raw), at, 0))

    def _batch(self, command: int, keys: bytes, values: bytes | None, count: int) -> None:
        key_buffer = ctypes.create_string_buffer(keys, len(keys))
        value_buffer = ctypes.create_string_buffer(values, len(values)) if values is not None else None
        at = ctypes.addressof(value_buffer) if value_buffer is not None else 0
        _bpf(command, struct.pack("=QQQQIIQQ", 0, 0, ctypes.addressof(key_buffer), at, count, self._fd, 0, 0))

    def _walk(self, command: int) -> Iterator[tuple[bytes, bytes]]:
        position = ctypes.create_string_buffer(_MAX_POSITION_BYTES)
        room = min(_BATCH, self.max_entries)
        left = self.max_entries
        is_first = True
        while left > 0:
            keys = ctypes.create_string_buffer(room * self.key_size)
            values = ctypes.create_string_buffer(room * self.value_size)
            at = ctypes.addressof(position)
            head = (0 if is_first else at, at, ctypes.addressof(keys), ctypes.addressof(values), room, self._fd, 0, 0)
            is_last = False
            try:
                _, attribute = _bpf(command, struct.pack("=QQQQIIQQ", *head))
            except _BatchError as err:
                if err.errno == errno.ENOSPC and room < self.max_entries:
                    room = min(room * 4, self.max_entries)  # a bucket of the hash did not fit
                    continue
                if err.errno != errno.ENOENT:
                    raise
                is_last, attribute = True, err.attribute
            count = min(struct.unpack_from("=I", attribute, 32)[0], room, left)
            all_keys, all_values = keys.raw, values.raw
            for index in range(count):
                key_at, value_at = index * self.key_size, index * self.value_size
                yield all_keys[key_at : key_at + self.key_size], all_values[value_at : value_at + self.value_size]
            if is_last or count == 0:
                return
            left -= count
            is_first = False
