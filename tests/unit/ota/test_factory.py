"""Factory: serials, claims and provision files."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from omamori_ota import factory, keys
from omamori_ota.boxes import ClaimState
from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.factory import ProvisionTemplate
from omamori_ota.keys import KeyDirectory
from omamori_ota.registry import Registry
from omamori_ota.roles import Lifetimes
from omamori_protocol.errors import MalformedError
from omamori_protocol.provision import parse_provision

from .conftest import START, ManualClock

TEMPLATE = {
    "format": 1,
    "enrolment_url": "https://enrol.example.com:8443",
    "broker": {"host": "broker.example.com", "port": 8883},
    "repository_url": "https://repo.example.com",
    "channel": "demo",
}


def write_template(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**TEMPLATE, **changes}))
    return path


@pytest.fixture
def template(tmp_path: Path) -> ProvisionTemplate:
    return ProvisionTemplate(write_template(tmp_path / "template.json"))


def test_provision_file_is_what_a_box_reads_and_the_register_holds_no_claim(
    tmp_path: Path, registry: Registry, template: ProvisionTemplate, clock: ManualClock
) -> None:
    out = tmp_path / "provision.json"
    factory.provision(registry, template, "ZA35-000001", out, clock)
    provision = parse_provision(out.read_bytes())
    assert provision.serial == "ZA35-000001"
    assert len(provision.claim) == 32
    assert provision.enrolment_url == TEMPLATE["enrolment_url"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    box = registry.find("ZA35-000001")
    assert box is not None
    assert box.state is ClaimState.ISSUED
    assert box.made_at == START
    assert box.accepts(provision.claim)
    assert provision.claim.encode() not in (tmp_path / "registry.db").read_bytes()
    assert stat.S_IMODE((tmp_path / "registry.db").stat().st_mode) == 0o600


def test_claim_is_bound_to_its_serial(
    tmp_path: Path, registry: Registry, template: ProvisionTemplate, clock: ManualClock
) -> None:
    for serial in ("ZA35-000001", "ZA35-000002"):
        factory.provision(registry, template, serial, tmp_path / serial, clock)
    claim = parse_provision((tmp_path / "ZA35-000001").read_bytes()).claim
    other = registry.find("ZA35-000002")
    assert other is not None
    assert not other.accepts(claim)


def test_registered_serial_is_refused_and_keeps_its_claim(
    tmp_path: Path, registry: Registry, template: ProvisionTemplate, clock: ManualClock
) -> None:
    factory.provision(registry, template, "ZA35-000001", tmp_path / "one", clock)
    with pytest.raises(SetupError, match=r"registered already \(claim issued\)"):
        factory.provision(registry, template, "ZA35-000001", tmp_path / "two", clock)
    assert not (tmp_path / "two").exists()
    box = registry.find("ZA35-000001")
    assert box is not None
    assert box.accepts(parse_provision((tmp_path / "one").read_bytes()).claim)


def test_replacing_makes_the_old_claim_worthless(
    tmp_path: Path, registry: Registry, template: ProvisionTemplate, clock: ManualClock
) -> None:
    out = tmp_path / "provision.json"
    factory.provision(registry, template, "ZA35-000001", out, clock)
    old = parse_provision(out.read_bytes()).claim
    factory.provision(registry, template, "ZA35-000001", out, clock, replace=True)
    box = registry.find("ZA35-000001")
    assert box is not None
    assert not box.accepts(old)
    assert box.accepts(parse_provision(out.read_bytes()).claim)


def test_existing_file_is_not_overwritten(
    tmp_path: Path, registry: Registry, template: ProvisionTemplate, clock: ManualClock
) -> None:
    out = tmp_path / "provision.json"
    out.write_text("another box's")
    with pytest.raises(SetupError, match="exists already"):
        factory.provision(registry, template, "ZA35-000001", out, clock)
    assert out.read_text() == "another box's"
    assert registry.find("ZA35-000001") is None


def test_file_that_cannot_be_written_registers_nothing(
    tmp_path: Path, registry: Registry, template: ProvisionTemplate, clock: ManualClock
) -> None:
    with pytest.raises(OSError, match="No such file"):
        factory.provision(registry, template, "ZA35-000001", tmp_path / "missing/provision.json", clock)
    assert registry.find("ZA35-000001") is None


@pytest.mark.parametrize("serial", ["za35-1", "ZA3", "../../etc", "A" * 33])
def test_serial_of_another_form_is_refused(
    tmp_path: Path, registry: Registry, template: ProvisionTemplate, clock: ManualClock, serial: str
) -> None:
    with pytest.raises(MalformedError):
        factory.provision(registry, template, serial, tmp_path / "out", clock)


@pytest.mark.parametrize(
    "changes",
    [
        {"serial": "ZA35-000001"},
        {"claim": "A" * 32},
        {"unknown": 1},
        {"enrolment_url": "http://enrol.example.com"},
        {"broker": {"host": "broker.example.com", "port": 0}},
        {"channel": "Demo"},
    ],
)
def test_template_that_a_box_would_refuse_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(RejectedError):
        ProvisionTemplate(write_template(tmp_path / "template.json", **changes))


def test_oversize_template_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(" " * 8193)
    with pytest.raises(SetupError, match="larger than 8192"):
        ProvisionTemplate(path)


def test_batch_counts_the_last_digits() -> None:
    assert factory.batch_serials("ZA35-000009", 3) == ["ZA35-000009", "ZA35-000010", "ZA35-000011"]
    assert factory.batch_serials("OFFICE", 1) == ["OFFICE"]


@pytest.mark.parametrize(
    ("first", "count"), [("ZA35-999999", 2), ("OFFICE", 2), ("ZA35-000001", 0), ("ZA35-000001", factory.MAX_BATCH + 1)]
)
def test_batch_that_does_not_fit_is_refused(first: str, count: int) -> None:
    with pytest.raises(RejectedError):
        factory.batch_serials(first, count)


def test_register_of_another_authority_is_refused(tmp_path: Path, registry: Registry, clock: ManualClock) -> None:
    other = keys.init(tmp_path / "other", clock, Lifetimes())
    with pytest.raises(SetupError, match="another device CA"):
        Registry(tmp_path / "registry.db", other.authority_certificate(keys.DEVICE_CA))


def test_file_that_is_no_register_is_refused(tmp_path: Path, key_directory: KeyDirectory) -> None:
    path = tmp_path / "registry.db"
    path.write_text("SQLite it is not, but long enough to be looked at as one. " * 20)
    with pytest.raises(SetupError, match="not a register"):
        Registry(path, key_directory.authority_certificate(keys.DEVICE_CA))
