"""What a fleet's site is made from: names, certificates, limits of this machine."""

from __future__ import annotations

import os
import resource
import ssl
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from omamori_lab import fleet_site
from omamori_lab.errors import SetupError
from omamori_lab.fleet_site import BOXES_PER_PROCESS, device_name
from omamori_lab.process_usage import usage
from omamori_protocol.device import check_device_id


@pytest.mark.parametrize("number", [1, 10_000, 999_999])
def test_names_are_device_ids(number: int) -> None:
    assert check_device_id(device_name(number)) == device_name(number)


def test_each_box_has_its_own_key_and_a_certificate_in_its_name(tmp_path: Path) -> None:
    devices = [device_name(1), device_name(2)]
    expires_s = fleet_site._make_certificates(tmp_path, devices)
    assert expires_s > time.time() + 80 * 86_400
    keys = set()
    for device in devices:
        key, certificate = tmp_path / "boxes" / f"{device}.key", tmp_path / "boxes" / f"{device}.crt"
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
        subject = x509.load_pem_x509_certificate(certificate.read_bytes()).subject
        assert [name.value for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [device]
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        keys.add(key.read_bytes())
    assert len(keys) == 2
    # Services trust services only; the boxes' listener takes both.
    assert len(x509.load_pem_x509_certificates((tmp_path / "service-ca.pem").read_bytes())) == 1
    assert len(x509.load_pem_x509_certificates((tmp_path / "all.pem").read_bytes())) == 2


def test_more_boxes_than_open_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[tuple[int, int]] = []

    def refuse(_what: int, limits: tuple[int, int]) -> None:
        wanted.append(limits)
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    fleet_site._allow_descriptors(10)  # enough
    assert not wanted
    with pytest.raises(SetupError, match="open files"):
        fleet_site._allow_descriptors(10_000)
    assert wanted[0][0] >= 5 * BOXES_PER_PROCESS


def test_what_a_process_used() -> None:
    before = usage(os.getpid())
    deadline = time.monotonic() + 20
    while usage(os.getpid()).cpu_s <= before.cpu_s:
        assert time.monotonic() < deadline
    assert before.resident_bytes > 1 << 20
    assert usage(2**22 + 1).cpu_s == 0
