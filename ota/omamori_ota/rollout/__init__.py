"""Decides how far a release may spread: rules only, no clock, no files, no network.

A release reaches boxes in rings, each a share of the fleet that contains the one before. Between rings the release
bakes; what the boxes report decides whether it goes on, waits or stops. The same rules serve feeds (minutes) and
firmware (days). The cloud imports this package and nothing else of `ota`.
"""

from omamori_protocol.rings import PERMILLE, is_reached, position

from .bound import failure_bound
from .decision import Decision, Move, decide
from .policy import PolicyError, Ring, RolloutPolicy
from .regression import Limits, Regression, Vitals, find_regressions
from .tally import Outcome, Tally

__all__ = [
    "PERMILLE",
    "Decision",
    "Limits",
    "Move",
    "Outcome",
    "PolicyError",
    "Regression",
    "Ring",
    "RolloutPolicy",
    "Tally",
    "Vitals",
    "decide",
    "failure_bound",
    "find_regressions",
    "is_reached",
    "position",
]
