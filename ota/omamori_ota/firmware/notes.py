"""Release notes for owners, in Japanese and English: plain text or simple Markdown, bounded, without surprises."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from omamori_ota.errors import RejectedError
from omamori_ota.files import read_bounded
from omamori_protocol.firmware_release import MAX_NOTES_BYTES, NOTE_LANGUAGES

_MARKUP = re.compile(r"<[A-Za-z/!?]|]\(|javascript:", re.IGNORECASE)
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def note_name(language: str) -> str:
    """Return the file and target name of the notes in a language."""
    return f"notes.{language}.md"


def read_notes(path: Path, language: str) -> bytes:
    """Return release notes, normalised (NFC, one newline at the end).

    Raises:
        RejectedError: They are empty, not UTF-8, hold markup, links or control characters, or are in another language.
        SetupError: They cannot be read, or are larger than owners get.
    """
    if language not in NOTE_LANGUAGES:
        raise RejectedError(f"release notes are in {' and '.join(NOTE_LANGUAGES)}, not in {language[:8]!r}")
    try:
        text = read_bounded(path, MAX_NOTES_BYTES).decode("utf-8")
    except UnicodeDecodeError as err:
        raise RejectedError(f"{path} is not UTF-8") from err
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip() + "\n"
    if not text.strip():
        raise RejectedError(f"{path} is empty", hint="owners want to know what changes for them")
    if any((unicodedata.category(char) == "Cc" and char != "\n") or char in _BIDIRECTIONAL for char in text):
        raise RejectedError(f"{path} holds control characters")
    if match := _MARKUP.search(text):
        raise RejectedError(f"{path} holds markup or a link: {match[0]!r}", hint="plain text, headings and lists")
    if language == "ja" and not _JAPANESE.search(text):
        raise RejectedError(f"{path} is not Japanese")
    if len(data := text.encode()) > MAX_NOTES_BYTES:
        raise RejectedError(f"{path} becomes {len(data)} bytes, allowed {MAX_NOTES_BYTES}")
    return data
