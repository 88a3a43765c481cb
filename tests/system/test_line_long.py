"""Minutes of emulation: cables out or in wrong plugs, a line that gives no address or wants a login; commands.

The box says so by its code; where it was away, the cloud knows why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from omamori_lab.scenes import Scene
from omamori_lab.scenes.commands import CommandsScene
from omamori_lab.scenes.plugs import LineDownScene, PlugsScene
from omamori_lab.scenes.wrong_cables import CaptiveScene, LoopScene, NoDhcpScene, SwappedScene

if TYPE_CHECKING:
    from .conftest import Office

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.timeout(2400),
]


SCENES = [
    PlugsScene(),
    LineDownScene(),
    CommandsScene(),
    SwappedScene(),
    CaptiveScene(),
    LoopScene(),
    NoDhcpScene(),
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: str(scene.name))
def test_scene(office: Office, scene: Scene) -> None:
    result = office.play(scene)
    wrong = [check for check in result.checks if not check.ok]
    assert result.error is None, result.error
    assert not wrong, "\n".join(f"{check.name}: expected {check.expected}, seen {check.seen}" for check in wrong)
