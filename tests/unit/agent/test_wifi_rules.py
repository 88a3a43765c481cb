"""What settings become: channels of a country, and the file that hostapd reads."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.errors import SetupError
from omamori_agent.wifi.hostapd_config import MAX_CONFIG_BYTES, AccessPoint, render_config, run_of
from omamori_agent.wifi.regulatory import MAX_DATABASE_BYTES, RegulatoryDatabase, load_database
from omamori_protocol.desired import WifiSecurity, WifiSettings
from sim.hostapd import DFS, NO_IR, NO_OFDM, parse_config, regulatory_database

POINT = AccessPoint(interface="wlan0", bridge="br0", control=Path("/run/omamori/hostapd"), group="omamori-wifi")
RUN = "0123456789abcdef"


def settings(**changes: object) -> WifiSettings:
    values: dict[str, object] = {
        "enabled": True,
        "ssid": "office",
        "passphrase": "a long passphrase",
        "channel": 6,
        "country": "JP",
        "security": WifiSecurity.WPA2,
        "isolation": False,
    }
    return WifiSettings(**(values | changes))  # type: ignore[arg-type]


def rendered(channel: int = 6, allowed: tuple[int, ...] = tuple(range(1, 14)), **changes: object) -> dict[str, str]:
    text = render_config(settings(**changes), POINT, run=RUN, channel=channel, allowed=allowed).decode()
    return parse_config(text)


class TestChannels:
    def test_a_channel_needs_its_whole_width(self) -> None:
        database = regulatory_database({"JP": [(2402, 2482, 40, 0)], "US": [(2402, 2472, 40, 0), (5150, 5250, 80, 0)]})
        assert RegulatoryDatabase(database).channels("JP") == tuple(range(1, 14))
        assert RegulatoryDatabase(database).channels("US") == tuple(range(1, 12))

    def test_one_kilohertz_less(self) -> None:
        raw = bytearray(regulatory_database({"US": [(2402, 2472, 40, 0)]}))
        at = raw.index(struct.pack(">I", 2_472_000))
        raw[at : at + 4] = struct.pack(">I", 2_471_999)
        assert RegulatoryDatabase(bytes(raw)).channels("US") == tuple(range(1, 11))

    @pytest.mark.parametrize("flag", [NO_IR, DFS, NO_OFDM])
    def test_where_no_access_point_may_begin(self, flag: int) -> None:
        database = regulatory_database({"XX": [(2402, 2472, 40, 0), (2457, 2482, 20, flag)]})
        assert RegulatoryDatabase(database).channels("XX") == tuple(range(1, 12))

    def test_too_narrow(self) -> None:
        assert RegulatoryDatabase(regulatory_database({"XX": [(2402, 2482, 19, 0)]})).channels("XX") == ()

    def test_an_unknown_country_allows_nothing(self) -> None:
        database = RegulatoryDatabase(regulatory_database({"JP": [(2402, 2482, 40, 0)]}))
        assert database.channels("ZZ") == ()
        assert database.countries == {"JP"}

    def test_one_byte_more_than_the_bound(self, tmp_path: Path) -> None:
        good = regulatory_database({"JP": [(2402, 2482, 40, 0)]})
        path = tmp_path / "regulatory.db"
        path.write_bytes(good + bytes(MAX_DATABASE_BYTES - len(good)))
        assert load_database(path).countries == {"JP"}
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(SetupError, match="more than"):
            load_database(path)
        with pytest.raises(SetupError, match="more than"):
            RegulatoryDatabase(path.read_bytes())

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError, match="missing"):
            load_database(tmp_path / "regulatory.db")

    def test_another_version(self) -> None:
        raw = regulatory_database({"JP": []})
        with pytest.raises(SetupError, match="version"):
            RegulatoryDatabase(raw[:7] + b"\x15" + raw[8:])

    def test_every_cut_is_refused(self) -> None:
        raw = regulatory_database({"JP": [(2402, 2482, 40, 0)], "US": [(2402, 2472, 40, 0)]})
        refusals = 0
        for length in range(len(raw)):
            try:
                database = RegulatoryDatabase(raw[:length])
                assert [database.channels(country)[-1] for country in ("JP", "US")] == [13, 11]
            except SetupError:
                refusals += 1
        assert refusals > len(raw) - 4, "the last bytes may be filling"

    @given(st.binary(max_size=400))
    def test_any_bytes(self, tail: bytes) -> None:
        try:
            database = RegulatoryDatabase(b"RGDB\0\0\0\x14" + tail)
            for country in database.countries:
                database.channels(country)
        except SetupError:
            pass


class TestFile:
    def test_the_whole_file(self) -> None:
        assert rendered() == {
            "interface": "wlan0",
            "driver": "nl80211",
            "bridge": "br0",
            "ctrl_interface": f"/run/omamori/hostapd/{RUN}",
            "ctrl_interface_group": "omamori-wifi",
            "logger_syslog": "0",
            "logger_stdout": "-1",
            "logger_stdout_level": "2",
            "ssid2": b"office".hex(),
            "utf8_ssid": "1",
            "country_code": "JP",
            "ieee80211d": "1",
            "hw_mode": "g",
            "channel": "6",
            "ieee80211n": "1",
            "wmm_enabled": "1",
            "max_num_sta": "64",
            "ap_isolate": "0",
            "auth_algs": "1",
            "wpa": "2",
            "rsn_pairwise": "CCMP",
            "wpa_key_mgmt": "WPA-PSK",
            "ieee80211w": "0",
            "wpa_passphrase": "a long passphrase",
        }

    def test_wpa3_beside_wpa2(self) -> None:
        values = rendered(security=WifiSecurity.WPA2_WPA3)
        assert values["wpa_key_mgmt"] == "WPA-PSK SAE"
        assert (values["ieee80211w"], values["sae_require_mfp"], values["sae_pwe"]) == ("1", "1", "2")

    def test_isolation(self) -> None:
        assert rendered(isolation=True)["ap_isolate"] == "1"

    @pytest.mark.parametrize(
        ("allowed", "surveyed"),
        [(tuple(range(1, 14)), "1 6 11"), ((1, 2, 3), "1"), ((12, 13), "12 13")],
    )
    def test_an_automatic_channel_is_among_those_that_do_not_overlap(
        self, allowed: tuple[int, ...], surveyed: str
    ) -> None:
        values = rendered(channel=0, allowed=allowed)
        assert (values["channel"], values["chanlist"]) == ("0", surveyed)

    @pytest.mark.parametrize(
        "passphrase",
        ["# not a comment", " spaces ", "a=b=c|id=x", "\\n\\x0a quoted", '"in quotes"', "~" * 63, "12345678"],
    )
    def test_a_passphrase_arrives_as_it_was_chosen(self, passphrase: str) -> None:
        assert rendered(passphrase=passphrase)["wpa_passphrase"] == passphrase

    @given(st.text(min_size=1, max_size=10, alphabet=st.characters(exclude_categories=("Cc", "Cs"))))
    def test_an_ssid_arrives_as_it_was_chosen(self, ssid: str) -> None:
        if len(ssid.encode()) <= 32:
            assert bytes.fromhex(rendered(ssid=ssid)["ssid2"]) == ssid.encode()

    def test_the_longest_file_is_below_the_bound(self) -> None:
        longest = settings(ssid="あ" * 10, passphrase="~" * 63, security=WifiSecurity.WPA2_WPA3)
        data = render_config(longest, POINT, run=RUN, channel=0, allowed=tuple(range(1, 14)))
        assert len(data) < MAX_CONFIG_BYTES

    def test_the_file_names_its_run(self) -> None:
        data = render_config(settings(), POINT, run=RUN, channel=6, allowed=(6,))
        assert run_of(data) == RUN
        assert run_of(b"interface=wlan0\n") is None
        assert run_of(b"\xff") is None
