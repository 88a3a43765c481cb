"""Finds out what is wrong around the box and says it by a code: plugs, the office's network, the way to the service."""

from __future__ import annotations

from .feature import build
from .worker import DiagnosisWorker

__all__ = ["DiagnosisWorker", "build"]
