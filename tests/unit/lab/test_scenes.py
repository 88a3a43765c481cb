from pathlib import Path

import pytest

from omamori_lab.errors import BoxError, SetupError
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.scenes import SCENES, Scene, Title, choose, play
from omamori_lab.settings import LabSettings


class Broken:
    name = "broken"
    title = Title("壊れた場面", "a broken scene")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        checks.equal("before", 1, 1)
        raise BoxError("the box ended")


def test_names_are_unique_and_titles_are_in_both_languages() -> None:
    assert len({scene.name for scene in SCENES}) == len(SCENES) == 21
    assert all(scene.title.ja != scene.title.en for scene in SCENES)


def test_scenes_are_chosen_in_their_own_order() -> None:
    assert [scene.name for scene in choose(["virus", "transparent"])] == ["transparent", "virus"]
    assert choose([]) == SCENES


def test_an_unknown_scene() -> None:
    with pytest.raises(SetupError, match="no such scene: dragons") as caught:
        choose(["virus", "dragons"])
    assert caught.value.hint == "see: omamori-lab list"


def test_an_error_of_the_lab_is_a_failed_scene(tmp_path: Path) -> None:
    scene: Scene = Broken()
    result = play(scene, Lab(LabSettings(state=tmp_path)))
    assert (result.ok, result.error) == (False, "the box ended")
    assert [check.name for check in result.checks] == ["before"]


def test_a_lab_that_does_not_run_says_so(tmp_path: Path) -> None:
    lab = Lab(LabSettings(state=tmp_path))
    with pytest.raises(SetupError, match="the lab is not running"):
        lab.portal.boxes()
    with pytest.raises(SetupError, match="no box"):
        _ = lab.box
