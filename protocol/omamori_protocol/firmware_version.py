"""Versions of the firmware: three numbers, compared as numbers; trial versions of developers come before their release.

    1.4.0-dev.3  <  1.4.0  <  1.4.1  <  1.10.0

The same words are used in the release record, in desired state, in the image and in reports.
"""

from __future__ import annotations

import re

from .errors import MalformedError

MAX_VERSION_LENGTH = 32

_NUMBER = r"(0|[1-9][0-9]{0,5})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-dev\.{_NUMBER})?", re.ASCII)

VersionKey = tuple[int, int, int, int, int]


def check_firmware_version(text: str) -> str:
    """Return `text` if it is a firmware version.

    Raises:
        MalformedError: It is not ``major.minor.patch`` or ``major.minor.patch-dev.n``.
    """
    version_key(text)
    return text


def version_key(text: str) -> VersionKey:
    """Return what versions are compared by.

    Raises:
        MalformedError: It is no firmware version.
    """
    match = _VERSION.fullmatch(text) if isinstance(text, str) and len(text) <= MAX_VERSION_LENGTH else None
    if match is None:
        raise MalformedError(f"not a firmware version: {str(text)[:40]!r}", hint="for example 1.4.0")
    major, minor, patch = int(match[1]), int(match[2]), int(match[3])
    return (major, minor, patch, 1, 0) if match[4] is None else (major, minor, patch, 0, int(match[4]))
