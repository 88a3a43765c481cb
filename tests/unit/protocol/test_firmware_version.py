"""Versions of the firmware: which texts are some, and which comes after which."""

import itertools

import pytest

from omamori_protocol.errors import MalformedError
from omamori_protocol.firmware_version import check_firmware_version, version_key
from omamori_protocol.vocabulary import FirmwareReason, FirmwareState

ASCENDING = ["0.0.0", "0.0.1-dev.0", "0.0.1", "1.4.0-dev.3", "1.4.0-dev.10", "1.4.0", "1.4.1", "1.10.0", "2.0.0"]


def test_versions_are_compared_as_numbers() -> None:
    for older, newer in itertools.pairwise(ASCENDING):
        assert version_key(older) < version_key(newer)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.3-dev", "1.2.3-dev.", "1.2.3+x", "1.02.3", " 1.2.3", "1.2.1000000"],
)
def test_text_that_is_no_version(text: str) -> None:
    with pytest.raises(MalformedError):
        check_firmware_version(text)


def test_longest_version_and_one_more() -> None:
    longest = "999999.999999.999999-dev.999999"
    assert check_firmware_version(longest) == longest
    with pytest.raises(MalformedError):
        check_firmware_version(longest + "9")


def test_numbers_on_the_wire_never_change() -> None:
    assert [item.word for item in FirmwareState] == [
        "idle",
        "downloading",
        "verified",
        "installing",
        "reboot-pending",
        "trying",
        "committed",
        "failed",
        "rolled-back",
    ]
    assert [item.value for item in FirmwareReason] == list(range(30))
