"""Signing desired state and commands: strict input with the field's name, versions that only grow, nothing leaks."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from omamori_ota import cli
from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.keys import KeyDirectory
from omamori_ota.settings_file import MAX_BYTES, parse_settings, render_settings
from omamori_ota.signed import DesiredDesk
from omamori_protocol import cose
from omamori_protocol.command import Command, Moment, Verb
from omamori_protocol.desired import DesiredState, ExemptionKind, Metered, WifiSecurity

from .conftest import ManualClock

DEVICE = "ZA35-000001"
YEAR = timedelta(days=365)
FULL: dict[str, Any] = {
    "wifi": {
        "enabled": True,
        "ssid": "お守り",
        "passphrase": "correct horse",
        "channel": 0,
        "country": "JP",
        "security": "wpa2-wpa3",
        "isolation": False,
    },
    "address": {"mode": "static", "ipv4": "192.168.10.5/24", "gateway": "192.168.10.1", "dns": ["192.168.10.1"]},
    "policy": {"fail_closed": True},
    "exemptions": [
        {"id": 1, "kind": "terminal-mac", "value": "02:00:5e:10:00:01"},
        {"id": 2, "kind": "rule", "value": "9000001", "until": "2030-02-01T00:00:00Z"},
    ],
    "firmware": {
        "version": "1.4.0",
        "window": {"days": 31, "start_min": 120, "length_min": 180, "zone": "Asia/Tokyo"},
        "max_wait_s": 604800,
        "metered": "ask",
        "rate_kbps": 4000,
        "owner_refuses_scheduled": False,
    },
    "feed": {"channel": "stable"},
}


@pytest.fixture
def desk(tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock) -> DesiredDesk:
    made = DesiredDesk(key_directory, clock)
    made._directory = tmp_path / "published"
    return made


def parse(body: Any) -> dict[str, Any]:
    return parse_settings(json.dumps(body).encode())


def test_what_may_still_be_delivered(desk: DesiredDesk, clock: ManualClock) -> None:
    assert list(desk.everything()) == []
    desk.sign("ZA35-000001", parse({}), lifetime=timedelta(days=1))
    newest = desk.sign("ZA35-000001", parse({}), lifetime=YEAR)
    short = desk.sign("ZA35-000002", parse({}), lifetime=timedelta(hours=1))
    assert list(desk.everything()) == [newest, short]
    clock.now += timedelta(hours=1)
    assert list(desk.everything()) == [newest]


def test_whole_file(desk: DesiredDesk, key_directory: KeyDirectory, clock: ManualClock) -> None:
    signed = desk.sign(DEVICE, parse(FULL), lifetime=YEAR)
    document = signed.document
    assert (document.device, document.version, document.issued_s) == (DEVICE, 1, int(clock.now.timestamp()))
    assert document.expires_s - document.issued_s == 365 * 86400
    assert document.wifi is not None
    assert document.wifi.security is WifiSecurity.WPA2_WPA3
    assert document.policy is not None
    assert document.policy.fail_closed
    assert document.exemptions[1].kind is ExemptionKind.RULE
    assert document.exemptions[1].until_s == 1896134400
    assert document.firmware is not None
    assert (document.firmware.max_wait_s, document.firmware.metered) == (604800, Metered.ASK)
    (key,) = cose.load_public_keys((key_directory.path / "trust/desired.pem").read_bytes())
    payload = cose.unseal(signed.data, [key], cose.DESIRED_CONTEXT, max_bytes=4096)
    assert DesiredState.decode(payload) == document
    assert parse({"wifi": None, "exemptions": []}) == {"exemptions": ()}


def changed(section: str, **changes: Any) -> dict[str, Any]:
    return {section: {**FULL[section], **changes}}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "expected an object"),
        ({"wlan": {}}, "wlan: no such section"),
        ({"wifi": []}, "wifi: expected an object"),
        ({"wifi": {}}, "wifi.enabled: missing"),
        (changed("wifi", ssid=""), "wifi.ssid: an SSID has 1 to 32 bytes"),
        (changed("wifi", passphrase="short"), "wifi.passphrase: a passphrase has 8 to 63"),
        (changed("wifi", channel=14), "wifi.channel: integer 14"),
        (changed("wifi", channel="6"), "wifi.channel: expected an integer"),
        (changed("wifi", security="wep"), "wifi.security: not one of wpa2, wpa2-wpa3"),
        (changed("wifi", security=2), "wifi.security: not one of"),
        (changed("wifi", band=5), "wifi.band: no such field"),
        (changed("wifi", enabled=1), "wifi.enabled: expected true or false"),
        (changed("address", gateway="192.168.11.1"), "address: address: the gateway is not another host"),
        (changed("address", dns="192.168.10.1"), "address.dns: expected a list"),
        (changed("address", dns=["x"]), r"address.dns\[0\]: not an IP address"),
        (changed("address", dns=["192.168.10.1"] * 4), "address.dns: 4 items, allowed 3"),
        (changed("policy", fail_closed="no"), "policy.fail_closed: expected true"),
        ({"exemptions": [{"id": 1, "kind": "rule"}]}, r"exemptions\[0\].value: missing"),
        (
            {"exemptions": [{"id": 1, "kind": "rule", "value": "x"}]},
            r"exemptions\[0\]: exemption 1: not a rule's number",
        ),
        (
            {"exemptions": [{"id": 1, "kind": "rule", "value": "1", "until": "tomorrow"}]},
            r"exemptions\[0\].until: not a time",
        ),
        ({"exemptions": [{"id": 1, "kind": "rule", "value": "1", "until": 5}]}, "until: not a time"),
        ({"exemptions": [{"id": n, "kind": "rule", "value": "1"} for n in range(257)]}, "257 items, allowed 256"),
    ],
)
def test_wrong_field_is_named(body: Any, said: str) -> None:
    with pytest.raises(RejectedError, match=said):
        parse(body)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"policy": null, "policy": null}', b"[" * 100_000])
def test_not_json(data: bytes) -> None:
    with pytest.raises(RejectedError, match="not JSON"):
        parse_settings(data)


def test_file_that_is_too_large() -> None:
    with pytest.raises(RejectedError, match="allowed"):
        parse_settings(bytes(MAX_BYTES + 1))


def test_two_exemptions_of_one_number_are_refused_before_anything_is_signed(desk: DesiredDesk) -> None:
    twice = [{"id": 1, "kind": "rule", "value": "1"}, {"id": 1, "kind": "rule", "value": "2"}]
    with pytest.raises(RejectedError, match="same id"):
        desk.sign(DEVICE, parse({"exemptions": twice}), lifetime=YEAR)
    assert desk.newest(DEVICE) is None


def test_versions_only_grow(desk: DesiredDesk) -> None:
    assert [desk.sign(DEVICE, {}, lifetime=YEAR).document.version for _ in range(3)] == [1, 2, 3]
    assert desk.sign("ZA35-000002", {}, lifetime=YEAR).document.version == 1
    assert desk.sign(DEVICE, {}, lifetime=YEAR, version=10).document.version == 10
    for version in (9, 10):
        with pytest.raises(RejectedError, match="is not newer than 10"):
            desk.sign(DEVICE, {}, lifetime=YEAR, version=version)
    with pytest.raises(RejectedError):
        desk.sign(DEVICE, {}, lifetime=YEAR, version=2**32)
    assert desk.sign(DEVICE, {}, lifetime=YEAR).document.version == 11


def test_record_is_private_and_a_damaged_one_is_told(desk: DesiredDesk) -> None:
    desk.sign(DEVICE, parse(FULL), lifetime=YEAR)
    path = desk._directory / f"{DEVICE}.cose"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SetupError, match="signature"):
        desk.sign(DEVICE, {}, lifetime=YEAR)


def test_shown_document_hides_the_passphrase(desk: DesiredDesk) -> None:
    shown = json.dumps(render_settings(desk.sign(DEVICE, parse(FULL), lifetime=YEAR).document), ensure_ascii=False)
    assert "correct horse" not in shown
    assert "お守り" in shown
    assert '"until": "2030-02-01T00:00:00Z"' in shown


def test_bypass_command(desk: DesiredDesk, key_directory: KeyDirectory) -> None:
    command, data = desk.bypass(DEVICE, 30, asked_by="佐藤", lifetime=timedelta(minutes=10))
    (key,) = cose.load_public_keys((key_directory.path / "trust/desired.pem").read_bytes())
    payload = cose.unseal(data, [key], cose.COMMAND_CONTEXT, max_bytes=Command.MAX_BYTES)
    assert Command.decode(payload) == command
    assert (command.verb, command.minutes, command.asked_by) == (Verb.BYPASS, 30, "佐藤")
    other, _data = desk.bypass(DEVICE, 30, asked_by="佐藤", lifetime=timedelta(minutes=10))
    assert other.command_id != command.command_id
    with pytest.raises(RejectedError, match="1441"):
        desk.bypass(DEVICE, 1441, asked_by="", lifetime=timedelta(minutes=10))
    with pytest.raises(RejectedError, match="expires within"):
        desk.bypass(DEVICE, 1, asked_by="", lifetime=timedelta(days=2))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = str(tmp_path / "keys")
    assert cli.main(["keys", "init", keys]) == 0
    assert cli.main(["keys", "complete", keys]) == 0
    assert "nothing is missing" in capsys.readouterr().out
    settings, out = tmp_path / "desired.json", tmp_path / "signed.cose"
    settings.write_text(json.dumps(FULL))
    box = [keys, "--device", DEVICE]
    assert cli.main(["desired", "publish", *box, "--file", str(settings), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"device": DEVICE, "version": 1, "bytes": out.stat().st_size}
    assert cli.main(["desired", "show", *box]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert cli.main(["desired", "show", keys, "--file", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == shown
    assert shown["wifi"]["passphrase"] == "(hidden)"
    assert cli.main(["command", "bypass", *box, "--minutes", "5", "--out", str(out)]) == 0
    assert "bypass device=ZA35-000001 minutes=5 command=" in capsys.readouterr().out
    assert cli.main(["command", "identify", *box, "--out", str(out)]) == 0
    assert "identify device=ZA35-000001 minutes=5 command=" in capsys.readouterr().out
    assert cli.main(["command", "reboot", *box, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["when"] == "window"
    assert cli.main(["command", "reboot", *box, "--when", "now", "--asked-by", "佐藤", "--out", str(out)]) == 0
    assert "reboot device=ZA35-000001 when=now command=" in capsys.readouterr().out
    assert cli.main(["command", "diagnostics", *box, "--out", str(tmp_path / "other.cose")]) == 0
    assert capsys.readouterr().out.startswith("diagnostics device=ZA35-000001 command=")
    (key,) = cose.load_public_keys((tmp_path / "keys/trust/desired.pem").read_bytes())
    command = Command.decode(cose.unseal(out.read_bytes(), [key], cose.COMMAND_CONTEXT, max_bytes=Command.MAX_BYTES))
    assert (command.verb, command.moment, command.asked_by) == (Verb.REBOOT, Moment.NOW, "佐藤")
    assert cli.main(["command", "identify", *box, "--minutes", "61", "--out", str(out)]) == 1
    assert "at most 60" in capsys.readouterr().err


def test_command_line_that_would_reach_nobody_signs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = str(tmp_path / "keys")
    cli.main(["keys", "init", keys])
    (tmp_path / "desired.json").write_text("{}")
    line = ["desired", "publish", keys, "--device", DEVICE, "--file", str(tmp_path / "desired.json")]
    assert cli.main(line) == 1
    assert "--broker" in capsys.readouterr().err
    assert cli.main([*line, "--broker", "mqtts://localhost:1"]) == 1
    assert cli.main([*line, "--broker", "mqtts://localhost:1", "--tls-dir", str(tmp_path)]) == 1
    assert "not a usable TLS directory" in capsys.readouterr().err
    assert not (tmp_path / "keys/desired/published").exists()
    assert cli.main(["desired", "show", keys, "--device", DEVICE]) == 1
    assert "nothing has been signed" in capsys.readouterr().err


def test_example_of_the_guide_is_accepted() -> None:
    guide = (Path(__file__).parents[3] / "docs/desired-state.md").read_text(encoding="utf-8")
    example = guide.partition("```json\n")[2].partition("```")[0]
    assert set(parse_settings(example.encode())) == set(FULL)
