"""What a number of good reports really proves."""

from __future__ import annotations

from math import exp, lgamma, log, log1p

_STEPS = 60


def failure_bound(reports: int, bad: int, confidence: float = 0.95) -> float:
    """Return the failure rate that the reports rule out: the true rate is below it with the given confidence.

    The exact (Clopper-Pearson) one-sided upper bound of a binomial rate: 10 good reports and no bad one rule out
    only rates above 26 %, 59 rule out 5 %.

    Args:
        reports: How many boxes have reported.
        bad: How many of them reported something bad.
        confidence: Between 0 and 1, both excluded.

    Returns:
        A rate from 0 to 1; 1 while nothing is known.

    Raises:
        ValueError: More bad reports than reports, a negative number, or a confidence that is none.
    """
    if not 0 <= bad <= reports:
        raise ValueError(f"{bad} bad of {reports} reports")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    if bad == reports:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _at_most(bad, reports, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(bad: int, reports: int, rate: float) -> float:
    """Return the probability of at most `bad` failures at a rate between 0 and 1, both excluded."""
    # In logarithms: the binomial coefficients of a large fleet are beyond any float.
    total = 0.0
    for count in range(bad + 1):
        ways = lgamma(reports + 1) - lgamma(count + 1) - lgamma(reports - count + 1)
        total += exp(ways + count * log(rate) + (reports - count) * log1p(-rate))
    return total
