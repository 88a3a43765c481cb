"""The access point is switched, or stays as it was, with a reason; against a hostapd that speaks the real protocol."""

from __future__ import annotations

import logging
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.wifi.errors import HostapdError, WifiRefusedError
from omamori_agent.wifi.hostapd_config import AccessPoint
from omamori_agent.wifi.radio import Radio
from omamori_agent.wifi.regulatory import RegulatoryDatabase
from omamori_agent.wifi.switch import WifiLimits, WifiSwitch
from omamori_protocol.desired import WifiSecurity, WifiSettings
from sim.hostapd import SimulatedHostapd, regulatory_database

PASSPHRASE = "correct horse battery"
DATABASE = RegulatoryDatabase(
    regulatory_database({"JP": [(2402, 2482, 40, 0)], "US": [(2402, 2472, 40, 0)], "QQ": [(5150, 5250, 80, 0)]})
)


def settings(**changes: object) -> WifiSettings:
    values: dict[str, object] = {
        "enabled": True,
        "ssid": 'おまもり "1"',
        "passphrase": PASSPHRASE,
        "channel": 6,
        "country": "JP",
        "security": WifiSecurity.WPA2,
        "isolation": False,
    }
    return WifiSettings(**(values | changes))  # type: ignore[arg-type]


class Box:
    """A box with a radio, and what the switch needs of it."""

    def __init__(self, root: Path) -> None:
        self.interfaces = root / "net"
        self.hardware = self.interfaces / "wlan0" / "phy80211"
        self.hardware.mkdir(parents=True)
        self.config = root / "wifi" / "hostapd.conf"
        self.kept = root / "desired" / "wifi.conf"
        self.control = root / "c"
        for directory in (self.config.parent, self.kept.parent, self.control):
            directory.mkdir()
        self.hostapd = SimulatedHostapd(self.config)

    def switch(self, radio: str | None = "wlan0", **limits: float) -> WifiSwitch:
        return WifiSwitch(
            Radio(radio, self.interfaces, wait_s=0.0),
            AccessPoint(interface=radio or "", bridge="br0", control=self.control, group="omamori-wifi"),
            self.config,
            self.kept,
            lambda: DATABASE,
            limits=WifiLimits(**limits),
            sleep=lambda _: time.sleep(0.005),
        )

    def restart(self) -> None:
        """What a restart of the box does to memory."""
        self.config.unlink(missing_ok=True)
        self.hostapd.crash()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    with made.hostapd:
        yield made


@pytest.fixture
def switch(box: Box) -> WifiSwitch:
    return box.switch()


def test_an_access_point_comes_up(box: Box, switch: WifiSwitch) -> None:
    switch.apply(settings())
    status = switch.status()
    assert status is not None
    assert (status.state, status.ssid, status.channel) == ("ENABLED", 'おまもり "1"'.encode(), 6)
    assert stat.S_IMODE(box.config.stat().st_mode) == 0o640
    assert stat.S_IMODE(box.kept.stat().st_mode) == 0o600


def test_what_is_in_force_already_disconnects_nobody(box: Box, switch: WifiSwitch) -> None:
    switch.apply(settings())
    box.switch().apply(settings())  # another process of the agent
    assert len(box.hostapd.starts) == 1
    assert "TERMINATE" not in box.hostapd.commands


@pytest.mark.parametrize(
    "change",
    [
        {"ssid": "other"},
        {"passphrase": "another long one"},
        {"channel": 11},
        {"country": "US"},
        {"security": WifiSecurity.WPA2_WPA3},
        {"isolation": True},
    ],
)
def test_each_change_is_put_into_force(box: Box, switch: WifiSwitch, change: dict[str, object]) -> None:
    switch.apply(settings())
    switch.apply(settings(**change))
    first, second = box.hostapd.starts
    assert {key for key in second if first.get(key) != second[key]} > {"ctrl_interface"}
    assert first["ctrl_interface"] != second["ctrl_interface"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channel": 13, "country": "US"}, "channel 13 is not allowed in US, only 1 to 11"),
        ({"country": "ZZ"}, "country ZZ is not known"),
        ({"country": "QQ"}, "country QQ allows no channel for an access point"),
        ({"channel": 14}, "not acceptable"),
        ({"channel": -1}, "not acceptable"),
        ({"ssid": ""}, "not acceptable"),
        ({"ssid": "x" * 33}, "not acceptable"),
        ({"ssid": "あ" * 11}, "not acceptable"),
        ({"ssid": "two\nlines"}, "not acceptable"),
        ({"passphrase": "x" * 7}, "not acceptable"),
        ({"passphrase": "x" * 64}, "not acceptable"),
        ({"passphrase": "line\nbreak and more"}, "not acceptable"),
        ({"passphrase": "パスフレーズです"}, "not acceptable"),
        ({"country": "jp"}, "not acceptable"),
        ({"country": "JPN"}, "not acceptable"),
    ],
)
def test_settings_that_cannot_work_touch_nothing(
    box: Box, switch: WifiSwitch, change: dict[str, object], reason: str
) -> None:
    switch.apply(settings())
    before = box.config.read_bytes()
    with pytest.raises(WifiRefusedError, match=reason):
        switch.apply(settings(**change))
    assert box.config.read_bytes() == before
    assert len(box.hostapd.starts) == 1
    assert "TERMINATE" not in box.hostapd.commands


@pytest.mark.parametrize(
    "change", [{"ssid": "x"}, {"ssid": "x" * 32}, {"passphrase": "x" * 8}, {"passphrase": "~" * 63}, {"channel": 13}]
)
def test_the_bounds_themselves_are_good(switch: WifiSwitch, change: dict[str, object]) -> None:
    switch.apply(settings(**change))
    assert switch.status() is not None


def test_a_radio_that_does_not_take_the_channel(box: Box, switch: WifiSwitch) -> None:
    switch.apply(settings())
    before = box.config.read_bytes()
    box.hostapd.radio_channels = {6}
    with pytest.raises(WifiRefusedError, match=r"did not start on channel 11 in JP.*previous settings are in force"):
        box.switch(start_s=0.5).apply(settings(channel=11))
    assert box.config.read_bytes() == box.kept.read_bytes() == before
    status = switch.status()
    assert status is not None
    assert status.channel == 6


def test_the_first_settings_fail(box: Box, switch: WifiSwitch) -> None:
    box.hostapd.radio_channels = set()
    with pytest.raises(WifiRefusedError, match="there is no access point, as before"):
        box.switch(start_s=0.5).apply(settings())
    assert not box.config.exists()
    assert not box.kept.exists()


def test_hostapd_comes_up_with_something_else(box: Box, switch: WifiSwitch) -> None:
    box.hostapd.answers["STATUS"] = b"state=ENABLED\nchannel=3\nieee80211n=1\nssid[0]=office\n"
    with pytest.raises(WifiRefusedError, match="other values"):
        switch.apply(settings())
    assert not box.config.exists()


def test_the_way_back_fails_too(box: Box, switch: WifiSwitch, caplog: pytest.LogCaptureFixture) -> None:
    switch.apply(settings())
    box.hostapd.radio_channels = set()
    with pytest.raises(WifiRefusedError, match="did not come back either"):
        box.switch(start_s=0.3).apply(settings(channel=11))
    assert PASSPHRASE not in caplog.text


def test_a_free_channel_is_found(box: Box, switch: WifiSwitch) -> None:
    switch.apply(settings(channel=0))
    status = switch.status()
    assert status is not None
    assert status.channel == box.hostapd.chosen
    box.switch().apply(settings(channel=0))
    assert len(box.hostapd.starts) == 1


def test_a_radio_without_a_survey_gets_a_fixed_channel(box: Box, switch: WifiSwitch) -> None:
    box.hostapd.can_survey = False
    switch.apply(settings(channel=0))
    status = switch.status()
    assert status is not None
    assert status.channel == 1
    box.switch().apply(settings(channel=0))
    assert [values["channel"] for values in box.hostapd.starts] == ["0", "1"]


@pytest.mark.parametrize("off", [None, settings(enabled=False)])
def test_no_access_point_leaves_nothing(box: Box, switch: WifiSwitch, off: WifiSettings | None) -> None:
    switch.apply(settings())
    switch.apply(off)
    assert box.hostapd.is_gone()
    assert not box.config.exists()
    assert not box.kept.exists()
    assert switch.status() is None
    assert switch.stations() == []
    switch.apply(off)
    assert len(box.hostapd.starts) == 1


def test_a_hostapd_that_does_not_end(box: Box, switch: WifiSwitch) -> None:
    switch.apply(settings())
    box.hostapd.ignores_end = True
    with pytest.raises(HostapdError, match="does not end"):
        box.switch(stop_s=0.1).apply(None)
    box.hostapd.ignores_end = False
    switch.apply(None)
    assert box.hostapd.is_gone()


def test_hostapd_is_killed_and_comes_back_by_itself(box: Box, switch: WifiSwitch) -> None:
    switch.apply(settings())
    box.hostapd.crash()
    switch.apply(settings())
    first, second = box.hostapd.starts
    assert first == second


def test_no_radio(box: Box) -> None:
    box.hardware.rmdir()
    with pytest.raises(WifiRefusedError, match="this box has no Wi-Fi radio"):
        box.switch().apply(settings())
    with pytest.raises(WifiRefusedError, match="this box has no Wi-Fi radio"):
        box.switch(radio=None).apply(settings())
    box.switch(radio=None).apply(None)
    assert not box.config.exists()


def test_a_radio_that_comes_late(box: Box) -> None:
    box.hardware.rmdir()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            box.hardware.mkdir()

    assert Radio("wlan0", box.interfaces, wait_s=10.0, sleep=sleep).await_present()
    assert len(waits) == 3


def test_a_switch_of_the_machine(box: Box, switch: WifiSwitch) -> None:
    (box.hardware / "rfkill3").mkdir()
    (box.hardware / "rfkill3" / "hard").write_text("1\n")
    with pytest.raises(WifiRefusedError, match="switched off at the machine"):
        switch.apply(settings())
    (box.hardware / "rfkill3" / "hard").write_text("0\n")
    switch.apply(settings())


def test_a_restart_under_refused_settings_brings_the_previous_access_point(box: Box, switch: WifiSwitch) -> None:
    switch.apply(settings())
    box.restart()
    with pytest.raises(WifiRefusedError, match=r"not allowed in US.*previous settings are in force"):
        box.switch().apply(settings(channel=13, country="US"))
    status = switch.status()
    assert status is not None
    assert status.channel == 6


def test_a_restart_under_settings_that_the_radio_refuses(box: Box, switch: WifiSwitch) -> None:
    switch.apply(settings())
    box.restart()
    box.hostapd.radio_channels = {6}
    with pytest.raises(WifiRefusedError, match="previous settings are in force"):
        box.switch(start_s=0.5).apply(settings(channel=11))
    status = switch.status()
    assert status is not None
    assert status.channel == 6


def test_a_full_disk_does_not_stop_the_access_point(box: Box, switch: WifiSwitch) -> None:
    box.kept.parent.rmdir()
    switch.apply(settings())
    assert switch.status() is not None


def test_the_passphrase_is_said_nowhere(box: Box, switch: WifiSwitch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    switch.apply(settings())
    box.hostapd.radio_channels = {6}
    for bad in (settings(channel=13, country="US"), settings(channel=11), settings(ssid="x" * 33)):
        with pytest.raises(WifiRefusedError) as caught:
            box.switch(start_s=0.3).apply(bad)
        assert PASSPHRASE not in str(caught.value)
    assert PASSPHRASE not in caplog.text
    assert PASSPHRASE not in repr(settings())
    assert not any(PASSPHRASE in command for command in box.hostapd.commands)


def test_stations_are_listed(box: Box, switch: WifiSwitch) -> None:
    box.hostapd.stations = ["02:00:00:00:00:01", "02:00:00:00:00:02"]
    switch.apply(settings())
    assert switch.stations() == box.hostapd.stations
