"""Reads what an operator wants of a box from JSON, and says exactly where it is wrong.

The file holds the sections of `omamori_protocol.desired.DesiredState` by their names; closed choices are words
(``wpa2-wpa3``, ``terminal-mac``), times are UTC like ``2026-12-01T00:00:00Z``. Box, version and expiry are not in
it. Nothing is signed here.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

from omamori_protocol.desired import DesiredState
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError
from omamori_protocol.record import Choice, Kind, Nested, Record, Several, UInt

from .errors import RejectedError

MAX_BYTES = 256 * 1024
SECTIONS = ("wifi", "address", "policy", "exemptions", "firmware", "feed")
_HIDDEN = "(hidden)"
_LONGEST_SPAN_S = 2**32
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def parse_settings(data: bytes) -> dict[str, Any]:
    """Return the sections of a settings file as values of `DesiredState`'s fields.

    Raises:
        RejectedError: It is not such a file; the message names the field.
    """
    if len(data) > MAX_BYTES:
        raise RejectedError(f"settings file of {len(data)} bytes, allowed {MAX_BYTES}")
    try:
        body = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as err:
        raise RejectedError(f"settings file: not JSON: {str(err)[:120]}") from err
    if not isinstance(body, dict):
        raise RejectedError("settings file: expected an object")
    unknown = sorted(set(body) - set(SECTIONS))
    if unknown:
        raise RejectedError(f"{unknown[0][:40]}: no such section", hint=f"sections are {', '.join(SECTIONS)}")
    kinds = {item.name: item.metadata["kind"] for item in dataclasses.fields(DesiredState)}
    return {name: _value(kinds[name], value, name) for name, value in body.items() if value is not None}


def render_settings(document: DesiredState) -> dict[str, Any]:
    """Return a document as plain values for a person to read; the passphrase is not among them."""
    plain: dict[str, Any] = _plain(document)
    if isinstance(plain.get("wifi"), dict):
        plain["wifi"]["passphrase"] = _HIDDEN
    return plain


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return body


def _value(kind: Kind, value: Any, path: str) -> Any:
    if isinstance(kind, Nested):
        return _record(kind.record, value, path)
    if isinstance(kind, Several):
        if not isinstance(value, list):
            raise RejectedError(f"{path}: expected a list")
        if len(value) > kind.maximum:
            raise RejectedError(f"{path}: {len(value)} items, allowed {kind.maximum}")
        return tuple(_value(kind.kind, item, f"{path}[{number}]") for number, item in enumerate(value))
    if isinstance(kind, Choice):
        try:
            return kind.enum.from_word(value)
        except (ValueError, AttributeError) as err:
            words = ", ".join(member.word for member in kind.enum)
            raise RejectedError(f"{path}: not one of {words}") from err
    try:
        return kind.from_wire(value)
    except (MalformedError, OversizeError) as err:
        raise RejectedError(f"{path}: {err}") from err


def _record(record: type[Record], body: Any, path: str) -> Record:
    if not isinstance(body, dict):
        raise RejectedError(f"{path}: expected an object")
    fields = {_spelt(item): item for item in dataclasses.fields(record)}  # type: ignore[arg-type]  # all are
    unknown = sorted(set(body) - set(fields))
    if unknown:
        raise RejectedError(f"{path}.{unknown[0][:40]}: no such field", hint=f"fields are {', '.join(fields)}")
    values: dict[str, Any] = {}
    for name, item in fields.items():
        where = f"{path}.{name}"
        if body.get(name) is None:
            if item.default is dataclasses.MISSING:
                raise RejectedError(f"{where}: missing")
        elif _is_time(item):
            values[item.name] = _time(body[name], where)
        else:
            values[item.name] = _value(item.metadata["kind"], body[name], where)
    made = record(**values)
    try:
        made.to_body()
    except ProtocolError as err:
        raise RejectedError(f"{path}: {err}") from err
    return made


def _is_time(item: dataclasses.Field[Any]) -> bool:
    """Tell whether a field is a moment; a span of seconds is a number in the file, too."""
    kind = item.metadata["kind"]
    return item.name.endswith("_s") and isinstance(kind, UInt) and kind.maximum > _LONGEST_SPAN_S


def _spelt(item: dataclasses.Field[Any]) -> str:
    """Return a field's name in the file: moments are written out there, so they have no unit."""
    return item.name.removesuffix("_s") if _is_time(item) else item.name


def _time(value: Any, path: str) -> int:
    try:
        return int(datetime.strptime(value, _TIME).replace(tzinfo=UTC).timestamp())
    except (ValueError, TypeError) as err:
        raise RejectedError(f"{path}: not a time like 2026-12-01T00:00:00Z") from err


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        body = {}
        for item in dataclasses.fields(value):  # type: ignore[arg-type]  # every record is a dataclass
            found = getattr(value, item.name)
            if found is not None and _is_time(item):
                found = datetime.fromtimestamp(found, UTC).strftime(_TIME)
            elif isinstance(item.metadata["kind"], Choice):
                found = found.word
            body[_spelt(item)] = _plain(found)
        return body
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
