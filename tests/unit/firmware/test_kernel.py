"""Modules come with what they need."""

import pytest

from omamori_firmware.errors import SetupError
from omamori_firmware.kernel import closure, module_name, parse_dependencies, parse_soft_dependencies

DEP = """\
kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko.xz
kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko.xz
kernel/net/llc/llc.ko.xz:
kernel/lib/libcrc32c.ko.xz:
kernel/arch/crc32c-intel.ko.xz:
"""
SOFT = "# comment\nsoftdep libcrc32c pre: crc32c-intel\nsoftdep llc post: missing\n"


def names(*wanted: str) -> set[str]:
    paths = closure(wanted, parse_dependencies(DEP), parse_soft_dependencies(SOFT), {"virtio_pci"})
    return {module_name(path) for path in paths}


def test_a_module_brings_everything_it_needs() -> None:
    assert names("bridge") == {"bridge", "stp", "llc"}


def test_wishes_are_granted_where_possible() -> None:
    assert names("libcrc32c") == {"libcrc32c", "crc32c_intel"}


def test_what_is_inside_the_kernel_needs_no_file() -> None:
    assert names("virtio_pci") == set()


def test_dash_and_underscore_are_the_same() -> None:
    assert names("crc32c-intel") == names("crc32c_intel") == {"crc32c_intel"}


def test_an_unknown_module_stops_the_build() -> None:
    with pytest.raises(SetupError, match="no module gone, lost"):
        names("gone", "bridge", "lost")
