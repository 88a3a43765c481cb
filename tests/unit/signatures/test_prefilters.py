"""Which rules every box would pay for: shared fast patterns, padding, rules without any; and what is no analysis."""

from __future__ import annotations

from typing import Any

import pytest

from omamori_signatures.errors import EngineError
from omamori_signatures.prefilters import MAX_SHARED, Prefilter, find_expensive, parse_prefilter

ANY = "any any -> any any"
ZEROS = "|00 00 00 00|"


def entry(
    sid: int,
    pattern: str | None,
    *,
    buffer: str = "payload",
    head: str = f"udp {ANY}",
    depth: int | None = None,
    engines: tuple[str, ...] = ("payload",),
) -> dict[str, Any]:
    """Return what the engine writes about a rule, as far as it is read."""
    body: dict[str, Any] = {
        "id": sid,
        "raw": f'alert {head} (msg:"x"; sid:{sid};)',
        "pkt_engines": [{"name": name, "is_mpm": False} for name in engines],
    }
    if pattern is not None:
        body["mpm"] = {"buffer": buffer, "pattern": pattern} | ({"depth": depth} if depth is not None else {})
    return body


def expensive(*entries: dict[str, Any]) -> dict[int, str]:
    return find_expensive(map(parse_prefilter, entries))


def test_analysis_is_read() -> None:
    body = entry(5, "|00 01|ab", head="tcp $EXTERNAL_NET [80,443] -> $HOME_NET any", depth=9)
    assert parse_prefilter(body) == Prefilter(
        sid=5, buffer="payload", pattern="|00 01|ab", depth=9, is_broad=False, reads_payload=True
    )


def test_pattern_of_one_rule_too_many() -> None:
    rules = [entry(sid, "Host", buffer="http_header") for sid in range(1, MAX_SHARED + 1)]
    other = entry(9999, "Host", buffer="http_uri")
    assert expensive(*rules, other) == {}
    found = expensive(*rules, other, entry(MAX_SHARED + 1, "Host", buffer="http_header"))
    assert sorted(found) == list(range(1, MAX_SHARED + 2))
    assert set(found.values()) == {f"the fast pattern of more than {MAX_SHARED} rules"}


@pytest.mark.parametrize("pattern", [ZEROS, "|20|", "    ", "|FF FF|", "|20| |20|"])
def test_padding_in_bulk_data(pattern: str) -> None:
    assert expensive(entry(1, pattern)) == {1: "a fast pattern of padding"}
    assert expensive(entry(1, pattern, buffer="file_data", head=f"http {ANY}", engines=())) != {}


@pytest.mark.parametrize(
    "body",
    [
        entry(1, "|00 00 01|"),
        entry(1, "AAAA"),
        entry(1, ZEROS, buffer="http_user_agent"),
        entry(1, ZEROS, depth=32),
        entry(1, ZEROS, head=f"icmp {ANY}"),
        entry(1, ZEROS, head="udp any any -> any 32769"),
        entry(1, ZEROS, head="tcp any [80,443] -> any any"),
    ],
    ids=["no run", "not common", "short buffer", "near the beginning", "no bulk", "one port", "two ports"],
)
def test_runs_that_cost_nothing(body: dict[str, Any]) -> None:
    assert expensive(body) == {}


def test_run_that_may_stand_one_byte_too_far() -> None:
    assert expensive(entry(1, ZEROS, depth=33)) != {}


def test_rule_without_a_fast_pattern() -> None:
    assert expensive(entry(1, None)) == {1: "no fast pattern, for every port"}
    assert expensive(entry(1, None, head="tcp any any -> any 1024:")) != {}
    assert expensive(entry(1, None, head="tcp any any -> any 22")) == {}
    assert expensive(entry(1, None, engines=("packet",))) == {}


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"id": 1},
        {"id": "x", "raw": f"alert udp {ANY} (sid:1;)"},
        {"id": 1, "raw": "alert udp any"},
        {"id": 1, "raw": f"alert udp {ANY} (sid:1;)", "pkt_engines": 3},
        {"id": 1, "raw": f"alert udp {ANY} (sid:1;)", "mpm": "Host"},
    ],
)
def test_what_is_no_analysis_is_refused(body: Any) -> None:
    with pytest.raises(EngineError, match="analysis"):
        parse_prefilter(body)
