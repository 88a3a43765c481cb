"""A test that fails and whose cleanup hangs does not hold up the run; the next test is still run."""

from __future__ import annotations

import os
import shutil
import subprocess  # noqa: TID251 - a test run of its own
import sys
from pathlib import Path

import pytest

_TESTS = """
import threading

import pytest


@pytest.fixture
def hanging():
    yield
    threading.Event().wait()


def test_that_fails(hanging):
    raise AssertionError("first")


def test_after_it():
    pass
"""


@pytest.mark.timeout(60)
def test_cleanup_of_a_failed_test_is_bounded(tmp_path: Path) -> None:
    place = tmp_path / "tests" / "unit"
    place.mkdir(parents=True)
    (place / "test_made.py").write_text(_TESTS)
    root = Path(__file__).resolve().parents[2]
    shutil.copy(root / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {root / 'tests'}\ntimeout = 50\n")
    env = {**os.environ, "OMAMORI_CLEANUP_S": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "pytest_timeout",
            "-p",
            "no:cacheprovider",
            "--import-mode=importlib",
            place,
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "1 failed, 1 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "the cleanup did not end within 1 s" in ran.stdout
    assert "Captured stderr teardown" in ran.stdout  # where each thread was
