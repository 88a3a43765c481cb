"""What a source says, line by line, before anybody has checked it.

Readers of all formats (`line_formats`, `document_formats`) yield these three: a token that claims to be an indicator, a
line that is bad, and a line that is fine and says nothing to a box (a rule that hides advertisements, a withdrawn
indicator). Whether a token is an indicator is decided by `indicators` and `urls`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import BinaryIO, NamedTuple

MAX_LINE_BYTES = 8192


class TokenKind(StrEnum):
    """What a token claims to be."""

    DOMAIN = "domain"
    IP = "ip"
    URL = "url"
    SHA256 = "sha256"
    MD5 = "md5"
    SHA1 = "sha1"
    RULE = "rule"


class Token(NamedTuple):
    """Something that claims to be an indicator; `number` is its line, or its place in a document, from 1."""

    number: int
    kind: TokenKind
    text: str
    group: str = ""


class Bad(NamedTuple):
    """A line that cannot be read."""

    number: int
    reason: str


class Skipped(NamedTuple):
    """A line that is right and nothing for a box."""

    number: int


Saying = Token | Bad | Skipped

_HEX = re.compile(r"[0-9A-Fa-f]+")
_DIGESTS = {64: TokenKind.SHA256, 40: TokenKind.SHA1, 32: TokenKind.MD5}
_V4_LIKE = re.compile(r"[0-9.]+(?:/[0-9]+)?")
_WITH_PORT = re.compile(r"([^:/\[\]]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")


def read_lines(stream: BinaryIO) -> Iterator[tuple[int, str | None]]:
    """Yield the lines of a stream with their numbers; None stands for one that is too long or not UTF-8.

    A line that is too long is passed over without being held.
    """
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            yield number, None
            continue
        yield number, (text.removeprefix("\ufeff") if number == 1 else text).strip()


def kind_of(text: str) -> TokenKind:
    """Say what a text without any label looks like; the fallback is a domain."""
    if (kind := _DIGESTS.get(len(text))) is not None and _HEX.fullmatch(text):
        return kind
    if "://" in text:
        return TokenKind.URL
    if _is_network(text):
        return TokenKind.IP
    return TokenKind.URL if "/" in text or _WITH_PORT.fullmatch(text) else TokenKind.DOMAIN


def _is_network(text: str) -> bool:
    # Asking `ipaddress` is slow, and of a million names many begin with a digit.
    if ":" not in text and not _V4_LIKE.fullmatch(text):
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
