"""Text from outside must not mislead its reader."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_cloud.harmless import harmless


@pytest.mark.parametrize("char", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
def test_bidirectional_controls_are_removed(char: str) -> None:
    assert harmless(f"moc.{char}elpmaxe") == "moc.elpmaxe"


@pytest.mark.parametrize("char", "\u200b\u200d\ufeff\u00ad\u2028\u2029\x00\x1b\x7f\x85\ue000")
def test_invisible_and_control_characters_are_removed(char: str) -> None:
    assert harmless(f"a{char}b") == "ab"


def test_japanese_stays_as_it_is() -> None:
    assert harmless("危険サイト・ガード(が)ABC 123") == "危険サイト・ガード(が)ABC 123"


def test_marks_do_not_pile_up() -> None:
    assert harmless("a" + "\u0301" * 50 + "b") == "a" + "\u0301" * 2 + "b"


def test_one_character_more_than_the_limit() -> None:
    assert harmless("x" * 10, limit=10) == "x" * 10
    assert harmless("x" * 11, limit=10) == "x" * 9 + "…"


@given(st.text(alphabet=st.characters(), max_size=400))
def test_nothing_dangerous_is_left_of_any_text(text: str) -> None:
    result = harmless(text)
    assert len(result) <= 300
    assert not [char for char in result if unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp", "Cs"}]
