"""Mirrors come from the machine's own apt configuration, in both of its formats."""

from pathlib import Path

import pytest

from omamori_firmware.errors import SetupError
from omamori_firmware.mirrors import forwarded_options, host_mirrors, parse_deb822, parse_one_line

ONE_LINE = """\
# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian/ bookworm main contrib # ours
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian-security bookworm-security main
"""
DEB822 = """\
Types: deb
# a comment
URIs: http://one.example/debian/
 http://two.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 URIs: not a field

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""


def machine(tmp_path: Path, *, lists: str = "", sources: str = "") -> tuple[Path, Path]:
    apt = tmp_path / "apt"
    (apt / "sources.list.d").mkdir(parents=True)
    (apt / "sources.list").write_text(lists)
    (apt / "sources.list.d" / "debian.sources").write_text(sources)
    (apt / "sources.list.d" / "readme.txt").write_text("deb http://not.example/ bookworm main")
    os_release = tmp_path / "os-release"
    os_release.write_text('NAME="Debian"\nVERSION_CODENAME=bookworm\n')
    return apt, os_release


def test_one_line_sources() -> None:
    found = list(parse_one_line(ONE_LINE))
    assert [(source.uri, source.suite) for source in found] == [
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian-security", "bookworm-security"),
    ]
    assert found[0].components == ("main", "contrib")


def test_deb822_sources_with_several_addresses_and_suites() -> None:
    found = [(source.uri, source.suite) for source in parse_deb822(DEB822)]
    assert found == [
        ("http://one.example/debian", "bookworm"),
        ("http://one.example/debian", "bookworm-updates"),
        ("http://two.example/debian", "bookworm"),
        ("http://two.example/debian", "bookworm-updates"),
    ]


def test_the_image_uses_the_machines_mirrors(tmp_path: Path) -> None:
    mirrors = host_mirrors(*machine(tmp_path, lists=ONE_LINE))
    assert mirrors.sources_list("trixie").splitlines() == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian trixie-backports main",
        "deb http://mirror.example/debian-security trixie-security main",
    ]


def test_a_machine_without_security_mirror(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="bookworm-security") as caught:
        host_mirrors(*machine(tmp_path, sources=DEB822))
    assert caught.value.hint


def test_a_machine_of_unknown_release(tmp_path: Path) -> None:
    apt, _ = machine(tmp_path, lists=ONE_LINE)
    with pytest.raises(SetupError, match="release is unknown"):
        host_mirrors(apt, tmp_path / "absent")


def test_settings_of_a_frozen_mirror_are_kept() -> None:
    dump = (
        'Acquire "";\nAcquire::Check-Valid-Until "false";\nAcquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::http::Proxy::deb.example "DIRECT";\nAPT::Install-Recommends "true";\n'
        'Acquire::cdrom::mount "/media";\nDPkg::Post-Invoke:: "rm -f /x";\n'
    )
    assert forwarded_options(dump) == [
        'Acquire::Check-Valid-Until "false"',
        'Acquire::http::Proxy "http://proxy.example:3128"',
        'Acquire::http::Proxy::deb.example "DIRECT"',
    ]
