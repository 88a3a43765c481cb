"""The fast gate: the supervisor's own tests under MicroPython 1.25 and micropython-lib's `unittest`, without the chip.

The same files run on the emulated microcontroller in tests/rig.
"""

import json
import shutil
import subprocess  # noqa: TID251 - a test may start what it tests
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.errors import SetupError
from omamori_firmware.recipe import source_tree
from omamori_firmware.supervisor import obtain_test_runtime

TESTS = source_tree().top / "hw" / "supervisor" / "tests"
MODULES = sorted(path.stem for path in TESTS.glob("test_*.py"))


@pytest.fixture(scope="module")
def runtime() -> tuple[Path, Path]:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    try:
        return obtain_test_runtime(source_tree(), Cache(default_directory()))
    except SetupError as err:
        pytest.skip(str(err))


def play(runtime: tuple[Path, Path], place: Path, *modules: str) -> tuple[dict[str, Any], str]:
    line = ["node", str(place / "run.mjs"), *map(str, runtime), *modules]
    done = subprocess.run(line, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result, done.stdout


@pytest.fixture(scope="module")
def played(runtime: tuple[Path, Path]) -> tuple[dict[str, Any], str]:
    return play(runtime, TESTS, *MODULES)


def test_there_are_tests_for_every_module_without_hardware() -> None:
    firmware = {path.stem for path in (TESTS.parent / "lib" / "supervisor").glob("*.py")}
    assert {f"test_{name}" for name in firmware - {"__init__", "app", "pins", "words"}} == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_under_micropython(played: tuple[dict[str, Any], str], module: str) -> None:
    result, output = played
    assert "MicroPython v1.25.0" in result["version"]
    tests, failures = result["modules"][module]
    assert failures == 0, output
    assert tests == (TESTS / f"{module}.py").read_text().count("    def test_")


def test_a_failing_test_is_seen(runtime: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(TESTS.parent / "lib", tmp_path / "lib")
    shutil.copytree(TESTS, tmp_path / "tests")
    text = (TESTS / "test_inputs.py").read_text()
    (tmp_path / "tests" / "test_inputs.py").write_text(text.replace('(430, "short")', '(431, "short")', 1))
    result, _ = play(runtime, tmp_path / "tests", "test_inputs")
    assert result["modules"]["test_inputs"][1] == 1
