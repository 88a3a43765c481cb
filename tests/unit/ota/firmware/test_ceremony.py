"""The protocol of a ceremony: complete, comparable, without secrets."""

from __future__ import annotations

import base64
import re

import pytest

from omamori_ota.errors import RejectedError
from omamori_ota.firmware.ceremony import MAX_PEOPLE, render_protocol
from omamori_ota.keys import KeyDirectory
from omamori_ota.roles import KEY_NAMES
from unit.ota.conftest import START

PEOPLE = ["Hanako Yamada", "山田 太郎"]


def test_protocol_names_everything_and_everybody(key_directory: KeyDirectory) -> None:
    text = render_protocol(key_directory, PEOPLE, "first keys", START, "1.0.0")
    assert "2030-01-01 00:00:00 UTC" in text
    assert "root       2 of 3 keys, offline" in text
    assert "firmware   2 of 2 keys, offline" in text
    plain = text.replace(" ", "")
    for name in KEY_NAMES:
        assert key_directory.current_key(name).keyid in plain
    for name in ("secureboot/db.crt", "pki/bundle-ca.crt", "bundle/bundle.crt"):
        assert name in text
    assert all(f"\n{person}" in text for person in PEOPLE)


def test_no_secret_is_in_it(key_directory: KeyDirectory) -> None:
    text = render_protocol(key_directory, PEOPLE, "first keys", START, "1.0.0").replace(" ", "")
    for path in key_directory.path.rglob("*"):
        if path.is_file() and b"PRIVATE" in path.read_bytes():
            body = re.sub(r"-----[^-]+-----|\s", "", path.read_text())
            assert body[16:] not in text
            assert base64.b64decode(body).hex()[32:] not in text


@pytest.mark.parametrize(
    ("people", "occasion"),
    [
        (["alone"], "x"),
        (["same", "same"], "x"),
        ([str(number) for number in range(MAX_PEOPLE + 1)], "x"),
        (["a", "b\x1b[2J"], "x"),
        (["a", "b"], ""),
        (["a", "b"], "x" * 81),
    ],
)
def test_unfit_ceremonies_are_refused(key_directory: KeyDirectory, people: list[str], occasion: str) -> None:
    with pytest.raises(RejectedError):
        render_protocol(key_directory, people, occasion, START, "1.0.0")
