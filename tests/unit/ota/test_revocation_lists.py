"""Revocation lists: what stands in them, when, and their bound."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import stat
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from omamori_ota import revocation
from omamori_ota.boxes import RevocationReason
from omamori_ota.enrolment_server import ServerLimits
from omamori_ota.enrolment_service import ListKeeper, ServiceConfig
from omamori_ota.errors import ProgramError, RejectedError, SetupError, TransientError
from omamori_ota.files import write_atomic
from omamori_ota.keys import DEVICE_CA, SERVICE_CA, KeyDirectory
from omamori_ota.registry import Registry

from .conftest import ManualClock
from .test_renewal import SERIAL, Site


@pytest.fixture
def site(registry: Registry, key_directory: KeyDirectory, clock: ManualClock) -> Site:
    return Site(registry, key_directory, clock)


def lists(site: Site) -> tuple[x509.CertificateRevocationList, x509.CertificateRevocationList]:
    boxes, services = revocation.make_lists(site.keys, site.registry, site.clock).values()
    return x509.load_pem_x509_crl(boxes), x509.load_pem_x509_crl(services)


def test_list_names_revoked_certificates_with_their_reason_until_they_expire(site: Site) -> None:
    certificate = site.enrol()
    boxes, services = lists(site)
    assert (len(list(boxes)), len(list(services))) == (0, 0)
    revocation.revoke(site.registry, SERIAL, RevocationReason.STOLEN, site.clock)
    boxes, services = lists(site)
    (entry,) = boxes
    assert entry.serial_number == certificate.serial_number
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert len(list(services)) == 0
    for found, name in ((boxes, DEVICE_CA), (services, SERVICE_CA)):
        authority = site.keys.authority_certificate(name)
        assert found.issuer == authority.subject
        assert found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
        assert found.next_update_utc is not None
        assert found.next_update_utc > site.clock() + timedelta(days=13)
        assert found.last_update_utc <= site.clock() - timedelta(minutes=59)
    site.clock.advance(days=91)
    assert len(list(lists(site)[0])) == 0


def test_each_list_is_later_than_the_one_before(site: Site) -> None:
    found = [lists(site)[0] for _ in range(3)]
    numbers = [item.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for item in found]
    assert numbers == [1, 2, 3]
    times = [item.last_update_utc for item in found]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [timedelta(seconds=1)] * 2


def test_list_of_the_future_is_not_made(site: Site) -> None:
    """It would shut out every box."""
    with site.registry.changing() as change:
        change.next_list(site.clock())
    with pytest.raises(TransientError, match="too many"):
        revocation.make_lists(site.keys, site.registry, site.clock)


def test_bound_of_a_list(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "MAX_REVOKED", 1)
    for _ in range(2):
        assert len(list(lists(site)[0])) <= 1
        site.claim = site.register(SERIAL)
        site.key = type(site)(site.registry, site.keys, site.clock).key
        site.claim = site.register(SERIAL)
        site.enrol()
    site.register(SERIAL)
    with pytest.raises(SetupError, match="more than 1 certificates"):
        lists(site)


def test_file_is_readable_for_the_broker_and_written_whole(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "revoked.pem"
    revocation.publish_lists(site.keys, site.registry, site.clock, out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o644
    assert out.read_bytes().count(b"BEGIN X509 CRL") == 2
    assert sorted(item.name for item in tmp_path.iterdir()) == ["registry.db", "registry.db-lists.lock", "revoked.pem"]


def test_directory_has_the_names_that_openssl_looks_for(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    with pytest.raises(SetupError, match="not a directory"):
        revocation.publish_directory(site.keys, site.registry, site.clock, out)
    out.mkdir()
    for _ in range(2):
        revocation.publish_directory(site.keys, site.registry, site.clock, out)
    names = sorted(item.name for item in out.iterdir())
    assert [name for name in names if name.endswith(".pem")] == ["device-ca.pem", "service-ca.pem"]
    links = [item for item in out.iterdir() if item.name.endswith(".r0")]
    assert len(links) == len(names) - 2 == 2
    assert {item.resolve().name for item in links} == {"device-ca.pem", "service-ca.pem"}


def test_lists_are_renewed_every_day_and_what_fails_is_tried_again(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file, directory = tmp_path / "revoked.pem", tmp_path / "lists"
    directory.mkdir()
    config = ServiceConfig(
        keys=site.keys.path,
        registry=site.registry.path,
        listen=("127.0.0.1", 0),
        tls_directory=tmp_path,
        limits=ServerLimits(),
        lists=revocation.ListPlaces(file=file, directory=directory),
    )
    keeper = ListKeeper(config, site.clock)
    paths = (file, directory / "device-ca.pem")
    keeper.step()
    first = [path.read_bytes() for path in paths]
    for path in paths:  # the test's clock is not the disk's
        os.utime(path, (site.clock().timestamp(),) * 2)
    site.clock.advance(hours=23)
    keeper.step()
    assert [path.read_bytes() for path in paths] == first
    site.clock.advance(hours=2)
    keeper.step()
    second = [path.read_bytes() for path in paths]
    assert all(before != after for before, after in zip(first, second, strict=True))
    shutil.rmtree(directory)
    file.unlink()
    for _ in range(3):
        keeper.step()
    assert caplog.text.count("cannot be renewed") == 1
    directory.mkdir()
    site.clock.advance(minutes=11)
    keeper.step()
    assert (directory / "device-ca.pem").exists()


def carrier(tmp_path: Path, target: Path) -> Path:
    """Return a program that copies what it is given to `target`, which is its only fault when it is missing."""
    program = tmp_path / "carry"
    program.write_text(f'#!/bin/sh\nexec cp -rL "$@" {target}/\n')
    program.chmod(0o755)
    return program


def test_lists_are_carried_to_other_machines_until_they_are_there(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, directory, target = tmp_path / "revoked.pem", tmp_path / "lists", tmp_path / "there"
    directory.mkdir()
    places = revocation.ListPlaces(file=file, directory=directory, carry=carrier(tmp_path, target))
    with pytest.raises(ProgramError, match="carry ended with status"):
        places.publish(site.keys, site.registry, site.clock)
    config = ServiceConfig(
        keys=site.keys.path,
        registry=site.registry.path,
        listen=("127.0.0.1", 0),
        tls_directory=tmp_path,
        limits=ServerLimits(),
        lists=places,
    )
    keeper = ListKeeper(config, site.clock)
    site.clock.advance(hours=25)
    keeper.step()
    for path in (file, directory / "device-ca.pem"):  # the test's clock is not the disk's
        os.utime(path, (site.clock().timestamp(),) * 2)
    assert caplog.text.count("cannot be renewed") == 1
    assert not places.is_due(site.clock)
    target.mkdir()
    keeper.step()
    assert not list(target.iterdir()), "not at once"
    site.clock.advance(minutes=11)
    keeper.step()
    assert (target / "revoked.pem").read_bytes() == file.read_bytes()
    assert (target / "lists/device-ca.pem").read_bytes() == (directory / "device-ca.pem").read_bytes()


def test_a_carrier_that_is_not_there_is_named(site: Site, tmp_path: Path) -> None:
    places = revocation.ListPlaces(file=tmp_path / "revoked.pem", carry=tmp_path / "absent")
    with pytest.raises(SetupError, match="absent"):
        places.publish(site.keys, site.registry, site.clock)


def test_list_made_before_a_revocation_is_not_written_after_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daily renewal has made its list and not yet written it when somebody revokes a box."""
    out = tmp_path / "revoked.pem"
    is_made, may_write = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> None:
        is_made.set()
        may_write.wait(20)
        write_atomic(*arguments, **options)

    def renew() -> None:
        revocation.publish_lists(site.keys, site.registry, site.clock, out)

    certificate = site.enrol()
    monkeypatch.setattr(revocation, "write_atomic", slow)
    renewal = threading.Thread(target=renew)
    renewal.start()
    assert is_made.wait(20)
    revocation.revoke(site.registry, SERIAL, RevocationReason.STOLEN, site.clock)
    after = threading.Thread(target=renew)
    after.start()
    after.join(0.3)
    may_write.set()
    renewal.join(20)
    after.join(20)
    (entry,) = x509.load_pem_x509_crl(out.read_bytes())
    assert entry.serial_number == certificate.serial_number


def test_service_without_lists_writes_none(site: Site) -> None:
    assert not revocation.ListPlaces().is_due(site.clock)


def test_box_that_nobody_registered(site: Site) -> None:
    with pytest.raises(RejectedError, match="not registered"):
        revocation.revoke(site.registry, "ZA35-999999", RevocationReason.STOLEN, site.clock)


@pytest.mark.parametrize("text", ["", "0", "1", "-1", "x", "9" * 31, "9" * 33])
def test_file_without_a_brokers_process(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broker.pid"
    path.write_text(text)
    with pytest.raises(SetupError):
        revocation.tell_broker(path)


def test_number_that_became_another_programs(tmp_path: Path) -> None:
    (tmp_path / "broker.pid").write_text(str(os.getpid()))
    with pytest.raises(SetupError, match="is not mosquitto"):
        revocation.tell_broker(tmp_path / "broker.pid")


def test_process_that_has_ended(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    (tmp_path / "broker.pid").write_text(str(child))
    with pytest.raises(SetupError, match="cannot tell the broker"):
        revocation.tell_broker(tmp_path / "broker.pid")
