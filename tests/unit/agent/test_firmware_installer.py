"""The slots over RAUC's D-Bus interface: a real bus, the real `busctl`, a service with RAUC's names and types."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.firmware.errors import UpdateInterruptedError, UpdateRefusedError, UpdateWaitsError
from omamori_agent.firmware.installer import RAUCInstaller
from omamori_agent.run import CommandResult
from omamori_protocol.vocabulary import FirmwareReason
from sim.firmware_box import LIMITS, NEVER
from sim.rauc import PrivateBus, RAUCService

BUNDLE = Path("/var/lib/omamori/firmware/bundle.raucb")
needs_bus = pytest.mark.skipif(
    not shutil.which("dbus-daemon") or not shutil.which("busctl"), reason="needs dbus-daemon and busctl"
)


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBus]:
    with PrivateBus(tmp_path_factory.mktemp("bus")) as made:
        yield made


@pytest.fixture
def service(bus: PrivateBus) -> Iterator[RAUCService]:
    with RAUCService(bus) as made:
        yield made


@pytest.fixture
def installer(bus: PrivateBus) -> RAUCInstaller:
    return RAUCInstaller(dataclasses.replace(LIMITS, call_timeout_s=20.0), address=bus.address)


@needs_bus
def test_install_waits_for_its_end(service: RAUCService, installer: RAUCInstaller) -> None:
    installer.install(BUNDLE, NEVER)
    assert service.installs == [(str(BUNDLE), {})]
    assert service.operation == "idle"
    assert service.marks == []


@needs_bus
def test_install_that_an_earlier_run_began(service: RAUCService, installer: RAUCInstaller) -> None:
    service.operation, service.next_error = "installing", ""
    installer.install(BUNDLE, NEVER)
    assert len(service.installs) == 1


@needs_bus
@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        # As RAUC 1.13 says it, see tests/integration/image/test_image_update.py.
        ("signature verification failed: Verify error: unable to get local issuer certificate", True),
        ("Version mismatch: Expected at least '0.1.0' but bundle manifest has '0.0.9'", True),
        ("Compatible mismatch: Expected 'omamori-x86_64-uefi' but bundle manifest has 'omamori-other'", True),
        ("Bundle format 'plain' not allowed", True),
        ("Invalid bundle format: Signature size (5208776131293826639) exceeds bundle size", True),
        ("Invalid bundle format: Signature data is no valid CMS", True),
        ("Invalid bundle format: Failed to seek to end of bundle: Error seeking in file: Invalid argument", True),
        ("Failed mounting bundle: Unexpected dm-verity status 'C' (instead of '\\0')", False),
        ("Failed to read signature from bundle: Input/output error", False),
        ("Failed updating slot root.1: failed to copy data: No space left on device", False),
        ("Failed updating slot root.1: Input/output error", False),
    ],
)
def test_install_that_fails(service: RAUCService, installer: RAUCInstaller, error: str, is_final: bool) -> None:
    service.next_error = error
    kind = UpdateRefusedError if is_final else UpdateWaitsError
    with pytest.raises(kind, match="RAUC:") as caught:
        installer.install(BUNDLE, NEVER)
    expected = FirmwareReason.BUNDLE_REFUSED if is_final else FirmwareReason.INSTALL_FAILED
    assert caught.value.reason is expected


@needs_bus
def test_stop_while_it_installs(service: RAUCService, installer: RAUCInstaller) -> None:
    service.polls_per_install = 1_000_000
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(UpdateInterruptedError):
        installer.install(BUNDLE, stop)
    timer.join()


@needs_bus
def test_install_that_never_ends(service: RAUCService, bus: PrivateBus) -> None:
    service.polls_per_install = 1_000_000
    impatient = RAUCInstaller(
        dataclasses.replace(LIMITS, install_timeout_s=0.2, call_timeout_s=20.0), address=bus.address
    )
    with pytest.raises(UpdateWaitsError, match="did not come to an end"):
        impatient.install(BUNDLE, NEVER)


@needs_bus
def test_marks(service: RAUCService, installer: RAUCInstaller) -> None:
    installer.activate()
    installer.deactivate()
    installer.commit()
    installer.reject()
    assert service.marks == [("active", "other"), ("active", "booted"), ("good", "booted"), ("bad", "booted")]
    service.refused_marks.add("active")
    with pytest.raises(UpdateWaitsError, match="mark active other") as caught:
        installer.activate()
    assert caught.value.reason is FirmwareReason.ACTIVATION_FAILED


@needs_bus
def test_no_service_on_the_bus(bus: PrivateBus, installer: RAUCInstaller) -> None:
    with pytest.raises(UpdateWaitsError, match="RAUC:"):
        installer.install(BUNDLE, NEVER)


def test_no_bus_at_all(tmp_path: Path) -> None:
    nobody = RAUCInstaller(LIMITS, address=f"unix:path={tmp_path}/none")
    with pytest.raises(UpdateWaitsError):
        nobody.commit()


@pytest.mark.parametrize("output", ["nonsense", "[]", '{"type":"s"}', '{"type":"u","data":5}', "[" * 60_000])
def test_answer_that_is_not_understood(output: str) -> None:
    odd = RAUCInstaller(LIMITS, run=lambda _line: CommandResult(0, output))
    with pytest.raises(UpdateWaitsError):
        odd.install(BUNDLE, NEVER)
