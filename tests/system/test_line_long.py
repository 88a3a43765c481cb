"""Minutes of emulation: the line is down until the cloud knows, and that is told from a power cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from omamori_lab.scenes.plugs import LineDownScene

if TYPE_CHECKING:
    from .conftest import Office

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.timeout(2400),
]


def test_the_line_is_down_until_the_cloud_knows(office: Office) -> None:
    result = office.play(LineDownScene())
    wrong = [check for check in result.checks if not check.ok]
    assert result.error is None, result.error
    assert not wrong, "\n".join(f"{check.name}: expected {check.expected}, seen {check.seen}" for check in wrong)
