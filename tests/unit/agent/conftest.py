"""Shared by the agent's unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omamori_agent.spool import Spool


@pytest.fixture(autouse=True)
def close_spools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close every spool that a test leaves open (a "power cut" does not); Python 3.13 complains otherwise."""
    opened: list[Spool] = []
    really_open = Spool.open

    def remembering_open(self: Spool) -> None:
        opened.append(self)
        really_open(self)

    monkeypatch.setattr(Spool, "open", remembering_open)
    yield
    for spool in opened:
        spool.close()
