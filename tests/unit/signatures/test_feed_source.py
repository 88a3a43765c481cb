"""feed.toml: what is accepted and what is not."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from omamori_signatures.errors import SourceError
from omamori_signatures.feed_source import parse_feed_source, read_feed_source

from .conftest import FEED


def test_description_is_read(source: Path) -> None:
    feed = read_feed_source(source)
    assert [item.name for item in feed.lists] == ["dangerous", "addresses"]
    assert feed.lists[0].sid == 1910000
    assert feed.lists[1].allow_documentation_addresses
    assert feed.rules[0].sids == (1900000, 1900009)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("format = 1", "format = 2", "unknown format 2"),
        ("format = 1\n", "", "missing format"),
        ("format = 1", "format = 1\nextra = 1", "unknown extra"),
        ('"8.0.0"', '"eight"', "engine_min"),
        ('name = "dangerous"', 'name = "Dangerous"', "list name"),
        ('name = "addresses"', 'name = "dangerous"', "list twice: dangerous"),
        ('kind = "domain"', 'kind = "url"', "'url' is not a valid ListKind"),
        ('"lists/dangerous.txt"', '"lists/../x.txt"', "file"),
        ('"lists/dangerous.txt"', '"/etc/passwd"', "file"),
        ('"lists/dangerous.txt"', '"lists/addresses.txt"', "file twice"),
        ('"dangerous-site"', '"magic"', "'magic' is not one of"),
        ('"dangerous-site"', '"category"', "category"),
        ('"dangerous-site"', '"dangerous-site"\ncategory = "games"', "category"),
        ("severity = 2", "severity = 4", "4 is not a valid Severity"),
        ('action = "blocked"\ndirection', 'action = "ignored"\ndirection', "'ignored' is not one of"),
        ('"out"', '"sideways"', "'sideways' is not one of"),
        ("sid = 1910000", "sid = 1899999", "needs a sid"),
        ("sid = 1910000", "sid = 1999990", "needs a sid"),
        ("sid = 1910000\n", "", "needs a sid"),
        ("sid = 1910000", 'sid = "1910000"', "needs a sid"),
        ("sid = 1910000", "sid = 1900009", "overlap"),
        ("sids = [1900000, 1900009]", "sids = [1900009, 1900000]", "ids must lie in"),
        ("sids = [1900000, 1900009]", "sids = [1900000]", "sids must be"),
        ('"rules/own.rules"', '"rules/lists.rules"', "generated rules"),
        ('"rules/own.rules"', '"own.rules"', "file"),
        ('function = "firewall"', 'function = "firewall"\nsid = 1920000', "no sid"),
        ("allow_documentation_addresses = true", "allow_documentation_addresses = 1", "true or false"),
        ("sid = 1910000", "sid = 1910000\nallow_documentation_addresses = true", "only for the kind `ip`"),
        ('licence = "Apache-2.0"', 'licence = ""', "licence"),
        ('origin = "test"', f'origin = "{"x" * 301}"', "origin"),
        ('origin = "test"', 'origin = "a\\nb"', "origin"),
    ],
)
def test_description_that_breaks_a_rule_is_refused(old: str, new: str, reason: str) -> None:
    assert old in FEED
    with pytest.raises(SourceError, match=re.escape(reason)):
        parse_feed_source(tomllib.loads(FEED.replace(old, new, 1)))


def test_too_many_lists_are_refused() -> None:
    one = FEED[FEED.index("[[lists]]") : FEED.index('[[lists]]\nname = "addresses"')]
    lists = [
        one.replace("dangerous", f"list{number}", 2).replace("1910000", str(1910000 + 20 * number))
        for number in range(65)
    ]
    head = 'format = 1\nengine_min = "8.0.0"\n'
    assert len(parse_feed_source(tomllib.loads(head + "".join(lists[:64]))).lists) == 64
    with pytest.raises(SourceError, match="at most 64"):
        parse_feed_source(tomllib.loads(head + "".join(lists)))


def test_missing_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no feed\.toml"):
        read_feed_source(tmp_path)


def test_oversize_description_is_not_read(source: Path) -> None:
    (source / "feed.toml").write_text(FEED + "#" * 256 * 1024)
    with pytest.raises(SourceError, match="larger than"):
        read_feed_source(source)


@pytest.mark.parametrize("text", ["not toml", "\xff"])
def test_description_that_is_no_toml_is_refused(source: Path, text: str) -> None:
    (source / "feed.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError):
        read_feed_source(source)
