"""The label on a box: its serial for people, and for phones a code that opens the help page of this very box.

Nothing on it is secret: the claim stays in the box. Drawn as SVG in millimetres for the usual label printers.
"""

from __future__ import annotations

import html
from urllib.parse import urlsplit

import segno

from omamori_protocol.device import check_device_id

from .errors import RejectedError

WIDTH_MM, HEIGHT_MM = 62, 29
MAX_URL_LENGTH = 120
MAX_MODEL_LENGTH = 24
_CODE_MM = 23.0
_MARGIN_MM = 3.0
_TEXT_MM = WIDTH_MM - _CODE_MM - 2 * _MARGIN_MM
_BOLD_WIDTH = 0.72  # of a bold character's height, in the widest of the usual fonts
_QUIET = 4  # modules of white around a code (ISO/IEC 18004)


def help_address(url: str, serial: str) -> str:
    """Return the address that a box's code opens.

    Raises:
        RejectedError: `url` is not a short plain https address.
    """
    parts = urlsplit(url)
    is_plain = parts.scheme == "https" and parts.hostname and not (parts.query or parts.fragment or parts.username)
    if not is_plain or not url.isascii() or not url.isprintable() or " " in url or len(url) > MAX_URL_LENGTH:
        raise RejectedError(
            f"not an address for a label: {url[:60]!r}", hint=f"https, no query, at most {MAX_URL_LENGTH} characters"
        )
    return f"{url.rstrip('/')}/{check_device_id(serial)}"


def label(serial: str, *, model: str, url: str) -> bytes:
    """Return a box's label as SVG.

    Args:
        serial: The box.
        model: What it is called, for people.
        url: Where its help page lives; the serial is added to its path.

    Raises:
        RejectedError: The model or the address does not fit on a label.
        MalformedError: The serial is none.
    """
    if not 1 <= len(model) <= MAX_MODEL_LENGTH or not model.isprintable():
        raise RejectedError(f"not a model's name: {model[:40]!r}", hint=f"1 to {MAX_MODEL_LENGTH} characters")
    address = help_address(url, serial)
    # A quarter of it may be scratched away.
    code = segno.make(address, error="q", micro=False, boost_error=False)
    rows = [bytes(row) for row in code.matrix]
    scale = _CODE_MM / (len(rows) + 2 * _QUIET)
    left = WIDTH_MM - _CODE_MM - _MARGIN_MM / 2 + _QUIET * scale
    top = (HEIGHT_MM - _CODE_MM) / 2 + _QUIET * scale
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_MM}mm" height="{HEIGHT_MM}mm"'
            f' viewBox="0 0 {WIDTH_MM} {HEIGHT_MM}" font-family="sans-serif">'
        ),
        f"<title>{html.escape(serial)}</title>",
        f'<rect width="{WIDTH_MM}" height="{HEIGHT_MM}" fill="#fff"/>',
        _text(model, 7.0, 3.2),
        _text(serial, 13.5, min(4.2, _TEXT_MM / (_BOLD_WIDTH * len(serial))), weight="bold"),
        _text("お電話ではこの番号をお知らせください", 20.0, 1.7),
        _text("Please tell us this number", 23.0, 1.7),
        _text("when you call", 25.5, 1.7),
        f'<path transform="translate({left:.3f} {top:.3f}) scale({scale:.5f})" d="{_path(rows)}"/>',
        "</svg>",
    ]
    return ("\n".join(lines) + "\n").encode()


def _text(text: str, y_mm: float, size_mm: float, *, weight: str = "normal") -> str:
    return f'<text x="{_MARGIN_MM}" y="{y_mm}" font-size="{size_mm}" font-weight="{weight}">{html.escape(text)}</text>'


def _path(rows: list[bytes]) -> str:
    """Return the dark modules, one rectangle for each run in a row."""
    parts = []
    for y, row in enumerate(rows):
        x = 0
        while x < len(row):
            end = x
            while end < len(row) and row[end]:
                end += 1
            if end > x:
                parts.append(f"M{x} {y}h{end - x}v1h{x - end}z")
            x = end + 1
    return "".join(parts)
