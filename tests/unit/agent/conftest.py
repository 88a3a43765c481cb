"""Shared by the agent's unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.spool import Spool
from sim.feed_box import Box
from sim.packs import PackSource


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


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setattr("omamori_agent.engine.control._RELOAD_POLL_S", 0.01)
    monkeypatch.setattr("omamori_agent.feed.canary._TRY_S", 0.01)
    made = Box(tmp_path)
    made.engine.start()
    with made.server:
        made.look()
        yield made
    made.engine.stop()


@pytest.fixture
def protected(box: Box) -> Box:
    """A box whose first feed is active."""
    box.publish(PackSource(serial=1))
    box.poll()
    assert box.active == 1
    box.outbox.events.clear()
    box.engine.commands.clear()
    box.test_count.unlink()
    return box
