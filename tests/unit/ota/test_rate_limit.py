"""The rate limit, by a clock that the test moves."""

from __future__ import annotations

from omamori_ota.rate_limit import MAX_ADDRESSES, RateLimit


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_as_many_as_allowed_and_one_more() -> None:
    limit = RateLimit(3, Seconds())
    assert [limit.allows("192.0.2.1") for _ in range(4)] == [True, True, True, False]
    assert limit.allows("192.0.2.2")


def test_time_gives_places_back() -> None:
    seconds = Seconds()
    limit = RateLimit(3, seconds)
    for _ in range(4):
        limit.allows("192.0.2.1")
    seconds.now = 21.0
    assert [limit.allows("192.0.2.1") for _ in range(2)] == [True, False]
    seconds.now = 3600.0
    assert [limit.allows("192.0.2.1") for _ in range(4)] == [True, True, True, False]


def test_ipv6_counts_by_network() -> None:
    limit = RateLimit(1, Seconds())
    assert limit.allows("2001:db8::1")
    assert not limit.allows("2001:db8::2")
    assert limit.allows("2001:db8:0:1::1")
    assert limit.allows("::ffff:192.0.2.1")
    assert not limit.allows("192.0.2.1")


def test_memory_is_bounded() -> None:
    limit = RateLimit(1, Seconds())
    for number in range(MAX_ADDRESSES + 1):
        limit.allows(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(limit._buckets) == MAX_ADDRESSES
