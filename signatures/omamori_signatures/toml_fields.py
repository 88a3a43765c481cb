"""Typed reading of the package's TOML files: every key is known, every value has a form and a bound."""

from __future__ import annotations

import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from .errors import SourceError
from .files import read_bounded

MAX_BYTES = 1024 * 1024
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
VERSION = re.compile(r"\d{1,3}(\.\d{1,5}){1,3}")

_Choice = TypeVar("_Choice", bound=StrEnum)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        SourceError: It cannot be read, is too large or no TOML.
    """
    try:
        return tomllib.loads(read_bounded(path, MAX_BYTES).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise SourceError(f"{path}: {err}") from err


class Fields:
    """One table, read key by key; `finish` refuses what nobody asked for.

    Args:
        body: The table.
        what: Name for errors.

    Raises:
        SourceError: It is no table. Every method raises it, too, when a value is not as it must be.
    """

    def __init__(self, body: object, what: str) -> None:
        if not isinstance(body, dict):
            raise SourceError(f"{what}: expected a table")
        self._left: dict[str, Any] = dict(body)
        self.what = what

    def finish(self) -> None:
        """Refuse keys that were not read."""
        if self._left:
            raise SourceError(f"{self.what}: unknown {', '.join(sorted(self._left))}"[:300])

    def has(self, key: str) -> bool:
        """Say whether a key is there and not read yet."""
        return key in self._left

    def _take(self, key: str, default: object = None) -> Any:
        if key not in self._left:
            if default is None:
                raise SourceError(f"{self.what}: missing {key}")
            return default
        return self._left.pop(key)

    def _wrong(self, key: str, value: object, hint: str) -> SourceError:
        return SourceError(f"{self.what}: {key}: {str(value)[:80]!r} is not allowed", hint=hint)

    def matching(self, key: str, form: re.Pattern[str], default: str | None = None) -> str:
        """Return a text of a form."""
        value = self._take(key, default)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise self._wrong(key, value, f"form: {form.pattern}")
        return value

    def sentence(self, key: str, default: str | None = None) -> str:
        """Return a line of 1 to 300 printable characters."""
        value = self._take(key, default)
        if not isinstance(value, str) or not (1 <= len(value) <= 300 or value == default) or not value.isprintable():
            raise self._wrong(key, value, "a line of 1 to 300 characters")
        return value

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Return an integer within bounds."""
        value = self._take(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(key, value, f"a number from {low} to {high}")
        return value

    def truth(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._left.pop(key, default)
        if type(value) is not bool:
            raise self._wrong(key, value, "true or false")
        return value

    def choice(self, key: str, choices: type[_Choice], default: str | None = None) -> _Choice:
        """Return a member of a closed choice."""
        value = self._take(key, default)
        try:
            return choices(value)
        except ValueError as err:
            raise self._wrong(key, value, f"one of {', '.join(choices)}") from err

    def pair(self, key: str, high: int, default: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return two numbers in ascending order, from 0 to `high`."""
        value = self._take(key, default)
        if not isinstance(value, list | tuple) or len(value) != 2 or any(type(item) is not int for item in value):
            raise self._wrong(key, value, "two numbers")
        first, last = value
        if not 0 <= first <= last <= high:
            raise self._wrong(key, value, f"ascending, from 0 to {high}")
        return first, last

    def names(self, key: str, form: re.Pattern[str], maximum: int, *, required: bool = False) -> tuple[str, ...]:
        """Return a list of texts of a form, each once."""
        value = self._take(key) if required else self._left.pop(key, [])
        if not isinstance(value, list) or len(value) > maximum:
            raise self._wrong(key, value, f"a list of at most {maximum}")
        for item in value:
            if not isinstance(item, str) or not form.fullmatch(item):
                raise self._wrong(key, item, f"form: {form.pattern}")
        if len(set(value)) != len(value):
            raise self._wrong(key, value, "each once")
        return tuple(value)

    def mapping(self, key: str, keys: re.Pattern[str], values: re.Pattern[str], maximum: int) -> dict[str, str]:
        """Return a table of texts."""
        value = self._left.pop(key, {})
        if not isinstance(value, dict) or len(value) > maximum:
            raise self._wrong(key, value, f"a table of at most {maximum}")
        for name, item in value.items():
            if not keys.fullmatch(name) or not isinstance(item, str) or not values.fullmatch(item):
                raise self._wrong(key, f"{name} = {item}", f"forms: {keys.pattern} = {values.pattern}")
        return dict(value)

    def table(self, key: str) -> object:
        """Return one value as it stands, to be read as a table of its own."""
        return self._take(key)

    def tables(self, key: str, maximum: int) -> list[Any]:
        """Return an array of tables."""
        value = self._left.pop(key, [])
        if not isinstance(value, list) or len(value) > maximum:
            raise SourceError(f"{self.what}: {key} must be at most {maximum} tables")
        return value
