"""Strict CBOR (RFC 8949) for the link: small, bounded, one spelling for each value.

Rules:
- Only integers of 32 bits, byte strings, short printable ASCII text, booleans, null, arrays and maps.
- Maps have integer keys from -24 to 23, in ascending order of their bytes, none twice.
- Shortest form, definite lengths, at most 4 levels and 24 items in a container, nothing after the value.
- Anything else is `CborError`, whichever way it goes. No number read from outside decides how much memory is taken.
"""

MAX_BYTES = 240
MAX_TEXT = 64
MAX_DEPTH = 4
MAX_ITEMS = 24
_TOO_LARGE = 0x100000000


class CborError(ValueError):
    """Bytes or values that the link does not speak."""


def dumps(value):
    """Return the bytes of a value.

    Raises:
        CborError: The value has a type, size or depth that the link does not speak.
    """
    out = bytearray()
    _write(out, value, 1)
    if len(out) > MAX_BYTES:
        raise CborError("too long")
    return bytes(out)


def loads(data):
    """Return the value of bytes.

    Raises:
        CborError: They are not exactly one value in its only accepted spelling.
    """
    if len(data) > MAX_BYTES:
        raise CborError("too long")
    value, end = _read(data, 0, 1)
    if end != len(data):
        raise CborError("trailing bytes")
    return value


def _head(out, major, number):
    if number < 24:
        out.append(major | number)
    elif number < 0x100:
        out.extend(bytes((major | 24, number)))
    elif number < 0x10000:
        out.extend(bytes((major | 25, number >> 8, number & 255)))
    elif number < _TOO_LARGE:
        out.append(major | 26)
        out.extend(bytes((number >> 24, number >> 16 & 255, number >> 8 & 255, number & 255)))
    else:
        raise CborError("integer")


def _write(out, value, depth):
    if value is None:
        out.append(0xF6)
    elif value is True:
        out.append(0xF5)
    elif value is False:
        out.append(0xF4)
    elif isinstance(value, int):
        _head(out, 0x00 if value >= 0 else 0x20, value if value >= 0 else -1 - value)
    elif isinstance(value, str):
        _write_text(out, value)
    elif isinstance(value, (bytes, bytearray)):
        _head(out, 0x40, len(value))
        out.extend(value)
    else:
        _write_container(out, value, depth)


def _write_text(out, value):
    raw = value.encode()
    if len(raw) > MAX_TEXT or not _is_plain(raw):
        raise CborError("text")
    _head(out, 0x60, len(raw))
    out.extend(raw)


def _write_container(out, value, depth):
    if depth > MAX_DEPTH:
        raise CborError("depth")
    if not isinstance(value, (list, tuple, dict)):
        raise CborError("type")
    if len(value) > MAX_ITEMS:
        raise CborError("items")
    if isinstance(value, dict):
        _head(out, 0xA0, len(value))
        for key, item in sorted([(_key(key), item) for key, item in value.items()], key=_first):
            out.append(key)
            _write(out, item, depth + 1)
    else:
        _head(out, 0x80, len(value))
        for item in value:
            _write(out, item, depth + 1)


def _first(pair):
    return pair[0]


def _key(key):
    if isinstance(key, bool) or not isinstance(key, int) or not -24 <= key < 24:
        raise CborError("key")
    return key if key >= 0 else 0x1F - key


def _is_plain(raw):
    return all(0x20 <= byte < 0x7F for byte in raw)


def _number(data, at, low):
    """Return the number that follows a head, and where it ends."""
    if low < 24:
        return low, at
    if low > 26:
        raise CborError("length")
    size = 1 << (low - 24)
    if at + size > len(data):
        raise CborError("cut short")
    number = 0
    for byte in data[at : at + size]:
        number = number << 8 | byte
    if number < (24, 0x100, 0x10000)[low - 24]:
        raise CborError("not shortest")
    return number, at + size


def _read(data, at, depth):
    if at >= len(data):
        raise CborError("cut short")
    head = data[at]
    if head >= 0xE0:
        if not 0xF4 <= head <= 0xF6:
            raise CborError("type")
        return (False, True, None)[head - 0xF4], at + 1
    number, at = _number(data, at + 1, head & 31)
    major = head >> 5
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major in {2, 3}:
        return _read_string(data, at, number, major)
    if major == 6:
        raise CborError("type")
    if depth > MAX_DEPTH:
        raise CborError("depth")
    if number > MAX_ITEMS:
        raise CborError("items")
    return _read_map(data, at, number, depth) if major == 5 else _read_array(data, at, number, depth)


def _read_string(data, at, length, major):
    if length > len(data) - at:
        raise CborError("cut short")
    raw = bytes(data[at : at + length])
    if major == 2:
        return raw, at + length
    if length > MAX_TEXT or not _is_plain(raw):
        raise CborError("text")
    return raw.decode(), at + length


def _read_array(data, at, count, depth):
    items = []
    for _ in range(count):
        item, at = _read(data, at, depth + 1)
        items.append(item)
    return items, at


def _read_map(data, at, count, depth):
    items = {}
    before = -1
    for _ in range(count):
        if at >= len(data):
            raise CborError("cut short")
        key = data[at]
        if key >= 0x38 or 0x18 <= key < 0x20:
            raise CborError("key")
        if key <= before:
            raise CborError("key order")
        before = key
        items[key if key < 0x20 else 0x1F - key], at = _read(data, at + 1, depth + 1)
    return items, at
