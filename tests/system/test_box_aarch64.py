"""The image for 64-bit Arm between an office and an internet: it enrols, protects, and the first scenes are right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omamori_lab.box import ENROLLED, FORWARDING, RELEASE
from omamori_lab.lab import Lab
from omamori_lab.scenes import choose, play
from omamori_lab.settings import LabSettings

pytestmark = [
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.timeout(3000),  # builds the image when it is not there yet
]
NAME = "aarch64-uefi"
SCENES = ("transparent", "virus", "dangerous-site", "block-list", "ips", "beacon")


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
    assert float(lab.box.await_line(FORWARDING, timeout_s=5)["uptime"]) < 60
    assert lab.box.shell("uname -m").output.strip() == "aarch64"
    assert lab.box.shell("systemctl --failed --no-legend --plain").output == ""


@pytest.mark.parametrize("name", SCENES)
def test_scene(lab: Lab, name: str) -> None:
    result = play(choose([name])[0], lab)
    wrong = [check for check in result.checks if not check.ok]
    assert result.error is None, result.error
    assert not wrong, "\n".join(f"{check.name}: expected {check.expected}, seen {check.seen}" for check in wrong)
