"""Desired state and commands from the operator's command line over a real broker to the gate's real maps, and back.

The agent is a process, so that it can be killed; what it sets is read from the maps it sets, and what it reports is
read where the cloud reads it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from omamori_agent.address import service
from omamori_agent.gate import Gate
from omamori_agent.gate.layout import MapName
from omamori_agent.lamp import read_moment
from omamori_ota import cli
from omamori_ota.broker import BrokerAddress, publish
from omamori_ota.clock import system_clock
from omamori_ota.keys import KeyDirectory
from omamori_ota.settings_file import parse_settings
from omamori_ota.signed import DesiredDesk
from omamori_protocol import cose
from omamori_protocol.command import Verb
from omamori_protocol.desired import DesiredState
from omamori_protocol.diagnostics import decompress
from omamori_protocol.reported import PartName, PartState, Reported
from omamori_protocol.topics import Leaf, device_topic
from sim.box import CLAIM, DEVICE
from sim.gate_maps import gate_maps
from sim.mosquitto import Mosquitto
from sim.pki import Authority

from .agent_site import Cloud, Site, eventually

pytestmark = pytest.mark.root

DAY = timedelta(days=1)
SETTINGS: dict[str, Any] = {
    "policy": {"fail_closed": True},
    "exemptions": [
        {"id": 1, "kind": "terminal-mac", "value": "02:00:5e:10:00:01"},
        {"id": 2, "kind": "terminal-ip", "value": "192.168.10.64/28"},
        {"id": 3, "kind": "destination", "value": "2001:db8::80"},
    ],
}


class Operator:
    """Who signs: a key directory, the publisher's TLS directory, and the command line."""

    def __init__(self, directory: Path, service_ca: Authority, broker: Mosquitto) -> None:
        self.keys = directory / "keys"
        assert cli.main(["keys", "init", str(self.keys)]) == 0
        self.tls = directory / "publisher"
        self.tls.mkdir()
        service_ca.issue("publisher").write(self.tls / "tls.key", self.tls / "tls.crt")
        (self.tls / "ca.pem").write_bytes(service_ca.pem)
        self.broker = broker
        self._file = directory / "settings.json"

    @property
    def _where(self) -> list[str]:
        return ["--device", DEVICE, "--broker", f"mqtts://localhost:{self.broker.port}", "--tls-dir", str(self.tls)]

    def publish(self, settings: dict[str, Any], *more: str) -> int:
        """Publish as a person does; returns the exit status."""
        self._file.write_text(json.dumps(settings))
        return cli.main(["desired", "publish", str(self.keys), *self._where, "--file", str(self._file), *more])

    def bypass(self, minutes: int) -> int:
        return cli.main(
            ["command", "bypass", str(self.keys), *self._where, "--minutes", str(minutes), "--asked-by", "佐藤"]
        )

    def order(self, *words: str) -> int:
        """Send a command as a person does; returns the exit status."""
        return cli.main(["command", words[0], str(self.keys), *self._where, *words[1:], "--asked-by", "佐藤"])

    def send(self, signed: bytes, leaf: Leaf = Leaf.DESIRED) -> None:
        """Send bytes as somebody who may write to the broker, and no more, could."""
        address = BrokerAddress(host="localhost", port=self.broker.port, tls_directory=self.tls)
        publish(address, device_topic(DEVICE, leaf), signed, retain=leaf is Leaf.DESIRED)

    @property
    def desk(self) -> DesiredDesk:
        return DesiredDesk(KeyDirectory(self.keys), system_clock)

    def newest(self) -> bytes:
        signed = self.desk.newest(DEVICE)
        assert signed is not None
        return signed.data


@pytest.fixture
def operator(tmp_path: Path, authorities: tuple[Authority, Authority], broker: Mosquitto) -> Operator:
    return Operator(tmp_path, authorities[0], broker)


@pytest.fixture
def gate(site: Site, operator: Operator, tmp_path: Path) -> Iterator[Gate]:
    """The maps of the box's gate; the box trusts the operator and its agent runs."""
    with gate_maps(tmp_path / "pins") as pins:
        site.paths.bpf.parent.mkdir(parents=True)
        site.paths.bpf.symlink_to(pins)
        shutil.copy(operator.keys / "trust/desired.pem", site.paths.desired_keys)
        opened = Gate(pins)
        yield opened
        opened.close()
        site.close()


def part(report: Reported, name: PartName) -> PartState:
    return next((item.state for item in report.parts if item.part is name), PartState.NONE)


def effects(gate: Gate) -> tuple[Any, ...]:
    """What the desired state has done to the gate."""
    control = gate.control()
    exempt = [sorted(gate._maps[name].items()) for name in (MapName.EXEMPT, MapName.EXEMPT_MAC)]
    return control.fail_closed, control.epoch, exempt


def wait_applied(cloud: Cloud, site: Site, version: int) -> Reported:
    def is_there() -> bool:
        # Exemptions wait for the feed, which looks every few seconds.
        return bool(cloud.reports) and (cloud.reports[-1].version, cloud.reports[-1].state) == (
            version,
            PartState.APPLIED,
        )

    eventually(is_there, what=lambda: f"{cloud.reports[-1:]} {site.log()}")
    return cloud.reports[-1]


def entries(gate: Gate, name: MapName) -> int:
    return len(list(gate._maps[name].items()))


def test_published_applied_reported(site: Site, cloud: Cloud, operator: Operator, gate: Gate) -> None:
    site.start()
    eventually(lambda: cloud.reports, what=site.log)
    assert cloud.reports[0] == Reported(at_s=cloud.reports[0].at_s, version=0, state=PartState.NONE)
    assert operator.publish(SETTINGS) == 0
    report = wait_applied(cloud, site, 1)
    assert {item.part for item in report.parts} >= {PartName.ADDRESS, PartName.POLICY, PartName.EXEMPTIONS}
    assert gate.control().fail_closed
    assert gate.control().epoch >= 1
    assert (entries(gate, MapName.EXEMPT), entries(gate, MapName.EXEMPT_MAC)) == (2, 1)
    assert "desired state 1 accepted" in cloud.texts
    assert operator.publish({}) == 0
    wait_applied(cloud, site, 2)
    assert not gate.control().fail_closed
    assert (entries(gate, MapName.EXEMPT), entries(gate, MapName.EXEMPT_MAC)) == (0, 0)
    # Who comes later finds the report at the broker.
    site.kill()
    assert cloud.reports[-1].version == 2


def test_what_must_be_refused_changes_nothing(
    site: Site, cloud: Cloud, operator: Operator, gate: Gate, tmp_path: Path
) -> None:
    site.start()
    assert operator.publish(SETTINGS) == 0
    old = operator.newest()
    assert operator.publish(SETTINGS) == 0
    applied = wait_applied(cloud, site, 2)
    before, document = effects(gate), (site.paths.desired / "document.cose").read_bytes()
    newer = parse_settings(b'{"policy": {"fail_closed": false}}')
    key = KeyDirectory(operator.keys).desired_key()
    past = DesiredState(device=DEVICE, version=9, issued_s=1, expires_s=2)
    foreign = operator.desk.sign("ZA35-000002", newer, lifetime=DAY)
    (tmp_path / "stranger").mkdir()
    stranger = Operator(tmp_path / "stranger", Authority("Another CA"), operator.broker)
    tampered = bytearray(operator.newest())
    tampered[-70] ^= 1
    attempts: list[tuple[bytes, str]] = [
        (old, "version 1 is older than 2"),
        (foreign.data, "it is for ZA35-000002"),
        (cose.seal(past.encode(), key, cose.DESIRED_CONTEXT), "version 9 has expired"),
        (bytes(tampered), "not signed by a trusted key"),
        (stranger.desk.sign(DEVICE, newer, lifetime=DAY, version=8).data, "not signed by a trusted key"),
        (cose.seal(past.encode(), key, cose.COMMAND_CONTEXT), "not signed by a trusted key"),
    ]
    for number, (signed, reason) in enumerate(attempts, 1):
        operator.send(signed)
        eventually(
            lambda number=number: sum("desired state refused" in text for text in cloud.texts) == number,
            what=lambda reason=reason: f"{reason} {cloud.texts} {site.log()}",
        )
        eventually(lambda reason=reason: reason in (cloud.reports[-1].refused_reason or ""), what=site.log)
        assert (cloud.reports[-1].version, cloud.reports[-1].parts) == (2, applied.parts)
        assert effects(gate) == before
        assert (site.paths.desired / "document.cose").read_bytes() == document
    # Delivered again at the next connection, it is not told again; what is in force is.
    site.kill()
    site.start()
    count = len(cloud.states)
    eventually(lambda: len(cloud.states) > count, what=site.log)
    operator.send(operator.newest())
    wait_applied(cloud, site, 2)
    assert sum("desired state refused" in text for text in cloud.texts) == len(attempts)
    assert effects(gate) == before


def test_killed_between_keeping_and_applying(site: Site, cloud: Cloud, operator: Operator, gate: Gate) -> None:
    site.start()
    eventually(lambda: cloud.reports, what=site.log)
    # Without its maps the gate takes nothing: the document is kept and waits, and then the agent is killed.
    pins = site.paths.bpf.readlink()
    site.stop()
    site.paths.bpf.unlink()
    site.start()
    assert operator.publish(SETTINGS) == 0
    eventually(
        lambda: cloud.reports[-1].version == 1 and part(cloud.reports[-1], PartName.POLICY) is PartState.PENDING,
        what=site.log,
    )
    site.kill()
    assert not gate.control().fail_closed
    site.paths.bpf.symlink_to(pins)
    operator.broker.stop()  # and the cloud is away, too
    site.start()
    eventually(lambda: gate.control().fail_closed and entries(gate, MapName.EXEMPT) == 2, what=site.log)
    operator.broker.start()
    wait_applied(cloud, site, 1)


def test_after_a_new_boot_without_the_cloud(site: Site, cloud: Cloud, operator: Operator, gate: Gate) -> None:
    site.start()
    operator.publish(SETTINGS)
    wait_applied(cloud, site, 1)
    site.kill()
    operator.broker.stop()
    gate.set_fail_closed(on=False)
    gate.sync_exemptions()
    site.start()
    eventually(lambda: gate.control().fail_closed and entries(gate, MapName.EXEMPT_MAC) == 1, what=site.log)


def test_bypass_command(site: Site, cloud: Cloud, operator: Operator, gate: Gate) -> None:
    site.start()
    eventually(lambda: cloud.reports, what=site.log)
    assert operator.bypass(30) == 0
    eventually(lambda: gate.bypass_until() is not None, what=site.log)
    left_s = (gate.bypass_until() or 0) - time.time()
    assert 1700 < left_s <= 1800
    eventually(lambda: cloud.reports[-1].bypass_until_s is not None, what=site.log)
    assert cloud.reports[-1].command_state is PartState.APPLIED
    assert abs((cloud.reports[-1].bypass_until_s or 0) - time.time() - left_s) < 60
    site.kill()  # the gate goes on, and so does the next agent
    site.start()
    count = len(cloud.heartbeats)
    eventually(lambda: len(cloud.heartbeats) > count, what=site.log)
    assert gate.bypass_until() is not None
    assert operator.bypass(0) == 0
    eventually(lambda: gate.bypass_until() is None, what=site.log)
    eventually(lambda: cloud.reports[-1].bypass_until_s is None, what=site.log)
    expected = ["bypass: nothing is inspected for 30 min, asked for by 佐藤", "bypass asked for by 佐藤 ended by 佐藤"]
    eventually(lambda: [text for text in cloud.texts if text.startswith("bypass")] == expected, what=site.log)


def test_same_command_twice_and_an_expired_one(site: Site, cloud: Cloud, operator: Operator, gate: Gate) -> None:
    site.start()
    eventually(lambda: cloud.reports, what=site.log)
    command, signed = operator.desk.bypass(DEVICE, 30, asked_by="佐藤", lifetime=DAY)
    operator.send(signed, Leaf.COMMAND)
    eventually(lambda: cloud.reports[-1].command_id == command.command_id, what=site.log)
    assert operator.bypass(0) == 0
    eventually(lambda: gate.bypass_until() is None, what=site.log)
    operator.send(signed, Leaf.COMMAND)
    operator.send(signed[:-1] + bytes([signed[-1] ^ 1]), Leaf.COMMAND)
    eventually(lambda: any("command refused" in text for text in cloud.texts), what=site.log)
    assert gate.bypass_until() is None


def test_identify_and_restart_commands(site: Site, cloud: Cloud, operator: Operator, gate: Gate) -> None:
    lamp = site.paths.leds / "box:green:status"
    lamp.mkdir(parents=True)
    (lamp / "brightness").write_text("0")
    site.paths.restart_request.parent.mkdir(parents=True)
    site.start()
    eventually(lambda: cloud.reports, what=site.log)
    assert operator.order("identify", "--minutes", "3") == 0
    eventually(lambda: cloud.reports[-1].command_state is PartState.APPLIED, what=site.log)
    left_s = read_moment(site.paths.identify) - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert 60 < left_s <= 181
    assert f"this is {DEVICE}, asks 佐藤" in site.paths.console.read_text()
    assert operator.order("reboot") == 0  # in a window that nobody has agreed on
    eventually(lambda: cloud.reports[-1].command_state is PartState.REFUSED, what=site.log)
    assert "no window is agreed" in (cloud.reports[-1].command_reason or "")
    assert operator.order("reboot", "--when", "now") == 0
    eventually(site.paths.restart_request.exists, what=site.log)
    eventually(lambda: cloud.reports[-1].command_reason == "restarts now", what=site.log)
    assert cloud.reports[-1].command_state is PartState.PENDING
    site.kill()  # and the box is another one: nothing in memory is left
    site.paths.restart_request.unlink()
    site.paths.boot_id.write_text("6a0c4d9e-7b1a-4c55-9d0e-1f2a3b4c5d6e\n")
    site.start()
    eventually(lambda: cloud.reports[-1].command_state is PartState.APPLIED, what=site.log)
    eventually(lambda: "the box was restarted, as 佐藤 asked" in cloud.texts, what=site.log)
    assert not site.paths.restart_request.exists()


def test_diagnostics_wait_for_the_broker(
    site: Site, cloud: Cloud, operator: Operator, gate: Gate, broker: Mosquitto
) -> None:
    site.start()
    eventually(lambda: cloud.reports, what=site.log)
    command, signed = operator.desk.command(DEVICE, Verb.DIAGNOSTICS, asked_by="佐藤", lifetime=DAY)
    number = command.command_id.hex()
    operator.send(signed, Leaf.COMMAND)
    eventually(lambda: number in cloud.answers, what=site.log)
    told = decompress(cloud.answers[number].content)
    assert (told["box"]["device"]["id"], told["status"]["connected"]) == (DEVICE, True)
    assert any("connected to localhost" in line for line in told["log"])
    for secret in (CLAIM, "PRIVATE"):
        assert secret not in json.dumps(told)
    eventually(
        lambda: (
            (cloud.reports[-1].command_id, cloud.reports[-1].command_state) == (command.command_id, PartState.APPLIED)
        ),
        what=site.log,
    )
    eventually(lambda: not (site.paths.desired / "diagnostics.cbor").exists(), what=site.log)
    assert operator.order("diagnostics") == 0
    eventually(lambda: len(cloud.answers) == 2, what=site.log)


def test_another_feed_channel(site: Site, cloud: Cloud, operator: Operator, gate: Gate) -> None:
    """The repository is not there; what can be seen is that the choice is kept, followed and given up again."""
    site.start()
    assert operator.publish({"feed": {"channel": "stable"}}) == 0
    eventually(lambda: cloud.reports and part(cloud.reports[-1], PartName.FEED) is PartState.PENDING, what=site.log)
    reason = next(item.reason for item in cloud.reports[-1].parts if item.part is PartName.FEED)
    assert reason == "waits for a newer feed of channel stable; there is no feed yet"
    assert site.paths.feed_channel.read_text() == "stable\n"
    eventually(lambda: len({state.session for state in cloud.states}) >= 2, what=site.log)  # listens anew
    site.kill()
    site.start()
    assert operator.publish({}) == 0
    wait_applied(cloud, site, 2)
    assert site.paths.feed_channel.read_text() == "demo\n"


def test_address_that_does_not_work_comes_back(site: Site, cloud: Cloud, operator: Operator, gate: Gate) -> None:
    """Nobody plays the settings service here: after its time the part is refused and the file is as before."""
    site.start()
    address = {"mode": "static", "ipv4": "192.0.2.5/24", "gateway": "192.0.2.1", "dns": ["192.0.2.1"]}
    assert operator.publish({"address": address}) == 0
    eventually(lambda: cloud.reports and part(cloud.reports[-1], PartName.ADDRESS) is PartState.PENDING, what=site.log)
    written = site.root / service.FILE
    assert '"trial": {' in written.read_text()
    eventually(lambda: part(cloud.reports[-1], PartName.ADDRESS) is PartState.REFUSED, timeout_s=60.0, what=site.log)
    reason = next(item.reason for item in cloud.reports[-1].parts if item.part is PartName.ADDRESS)
    assert reason == "the box's settings service did not answer; the previous address is back"
    assert '"trial": null' in written.read_text()
    eventually(lambda: len({state.session for state in cloud.states}) >= 2, what=site.log)  # and the link is back
