"""What a repository offers, and the way a box takes."""

from __future__ import annotations

from typing import Any

import pytest

from omamori_protocol.errors import MalformedError
from omamori_protocol.feed_chain import MAX_CHAIN
from omamori_protocol.feed_increment import MAX_INCREMENT_BYTES
from omamori_protocol.feed_offer import (
    MAX_OFFERED,
    MAX_SERIAL,
    MAX_WITHDRAWN,
    FeedOffer,
    OfferedIncrement,
    choose_chain,
    increment_target,
    parse_offer,
)

DIGEST = "a" * 64


def offer(*increments: tuple[int, int, int], serial: int = 9) -> FeedOffer:
    return FeedOffer(serial, DIGEST, tuple(OfferedIncrement(*item) for item in increments))


def test_offer_survives() -> None:
    for item in (FeedOffer(1), FeedOffer(MAX_SERIAL, DIGEST), offer((1, 2, 3), (2, 9, MAX_INCREMENT_BYTES))):
        assert parse_offer(item.to_custom()) == item
    assert FeedOffer(3).to_custom() == {"format": 1, "serial": 3}


def test_offer_for_a_part_of_the_fleet_survives() -> None:
    withdrawn = tuple(range(4, 4 + MAX_WITHDRAWN))
    for item in (FeedOffer(3, DIGEST, permille=0), FeedOffer(3, withdrawn=withdrawn), FeedOffer(3, permille=999)):
        assert parse_offer(item.to_custom()) == item


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"serial": 0},
        {"serial": MAX_SERIAL + 1},
        {"serial": "1"},
        {"serial": True},
        {"manifest": "A" * 64},
        {"manifest": DIGEST + "a"},
        {"manifest": 5},
        {"increments": {}},
        {"increments": [[1, 2, 3]] * (MAX_OFFERED + 1)},
        {"increments": [[1, 2]]},
        {"increments": [[0, 2, 3]]},
        {"increments": [[2, 2, 3]]},
        {"increments": [[1, 2, 0]]},
        {"increments": [[1, 2, MAX_INCREMENT_BYTES + 1]]},
        {"increments": ["1-2"]},
        {"permille": -1},
        {"permille": 1001},
        {"permille": True},
        {"withdrawn": 2},
        {"withdrawn": [1]},  # it would withdraw itself
        {"withdrawn": ["2"]},
        {"withdrawn": list(range(2, 3 + MAX_WITHDRAWN))},
    ],
)
def test_offer_that_is_none(changes: dict[str, Any]) -> None:
    body = {"format": 1, "serial": 1, "manifest": DIGEST, "increments": [[1, 2, 3]]}
    assert parse_offer(body).serial == 1
    with pytest.raises(MalformedError):
        parse_offer(body | changes)
    for nothing in (None, [], "x"):
        with pytest.raises(MalformedError):
            parse_offer(nothing)


def test_as_many_as_allowed() -> None:
    assert len(parse_offer({"format": 1, "serial": 1, "increments": [[1, 2, 3]] * MAX_OFFERED}).increments) == 64


def ways(found: object) -> list[tuple[int, int]]:
    return [(item.start, item.goal) for item in found]  # type: ignore[attr-defined]


def test_chain_of_the_fewest_bytes() -> None:
    several = offer((1, 2, 10), (2, 5, 10), (5, 9, 10), (2, 9, 15), (1, 9, 40))
    assert ways(choose_chain(several, 1, 1000)) == [(1, 2), (2, 9)]
    assert ways(choose_chain(several, 5, 1000)) == [(5, 9)]


def test_no_way() -> None:
    one = offer((1, 2, 10), (2, 9, 10))
    assert choose_chain(one, 3, 1000) == ()
    assert choose_chain(one, 9, 1000) == ()
    assert choose_chain(one, 10, 1000) == ()
    assert choose_chain(one, 1, 20) == ()
    assert ways(choose_chain(one, 1, 21)) == [(1, 2), (2, 9)]
    assert choose_chain(FeedOffer(9, None, one.increments), 1, 1000) == ()
    assert choose_chain(offer((1, 10, 1)), 1, 1000) == ()


def test_chain_of_the_greatest_length_and_one_more() -> None:
    many = tuple((number, number + 1, 1) for number in range(1, MAX_CHAIN + 2))
    full = offer(*many, serial=MAX_CHAIN + 2)
    assert len(choose_chain(full, 2, 1000)) == MAX_CHAIN
    assert choose_chain(full, 1, 1000) == ()


def test_target_path() -> None:
    assert increment_target("demo", 1, 2) == "feed/demo/1-2.increment"
    with pytest.raises(MalformedError):
        increment_target("../x", 1, 2)
