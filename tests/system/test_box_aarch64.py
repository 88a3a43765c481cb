"""The image for 64-bit Arm between an office and an internet: it enrols, protects, and the scenes are right.

Scenes can be chosen: `-k 'virus or power-cut'`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omamori_lab.box import ENROLLED, FORWARDING, RELEASE
from omamori_lab.lab import Lab
from omamori_lab.scenes import SCENES, Scene, play
from omamori_lab.settings import LabSettings

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.timeout(3000),  # builds the image when it is not there yet
]
NAME = "aarch64-uefi"
_SHELL_TIMEOUT_S = 120.0  # emulated, and perhaps beside other work


@pytest.fixture
def port() -> None:
    """Leave the session's lab alone, whose console is another box's."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    image = LabSettings.image_directory(NAME, "dev")
    made = Lab(LabSettings(state=tmp_path_factory.mktemp("arm"), page_port=0, board=NAME, image=image))
    with made.running():
        made.boot()
        yield made


def test_it_starts_by_itself_and_protects(lab: Lab) -> None:
    assert lab.versions()["board"] == NAME
    assert lab.box.await_line(ENROLLED, timeout_s=5)["device"] == lab.serial
    assert lab.box.await_line(RELEASE, timeout_s=5)["board"] == NAME
    assert float(lab.box.await_line(FORWARDING, timeout_s=5)["uptime"]) < 30
    assert lab.box.shell("uname -m", timeout_s=_SHELL_TIMEOUT_S).output == "aarch64"


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: str(scene.name))
def test_scene(lab: Lab, scene: Scene) -> None:
    result = play(scene, lab)
    wrong = [check for check in result.checks if not check.ok]
    assert result.error is None, result.error
    assert not wrong, "\n".join(f"{check.name}: expected {check.expected}, seen {check.seen}" for check in wrong)


def test_no_unit_has_failed(lab: Lab) -> None:
    lab.box.shell("systemctl is-system-running --wait", timeout_s=_SHELL_TIMEOUT_S)
    assert lab.box.shell("systemctl --failed --no-legend --plain").output == ""
    assert lab.box.shell("journalctl --dmesg --no-pager --quiet --grep 'I/O error' | head -3").output == ""
