"""What can be asked of a feed book, and the file of accepted reports: every bound, and one more."""

from __future__ import annotations

import pytest

from omamori_protocol.accepted_reports import (
    HEADER,
    MAX_INDICATOR,
    MAX_NUMBER,
    AcceptedReport,
    parse_report,
    render_reports,
)
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError
from omamori_protocol.feed_book import MAX_QUESTION, Kind, parse_question

DIGEST = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"


def to_ascii(name: str) -> str:
    return name.encode("idna").decode()


@pytest.mark.parametrize(
    ("text", "kind", "indicator"),
    [
        (" Evil.Example. ", Kind.DOMAIN, "evil.example"),
        ("*.evil.example", Kind.DOMAIN, "evil.example"),
        ("日本語.jp", Kind.DOMAIN, "xn--wgv71a119e.jp"),
        ("https://evil.example/", Kind.DOMAIN, "evil.example"),
        ("evil.example:8080", Kind.DOMAIN, "evil.example"),
        ("http://evil.example/a b".replace(" ", "%20"), Kind.URL, "evil.example/a%20b"),
        ("evil.example/x?q=1#top", Kind.URL, "evil.example/x?q=1"),
        ("9.8.7.6", Kind.IP, "9.8.7.6"),
        ("9.8.7.6/16", Kind.IP, "9.8.0.0/16"),
        ("http://9.8.7.6:81/", Kind.IP, "9.8.7.6"),
        ("2A06:E480::1", Kind.IP, "2a06:e480::1"),
        (DIGEST.upper(), Kind.SHA256, DIGEST),
        ("2012345", Kind.RULE, "2012345"),
    ],
)
def test_what_can_be_asked(text: str, kind: Kind, indicator: str) -> None:
    question = parse_question(text, to_ascii)
    assert (question.kind, question.indicator) == (kind, indicator)
    assert parse_question(indicator, to_ascii).indicator == indicator  # an indicator is a question, too


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "com", "a b.example", "a..example", "-a.example", "a" * 64 + ".example", "x.123", "d" * 32, "d" * 40,
        "ftp://evil.example/", "http://[::1]/", "http://evil.example:99999/", "0.0.0.0/0", "9.8.7.6/33/x\u202e",
        "evil\u0000.example", "http:///x", f"http://evil.example/{'x' * 1024}", "a." * 130 + "example",
    ],
)  # fmt: skip
def test_what_cannot_be_asked(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_question(text, to_ascii)


def test_question_is_bounded() -> None:
    with pytest.raises(MalformedError):
        parse_question("x" * MAX_QUESTION, to_ascii)
    with pytest.raises(OversizeError):
        parse_question("x" * (MAX_QUESTION + 1), to_ascii)


def test_names_above_are_asked_for_but_not_the_top() -> None:
    assert parse_question("a.b.evil.example", to_ascii).parents == ("b.evil.example", "evil.example")
    assert parse_question("evil.example", to_ascii).parents == ()


def test_reports_come_back_as_they_were_and_in_order() -> None:
    reports = [
        AcceptedReport(number=18, kind=Kind.RULE, indicator="2012345"),
        AcceptedReport(number=MAX_NUMBER, kind=Kind.URL, indicator="x.example/" + "y" * (MAX_INDICATOR - 10)),
        AcceptedReport(number=2, kind=Kind.DOMAIN, indicator="shop.example"),
    ]
    header, *lines = render_reports(reports).decode().splitlines()
    assert header == HEADER
    assert [parse_report(line) for line in lines] == sorted(reports, key=lambda item: item.number)
    assert render_reports([]) == f"{HEADER}\n".encode()


@pytest.mark.parametrize(
    "line",
    [
        "", "1", "1\tdomain", "1\tdomain\tx.example\tmore", "0\tdomain\tx.example",
        f"{MAX_NUMBER + 1}\tdomain\tx.example",
        "-1\tdomain\tx.example", "１\tdomain\tx.example", "1\tname\tx.example", "1\tdomain\t", "1\tdomain\ta b",
        "1\tdomain\ta\u202eb", f"1\tdomain\t{'x' * (MAX_INDICATOR + 1)}",
    ],
)  # fmt: skip
def test_what_is_no_report(line: str) -> None:
    with pytest.raises(ProtocolError):
        parse_report(line)
