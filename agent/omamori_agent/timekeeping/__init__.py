"""The right time without anybody's help: asked of the service, judged here, set by a small service of its own.

A board whose battery is empty wakes up in the past; then no certificate is valid yet and no cloud can be reached.
`testimony` asks, `rules` judge, `worker` decides when, `service` (root) sets the clocks. See ADR 47.
"""

from .rules import Correction, ImplausibleTimeError, Testimony, judge
from .worker import TimeWorker, build

__all__ = ["Correction", "ImplausibleTimeError", "Testimony", "TimeWorker", "build", "judge"]
