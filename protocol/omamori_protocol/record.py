"""Messages as CBOR maps with integer keys, described once.

A message is a frozen dataclass whose fields carry `wire(key, kind)`. Key 0 is the schema version. Unknown keys are
ignored (a newer sender may add some) unless the message says that it is `STRICT`, a missing key takes the field's
default or is an error, a value of the wrong type or outside its bound is always an error. What no single field can
say (an end before its beginning, a number twice) a message says in `check`. The CDDL twin of every message stands in
`protocol/omamori.cddl`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, Self, cast

from . import cbor
from .errors import MalformedError, OversizeError, UnknownVersionError
from .vocabulary import WireEnum

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Kind(Protocol):
    """How one field looks on the wire."""

    def to_wire(self, value: Any) -> Any:
        """Return the plain value to encode."""

    def from_wire(self, value: Any) -> Any:
        """Return the field's value; raise `MalformedError` or `OversizeError`."""


@dataclasses.dataclass(frozen=True)
class UInt:
    """An integer 0..`maximum`."""

    maximum: int = 2**32 - 1

    def to_wire(self, value: Any) -> Any:
        """Clamp nothing: a sender's mistake must show in its own tests."""
        return self.from_wire(value)

    def from_wire(self, value: Any) -> Any:
        """Check type and range."""
        if type(value) is not int:
            raise MalformedError(f"expected an integer, got {type(value).__name__}")
        if not 0 <= value <= self.maximum:
            raise MalformedError(f"integer {value} is outside 0..{self.maximum}")
        return value


@dataclasses.dataclass(frozen=True)
class Int:
    """An integer `minimum`..`maximum`."""

    minimum: int
    maximum: int

    def to_wire(self, value: Any) -> Any:
        """Check as on the way in."""
        return self.from_wire(value)

    def from_wire(self, value: Any) -> Any:
        """Check type and range."""
        if type(value) is not int:
            raise MalformedError(f"expected an integer, got {type(value).__name__}")
        if not self.minimum <= value <= self.maximum:
            raise MalformedError(f"integer {value} is outside {self.minimum}..{self.maximum}")
        return value


@dataclasses.dataclass(frozen=True)
class Text:
    """Text of at most `maximum` characters; control characters are refused."""

    maximum: int

    def to_wire(self, value: Any) -> Any:
        """Check as on the way in."""
        return self.from_wire(value)

    def from_wire(self, value: Any) -> Any:
        """Check type, length and characters."""
        if not isinstance(value, str):
            raise MalformedError(f"expected text, got {type(value).__name__}")
        if len(value) > self.maximum:
            raise OversizeError(f"text of {len(value)} characters, allowed {self.maximum}", limit=self.maximum)
        if _CONTROL.search(value) is not None:
            raise MalformedError("text with control characters")
        return value


@dataclasses.dataclass(frozen=True)
class Octets:
    """Bytes of exactly `length`."""

    length: int

    def to_wire(self, value: Any) -> Any:
        """Check as on the way in."""
        return self.from_wire(value)

    def from_wire(self, value: Any) -> Any:
        """Check type and length."""
        if not isinstance(value, bytes) or len(value) != self.length:
            raise MalformedError(f"expected {self.length} bytes")
        return value


@dataclasses.dataclass(frozen=True)
class Blob:
    """At most `maximum` bytes."""

    maximum: int

    def to_wire(self, value: Any) -> Any:
        """Check as on the way in."""
        return self.from_wire(value)

    def from_wire(self, value: Any) -> Any:
        """Check type and length."""
        if not isinstance(value, bytes):
            raise MalformedError(f"expected bytes, got {type(value).__name__}")
        if len(value) > self.maximum:
            raise OversizeError(f"{len(value)} bytes, allowed {self.maximum}", limit=self.maximum)
        return value


@dataclasses.dataclass(frozen=True)
class Choice:
    """A member of a closed choice."""

    enum: type[WireEnum]

    def to_wire(self, value: Any) -> Any:
        """Return the member's number."""
        return int(self.enum(value))

    def from_wire(self, value: Any) -> Any:
        """Return the member."""
        if type(value) is not int:
            raise MalformedError(f"expected a number of {self.enum.__name__}")
        member = _members(self.enum).get(value)
        if member is None:
            raise MalformedError(f"{value} is not a {self.enum.__name__}")
        return member


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or false."""

    def to_wire(self, value: Any) -> Any:
        """Check as on the way in."""
        return self.from_wire(value)

    def from_wire(self, value: Any) -> Any:
        """Check the type."""
        if type(value) is not bool:
            raise MalformedError(f"expected true or false, got {type(value).__name__}")
        return value


@dataclasses.dataclass(frozen=True)
class Checked:
    """A value of another kind that has to pass a check of its own, for example text that must be an address.

    `check` returns nothing and raises `MalformedError`.
    """

    kind: Kind
    check: Callable[[Any], None]

    def to_wire(self, value: Any) -> Any:
        """Check as on the way in."""
        plain = self.kind.to_wire(value)
        self.check(value)
        return plain

    def from_wire(self, value: Any) -> Any:
        """Check the kind first, then the value."""
        value = self.kind.from_wire(value)
        self.check(value)
        return value


@dataclasses.dataclass(frozen=True)
class Nested:
    """A record inside a record; it has no schema version of its own."""

    record: type[Record]

    def to_wire(self, value: Any) -> Any:
        """Return the record's map."""
        if type(value) is not self.record:
            raise MalformedError(f"expected a {self.record.__name__}, got {type(value).__name__}")
        return value.to_body()

    def from_wire(self, value: Any) -> Any:
        """Return the record."""
        return self.record.from_body(value)


@dataclasses.dataclass(frozen=True)
class Several:
    """A tuple of at most `maximum` values of one kind."""

    kind: Kind
    maximum: int

    def to_wire(self, value: Any) -> Any:
        """Return the values as a list."""
        if not isinstance(value, tuple):
            raise MalformedError(f"expected a tuple, got {type(value).__name__}")
        self._check_count(value)
        return [self.kind.to_wire(item) for item in value]

    def from_wire(self, value: Any) -> Any:
        """Return the values as a tuple."""
        if not isinstance(value, list):
            raise MalformedError(f"expected a list, got {type(value).__name__}")
        self._check_count(value)
        items = []
        for number, item in enumerate(value):
            try:
                items.append(self.kind.from_wire(item))
            except OversizeError as err:
                raise OversizeError(f"[{number}]: {err}", limit=err.limit) from err
            except MalformedError as err:
                raise MalformedError(f"[{number}]: {err}") from err
        return tuple(items)

    def _check_count(self, value: tuple[Any, ...] | list[Any]) -> None:
        if len(value) > self.maximum:
            raise OversizeError(f"{len(value)} items, allowed {self.maximum}", limit=self.maximum)


def wire(key: int, kind: Kind, **default: Any) -> Any:
    """Declare a dataclass field that travels under `key`."""
    return dataclasses.field(metadata={"key": key, "kind": kind}, **default)


class _Field(NamedTuple):
    name: str
    key: int
    kind: Kind
    is_required: bool


@functools.cache  # every message asks, and dataclasses looks all of it up anew
def _fields(record: Any) -> tuple[_Field, ...]:
    return tuple(
        _Field(item.name, item.metadata["key"], item.metadata["kind"], item.default is dataclasses.MISSING)
        for item in dataclasses.fields(record)
    )


@functools.cache
def _members(enum: type[WireEnum]) -> dict[int, WireEnum]:
    return {int(member): member for member in enum}


class Record:
    """Base of all messages; subclasses are frozen dataclasses with `wire` fields.

    Class attributes:
        VERSION: Schema version written under key 0 and the only one accepted.
        MAX_BYTES: Largest encoded message that is looked at.
        MAX_ITEMS: Most items in one list or map of it.
        STRICT: Whether an unknown key makes the whole message unacceptable instead of being ignored.
    """

    VERSION: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 4096
    MAX_ITEMS: ClassVar[int] = cbor.MAX_ITEMS
    STRICT: ClassVar[bool] = False

    def check(self) -> None:
        """Raise `MalformedError` if the fields do not fit together; called in both directions."""

    def encode(self) -> bytes:
        """Return the message as deterministic CBOR; fields that are None stay out."""
        return cbor.encode({0: self.VERSION, **self.to_body()})

    def to_body(self) -> dict[int, Any]:
        """Return the fields by their keys, without the schema version."""
        body: dict[int, Any] = {}
        for name, key, kind, _is_required in _fields(cast(Any, type(self))):
            value = getattr(self, name)
            if value is not None:
                body[key] = kind.to_wire(value)
        self.check()
        return body

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a message.

        Raises:
            OversizeError: Longer than `MAX_BYTES`, or a part of it beyond its bound.
            UnknownVersionError: Key 0 is not `VERSION`.
            MalformedError: Not such a message.
        """
        body = cbor.decode(data, max_bytes=cls.MAX_BYTES, max_items=cls.MAX_ITEMS)
        if not isinstance(body, dict):
            raise MalformedError(f"{cls.__name__}: expected a map")
        if body.get(0) != cls.VERSION:
            raise UnknownVersionError(cls.__name__, body.get(0))
        del body[0]
        return cls.from_body(body)

    @classmethod
    def from_body(cls, body: Any) -> Self:
        """Read the fields from a decoded map without a schema version.

        Raises:
            OversizeError: A part is beyond its bound.
            MalformedError: Not such a record.
        """
        if not isinstance(body, dict):
            raise MalformedError(f"{cls.__name__}: expected a map")
        values: dict[str, Any] = {}
        for name, key, kind, is_required in _fields(cast(Any, cls)):
            if key not in body:
                if is_required:
                    raise MalformedError(f"{cls.__name__}: {name} (key {key}) is missing")
                continue
            try:
                values[name] = kind.from_wire(body[key])
            except OversizeError as err:
                raise OversizeError(f"{cls.__name__}.{name}: {err}", limit=err.limit) from err
            except MalformedError as err:
                raise MalformedError(f"{cls.__name__}.{name}: {err}") from err
        if cls.STRICT:
            known = {key for _name, key, _kind, _is_required in _fields(cast(Any, cls))}
            unknown = sorted(set(body) - known)
            if unknown:
                raise MalformedError(f"{cls.__name__}: unknown key {unknown[0]}")
        record = cls(**values)
        record.check()
        return record
