"""The faults of the long tests still fit the sources they are put into, and are what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from omamori_agent.migration.step import Step
from omamori_firmware.recipe import source_tree
from system.bad_images import BAD_IMAGES, BadImage, slug

FILES = ("firmware/recipe/initrd/init", "agent/omamori_agent/cli.py", "agent/omamori_agent/migration/steps")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        source, target = source_tree().top / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    return tmp_path


@pytest.mark.parametrize("image", BAD_IMAGES, ids=lambda image: slug(image.name))
def test_fault_changes_one_file(tree: Path, image: BadImage) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    image.spoil(tree)
    after = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert len([path for path, data in after.items() if before.get(path) != data]) == 1


def test_failing_step_is_one_that_the_agent_would_take(tree: Path) -> None:
    next(image for image in BAD_IMAGES if "migration-failed" in image.reasons).spoil(tree)
    names: dict[str, object] = {}
    exec((tree / "agent/omamori_agent/migration/steps/step_0002.py").read_text(), names)
    step = Step(2, names["PATHS"], names["apply"])  # type: ignore[arg-type]
    (tree / "desired").mkdir()
    (tree / "desired/document.cose").write_text("x")
    with pytest.raises(KeyError):
        step.apply(tree)
    assert not (tree / "desired/document.cose").exists()
