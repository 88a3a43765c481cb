"""How often an address may ask: a token bucket each, for a bounded number of addresses."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_ADDRESSES = 4096


class RateLimit:
    """Allows `per_minute` requests a minute and address, all of them at once after a quiet minute.

    IPv6 addresses count by their /64, which one customer has to himself. When there are more addresses than
    `MAX_ADDRESSES`, the one that has been quiet longest is forgotten.

    Args:
        per_minute: Requests.
        monotonic: Seconds that never go back.
    """

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, address: str) -> bool:
        """Tell whether `address` may ask now, and count it if so."""
        key = _group(address)
        with self._lock:
            now = self._monotonic()
            tokens, since = self._buckets.pop(key, (float(self._per_minute), now))
            tokens = min(self._per_minute, tokens + (now - since) * self._per_minute / 60)
            is_allowed = tokens >= 1
            self._buckets[key] = (tokens - 1 if is_allowed else tokens, now)
            while len(self._buckets) > MAX_ADDRESSES:
                self._buckets.popitem(last=False)
            return is_allowed


def _group(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
