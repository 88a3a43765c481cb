"""Both languages say everything, with the fields that their sentences may use."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from omamori_cloud.clock import JAPAN
from omamori_cloud.health import FeedProblem, Finding
from omamori_cloud.intake import RefusalReason
from omamori_cloud.liveness import OutageReason
from omamori_cloud.wording import ENGLISH, JAPANESE, Wording, wording_for
from omamori_cloud.wording.catalogue import Counted
from omamori_protocol.trouble import Trouble
from omamori_protocol.vocabulary import (
    Action,
    Direction,
    EngineState,
    FirmwareReason,
    FirmwareState,
    Function,
    PowerKind,
    Severity,
)

LANGUAGES = pytest.mark.parametrize("words", [JAPANESE, ENGLISH], ids=["ja", "en"])


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Counted):
        yield f"{path}.one", value.one
        yield f"{path}.many", value.many
    elif dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from texts(getattr(value, item.name), f"{path}.{item.name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, f"{path}[{key!r}]")
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from texts(item, f"{path}[{number}]")


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@LANGUAGES
def test_every_choice_has_words(words: Wording) -> None:
    assert set(words.functions) == set(Function)
    assert set(words.sentences) == {(function, direction) for function in Function for direction in Direction}
    assert set(words.actions) == set(words.outcomes) == set(Action)
    assert set(words.directions) == set(Direction)
    assert set(words.severities) == set(Severity)
    assert set(words.engine) == set(EngineState)
    assert set(words.findings) == set(Finding)
    assert set(words.feed_problems) == set(FeedProblem)
    assert set(words.firmware.states) == set(FirmwareState)
    assert set(words.firmware.reasons) == set(FirmwareReason)
    assert set(words.liveness.outages) == set(OutageReason)
    assert set(words.liveness.troubles) == set(Trouble)
    assert set(words.supervisor.powers) == set(PowerKind)
    assert set(words.refusal_reasons) == {reason.value for reason in RefusalReason}


@LANGUAGES
def test_no_text_is_empty(words: Wording) -> None:
    assert [path for path, text in texts(words) if not text.strip()] == []


def test_both_languages_have_the_same_fields_in_the_same_places() -> None:
    japanese, english = dict(texts(JAPANESE)), dict(texts(ENGLISH))
    assert japanese.keys() - english.keys() == set()
    assert english.keys() - japanese.keys() == set()
    for path, text in japanese.items():
        if not path.endswith(".one"):
            assert fields(text) == fields(english[path]), path


@LANGUAGES
def test_sentences_name_terminal_and_other_side(words: Wording) -> None:
    for sentence in [*words.sentences.values(), words.sentence_unknown]:
        assert fields(sentence) == {"terminal", "peer"}


def test_the_functions_are_called_as_customers_know_them() -> None:
    names = [JAPANESE.functions[function].name for function in Function]
    assert names == [
        "ウイルス",
        "侵入防止",
        "危険サイト",
        "業務外サイト",
        "アプリ",
        "振る舞い検知",
        "ファイアウォール",
    ]


def test_what_the_product_cannot_do_is_said_in_both_languages() -> None:
    assert "代わりになるものではありません" in JAPANESE.other.complement
    assert "保証するものではありません" in JAPANESE.other.no_guarantee
    assert "does not replace" in ENGLISH.other.complement
    assert "not guaranteed" in ENGLISH.other.no_guarantee


@pytest.mark.parametrize(
    ("seconds", "japanese", "english"),
    [
        (0, "1分以内", "within a minute"),
        (59, "1分以内", "within a minute"),
        (60, "1分前", "1 minute ago"),
        (7199, "1時間前", "1 hour ago"),
        (7200, "2時間前", "2 hours ago"),
        (86_400, "1日前", "1 day ago"),
        (86_400 * 1500, "1,500日前", "1,500 days ago"),
    ],
)
def test_how_long_ago(seconds: int, japanese: str, english: str) -> None:
    assert JAPANESE.times.ago(seconds) == japanese
    assert ENGLISH.times.ago(seconds) == english


@pytest.mark.parametrize(
    ("seconds", "japanese", "english"),
    [
        (9, "9秒", "9 s"),
        (60, "1分", "1 min"),
        (61, "1分1秒", "1 min 1 s"),
        (3660, "1時間1分", "1 h 1 min"),
        (90_000, "1日1時間", "1 day 1 h"),
    ],
)
def test_how_long(seconds: int, japanese: str, english: str) -> None:
    assert JAPANESE.times.span(seconds) == japanese
    assert ENGLISH.times.span(seconds) == english


@pytest.mark.parametrize(
    ("at", "japanese", "english"),
    [
        (datetime(2026, 11, 22, 9, 5, 7, tzinfo=JAPAN), "今日 09:05:07", "Today 09:05:07"),
        (datetime(2026, 11, 21, 9, 5, 7, tzinfo=JAPAN), "11月21日(土) 09:05:07", "21 Nov 09:05:07"),
        (datetime(2025, 1, 2, 9, 5, 7, tzinfo=JAPAN), "2025年1月2日(木) 09:05:07", "2 Jan 2025 09:05:07"),
    ],
)
def test_when(at: datetime, japanese: str, english: str) -> None:
    now = datetime(2026, 11, 22, 23, 0, 0, tzinfo=JAPAN)
    assert JAPANESE.times.moment(at, now) == japanese
    assert ENGLISH.times.moment(at, now) == english


def test_one_and_many() -> None:
    assert ENGLISH.headline.need_attention(1) == "1 box needs attention"
    assert ENGLISH.headline.need_attention(1200) == "1,200 boxes need attention"
    assert JAPANESE.headline.need_attention(1) == "1台に確認が必要です"


def test_an_unknown_language_is_japanese() -> None:
    assert wording_for("xx") is JAPANESE
    assert wording_for("en") is ENGLISH


@LANGUAGES
def test_the_table_on_paper_says_what_the_page_says(words: Wording) -> None:
    table = (Path(__file__).parents[3] / "docs/diagnosis.md").read_text(encoding="utf-8")
    for trouble in Trouble:
        text = words.liveness.troubles[trouble]
        assert f"| {trouble:d} |" in table
        assert f"| {text.title} | {text.advice} |" in table
