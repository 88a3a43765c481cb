"""Lines of lists: what they become, and which are left out."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omamori_protocol.feed_manifest import ListKind
from omamori_signatures import indicators
from omamori_signatures.errors import SourceError
from omamori_signatures.indicators import DomainRules, IndicatorError, ParsedList, fold_networks, read_list

DOMAINS = DomainRules()


def read(text: str, kind: ListKind, **options: bool) -> ParsedList:
    return read_list(text.encode(), kind, "list.txt", domains=DOMAINS, **options)


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("malware.test", "malware.test"),
        ("  MalWare.TEST.  ", "malware.test"),
        ("malware.test # comment", "malware.test"),
        ("\ufeffmalware.test", "malware.test"),
        ("お守り.example", "xn--t8j0gr43k.example"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("_dmarc.mail.example", "_dmarc.mail.example"),
        ("evil.github.io", "evil.github.io"),
        ("x." + "a" * 63 + ".example", "x." + "a" * 63 + ".example"),
    ],
)
def test_domain_is_normalised(line: str, entry: str) -> None:
    assert read(line, ListKind.DOMAIN).entries == (entry,)


@pytest.mark.parametrize(
    "line",
    [
        "com",
        "test",
        "co.jp",
        "github.io",
        "203.0.113.99",
        "http://malware.test/",
        "*.malware.test",
        "mal ware.test",
        "-x.test",
        "x-.test",
        "a..test",
        ".test",
        "a" * 64 + ".test",
        ".".join(["abcdefg"] * 33) + ".test",
        "malware.test..",
        "xn--\u3042.test",
        "user@malware.test",
        "2001:db8::1",
    ],
)
def test_line_that_is_no_domain_is_left_out(line: str) -> None:
    content = read(f"{line}\ngood.example\n", ListKind.DOMAIN)
    assert content.entries == ("good.example",)
    assert content.bad_count == 1
    assert content.bad_lines[0].number == 1
    assert content.bad_lines[0].file == "list.txt"


def test_only_names_below_a_listed_registrable_domain_are_folded() -> None:
    lines = ["www.malware.test", "malware.test", "b.example.co.jp", "a.b.example.co.jp", "malware.test", "other.test"]
    content = read("\n".join(lines), ListKind.DOMAIN)
    assert content.entries == ("a.b.example.co.jp", "b.example.co.jp", "malware.test", "other.test")
    assert content.folded_count == 2


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("8.8.8.8/32", "8.8.8.8"),
        ("8.8.8.0/24", "8.8.8.0/24"),
        ("9.0.0.0/8", "9.0.0.0/8"),
        ("2600:0:0:0::1", "2600::1"),
        ("2600::/20", "2600::/20"),
    ],
)
def test_address_is_normalised(line: str, entry: str) -> None:
    assert read(line, ListKind.IP).entries == (entry,)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0.0.0.0/0", "wider"),
        ("8.0.0.0/7", "wider"),
        ("::/0", "wider"),
        ("2600::/19", "wider"),
        ("8.8.8.8/24", "host bits"),
        ("10.0.0.1", "private"),
        ("192.168.0.0/16", "private"),
        ("172.16.5.5", "private"),
        ("100.64.0.1", "private"),
        ("127.0.0.1", "private"),
        ("169.254.1.1", "private"),
        ("224.0.0.251", "private"),
        ("255.255.255.255", "private"),
        ("0.0.0.0", "private"),
        ("::1", "private"),
        ("::ffff:8.8.8.8", "private"),
        ("fe80::1", "private"),
        ("fd00::/48", "private"),
        ("ff02::1", "private"),
        ("203.0.113.99", "documentation"),
        ("2001:db8::1", "documentation"),
        ("fe80::1%eth0", ""),
        ("8.8.8", ""),
        ("8.8.8.8:53", ""),
        ("malware.test", ""),
        ("08.8.8.8", ""),
    ],
)
def test_address_that_may_not_be_blocked_is_left_out(line: str, reason: str) -> None:
    content = read(line, ListKind.IP)
    assert content.entries == ()
    assert reason in content.bad_lines[0].reason


def test_documentation_addresses_need_the_flag_and_it_allows_nothing_else() -> None:
    content = read("203.0.113.99\n2001:db8:bad::99\n192.168.0.1\n", ListKind.IP, allow_documentation_addresses=True)
    assert content.entries == ("2001:db8:bad::99", "203.0.113.99")
    assert content.bad_count == 1


def test_covered_networks_are_folded() -> None:
    content = read("8.8.0.0/16\n8.8.8.8\n8.8.9.0/24\n8.9.0.0\n2600::1\n2600::/32\n", ListKind.IP)
    assert content.entries == ("2600::/32", "8.8.0.0/16", "8.9.0.0")


networks = st.one_of(
    st.builds(lambda address, length: ipaddress.ip_network((address, length), strict=False),
              st.integers(0, 2**32 - 1), st.integers(8, 32)),
    st.builds(lambda address, length: ipaddress.ip_network((address, length), strict=False),
              st.integers(2**32, 2**128 - 1), st.integers(20, 128)),
)  # fmt: skip


@settings(deadline=None)
@given(st.sets(networks, max_size=30))
def test_folding_keeps_exactly_what_nothing_else_covers(found: set[indicators.Network]) -> None:
    kept = {ipaddress.ip_network(name) for name in fold_networks({str(network) for network in found})}
    covered = {
        one
        for one in found
        if any(one != other and one.version == other.version and one.subnet_of(other) for other in found)  # type: ignore[arg-type]
    }
    assert kept == found - covered


def test_digests() -> None:
    digest = "275A021BBFB6489E54D471899F7DB9D1663FC695EC2FE2A2C4538AABF651FD0F"
    content = read(f"{digest}\n{digest.lower()} # again\n{digest[:-1]}\n{digest}0\nxyz\n", ListKind.SHA256)
    assert content.entries == (digest.lower(),)
    assert (content.bad_count, content.folded_count) == (3, 1)


def test_line_at_the_bound_is_read_and_one_byte_more_is_not() -> None:
    for length, bad in ((indicators.MAX_LINE_BYTES, 0), (indicators.MAX_LINE_BYTES + 1, 1)):
        assert read("good.example".ljust(length), ListKind.DOMAIN).bad_count == bad


def test_bytes_that_are_no_text_are_left_out() -> None:
    content = read_list(b"\xff\xfe\ngood.example\n", ListKind.DOMAIN, "list.txt", domains=DOMAINS)
    assert content.entries == ("good.example",)
    assert content.bad_lines[0].reason == "not UTF-8"


def test_a_few_bad_lines_are_tolerated_and_one_more_is_not() -> None:
    good = "good.example\n"
    assert read(good + "?\n" * 10, ListKind.DOMAIN).bad_count == 10
    with pytest.raises(SourceError, match=r"11 of 12 lines are bad, the first is line 2"):
        read(good + "?\n" * 11, ListKind.DOMAIN)


def test_share_of_bad_lines_counts_for_long_lists() -> None:
    good = "".join(f"host{number}.example\n" for number in range(9900))
    assert read(good + "?\n" * 100, ListKind.DOMAIN).bad_count == 100
    with pytest.raises(SourceError):
        read(good + "?\n" * 101, ListKind.DOMAIN)


def test_reported_lines_are_bounded() -> None:
    good = "".join(f"host{number}.example\n" for number in range(20_000))
    content = read(good + "?\n" * (indicators.MAX_REPORTED + 1), ListKind.DOMAIN)
    assert content.bad_count == indicators.MAX_REPORTED + 1
    assert len(content.bad_lines) == indicators.MAX_REPORTED


def test_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omamori_signatures.indicators.MAX_ENTRIES", 3)
    assert len(read("a.example\nb.example\nc.example\n", ListKind.DOMAIN).entries) == 3
    with pytest.raises(SourceError, match="more than 3"):
        read("a.example\nb.example\nc.example\nd.example\n", ListKind.DOMAIN)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_whatever_is_accepted_is_stable(text: str) -> None:
    try:
        name = DOMAINS.normalise(text)
    except IndicatorError:
        return
    assert DOMAINS.normalise(name) == name
    assert name.isascii()
    assert name == name.lower()
