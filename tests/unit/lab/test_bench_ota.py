"""What the bench of firmware updates stands on: which packages are older, what a process took, a line that is cut."""

from __future__ import annotations

import ssl
import sys
import urllib.request
from pathlib import Path

import pytest

from omamori_firmware.lockfile import Package
from omamori_lab.bench_ota_server import CuttingServer
from omamori_lab.errors import SetupError
from omamori_lab.older_packages import older_lock
from omamori_lab.peak_memory import command, read_spent
from omamori_lab.run import run
from sim.pki import Authority


def record(name: str, version: str, depends: str = "") -> dict[str, str]:
    return {"Package": name, "Version": version, "Architecture": "amd64", "SHA256": f"{len(version):064x}"} | (
        {"Depends": depends} if depends else {}
    )


def package(name: str, version: str) -> Package:
    return Package(name, version, "amd64", "f" * 64)


LOCK = [
    package("libc6", "2.41-12"),
    package("linux-image-6.12.117+deb13-amd64", "6.12.117-1"),
    package("linux-image-amd64", "6.12.117-1"),
    package("openssl", "3.5.7-1~deb13u3"),
]
RECORDS = [
    record("libc6", "2.41-12"),
    record("libc6", "2.42-1"),
    record("linux-image-6.12.107+deb13-amd64", "6.12.107-1"),
    record("linux-image-6.12.116+deb13-amd64", "6.12.116-1"),
    record("linux-image-6.12.117+deb13-amd64", "6.12.117-1"),
    record("linux-image-amd64", "6.12.107-1", "linux-image-6.12.107+deb13-amd64 (= 6.12.107-1)"),
    record("linux-image-amd64", "6.12.117-1", "linux-image-6.12.117+deb13-amd64 (= 6.12.117-1)"),
    record("openssl", "3.5.5-1"),
    record("openssl", "3.5.7-1~deb13u2"),
    record("openssl", "3.5.7-1~deb13u3"),
]


def versions(packages: list[Package]) -> dict[str, str]:
    return {item.name: item.version for item in packages}


def test_the_next_older_version_of_each_package() -> None:
    found = versions(older_lock(LOCK, RECORDS, kernel=False, userland=True))
    assert found == versions(LOCK) | {"openssl": "3.5.7-1~deb13u2"}


def test_an_older_kernel_is_the_one_that_the_older_meta_package_names() -> None:
    found = older_lock(LOCK, RECORDS, kernel=True, userland=False)
    assert versions(found) == {
        "libc6": "2.41-12",
        "linux-image-6.12.107+deb13-amd64": "6.12.107-1",
        "linux-image-amd64": "6.12.107-1",
        "openssl": "3.5.7-1~deb13u3",
    }
    assert found == sorted(found)


def test_without_an_older_kernel_nothing_is_measured() -> None:
    with pytest.raises(SetupError, match="no older kernel"):
        older_lock(LOCK, RECORDS[-3:], kernel=True, userland=True)


def test_what_a_process_took(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    assert read_spent(notes) == []
    large = "x = bytearray(64 << 20); x[::4096] = b'x' * len(x[::4096])"
    for code, status in ((large, 0), ("import sys; sys.exit(7)", 7)):
        done = run(command(notes, [sys.executable, "-c", code]), timeout_s=60, check=False)
        assert done.exit_code == status
    first, second = read_spent(notes)
    assert 64 << 20 < first.peak_bytes < 160 << 20
    assert second.peak_bytes < 48 << 20, "not what another one took"


def test_every_connection_is_cut(tmp_path: Path) -> None:
    authority = Authority("service ca")
    authority.issue("localhost", client=False, names=("localhost",)).write(tmp_path / "tls.key", tmp_path / "tls.crt")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    body = bytes(range(256)) * 1024
    (tmp_path / "file").write_bytes(body)
    server = CuttingServer(tmp_path / "file", tmp_path, 100_000)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    got = b""
    with server.running():
        while len(got) < len(body):
            request = urllib.request.Request(server.url, headers={"Range": f"bytes={len(got)}-{len(body) - 1}"})
            with urllib.request.urlopen(request, context=context, timeout=10) as response:
                assert response.status == 206
                while chunk := response.read1(65536):
                    got += chunk
    assert got == body
    assert (server.sent, server.cuts) == (len(body), 2)
