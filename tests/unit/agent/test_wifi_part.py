"""The part never waits: it says that it is on its way, and gives each answer once."""

from __future__ import annotations

import threading

import pytest

from omamori_agent.desired.errors import PendingError
from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.wifi import WifiPart, WifiWorker
from omamori_protocol.desired import WifiSecurity, WifiSettings
from omamori_protocol.reported import PartName

ON = WifiSettings(
    enabled=True,
    ssid="office",
    passphrase="a long passphrase",
    channel=0,
    country="JP",
    security=WifiSecurity.WPA2,
    isolation=False,
)


class Switch:
    def __init__(self) -> None:
        self.asked: list[WifiSettings | None] = []
        self.error: Exception | None = None
        self.meanwhile = lambda: None

    def apply(self, settings: WifiSettings | None) -> None:
        self.asked.append(settings)
        self.meanwhile()
        if self.error is not None:
            raise self.error


@pytest.fixture
def switch() -> Switch:
    return Switch()


@pytest.fixture
def part(switch: Switch) -> WifiPart:
    return WifiPart(switch)


def test_first_pending_then_done(part: WifiPart, switch: Switch) -> None:
    assert part.name is PartName.WIFI
    for _ in range(3):
        with pytest.raises(PendingError):
            part.apply(ON)
    part.step()
    part.apply(ON)
    assert switch.asked == [ON]


@pytest.mark.parametrize("error", [RejectedError("no radio"), TransientError("busy")])
def test_a_refusal_is_told_once_and_judged_again_when_asked_again(
    part: WifiPart, switch: Switch, error: Exception
) -> None:
    switch.error = error
    with pytest.raises(PendingError):
        part.apply(ON)
    part.step()
    with pytest.raises(type(error), match=str(error)):
        part.apply(ON)
    switch.error = None
    with pytest.raises(PendingError):
        part.apply(ON)
    part.step()
    part.apply(ON)
    assert switch.asked == [ON, ON]


def test_a_full_memory_disk_is_no_end_of_the_daemon(part: WifiPart, switch: Switch) -> None:
    switch.error = OSError(28, "No space left on device")
    with pytest.raises(PendingError):
        part.apply(ON)
    part.step()
    with pytest.raises(TransientError, match="No space left"):
        part.apply(ON)


def test_something_newer_is_wanted_meanwhile(part: WifiPart, switch: Switch) -> None:
    def change_of_mind() -> None:
        switch.meanwhile = lambda: None
        with pytest.raises(PendingError):
            part.apply(None)

    switch.meanwhile = change_of_mind
    with pytest.raises(PendingError):
        part.apply(ON)
    part.step()
    with pytest.raises(PendingError):
        part.apply(None)
    part.step()
    part.apply(None)
    assert switch.asked == [ON, None]


def test_nothing_is_asked(part: WifiPart, switch: Switch) -> None:
    part.step()
    assert switch.asked == []


def test_the_worker_does_it_and_ends(part: WifiPart, switch: Switch) -> None:
    stop, done = threading.Event(), threading.Event()
    switch.meanwhile = done.set
    thread = threading.Thread(target=WifiWorker(part).run, args=(stop,))
    thread.start()
    with pytest.raises(PendingError):
        part.apply(ON)
    assert done.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
