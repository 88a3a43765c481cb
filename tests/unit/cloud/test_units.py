"""The service's units: systemd understands them, they come back always, and they may do little."""

from __future__ import annotations

import re
import shutil
import subprocess  # noqa: TID251 - asks systemd about the files
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[3] / "cloud/systemd"
SERVICES = ("omamori-cloud.service", "omamori-cloud-ingest@.service", "omamori-cloud-backup.service")
MOST_EXPOSURE = 20  # of 100, as `systemd-analyze security` counts; an ordinary service has 96


def settings(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def analyze() -> str:
    return shutil.which("systemd-analyze") or pytest.skip("systemd-analyze is not installed")


def test_systemd_understands_them(tmp_path: Path, analyze: str) -> None:
    program = tmp_path / "omamori-cloud"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    names = []
    for path in UNITS.iterdir():
        if path.suffix in {".service", ".target", ".timer"}:
            name = path.name.replace("@.", "@tokyo-1.")
            text = path.read_text().replace("/opt/omamori/bin/omamori-cloud", str(program))
            (tmp_path / name).write_text(text)
            names.append(tmp_path / name)
    assert len(names) == 5
    run = subprocess.run(
        [analyze, "verify", "--man=no", *names], capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in run.stderr.splitlines() if "omamori" in line]
    assert (run.returncode, said) == (0, []), run.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_they_may_do_little(name: str, analyze: str) -> None:
    line = [analyze, "security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", "--no-pager", UNITS / name]
    run = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    found = settings(name)
    assert found["User"] == ["omamori-cloud"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["ProtectSystem"] == ["strict"]


@pytest.mark.parametrize("name", SERVICES[:2])
def test_they_always_come_back(name: str) -> None:
    found = settings(name)
    assert found["Restart"] == ["always"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert int(found["TimeoutStopSec"][0]) > 10  # the daemon waits so long for its parts


def test_no_secret_stands_on_a_command_line() -> None:
    for name in SERVICES:
        words = " ".join(settings(name)["ExecStart"])
        assert not re.search(r"password|secret|\.key|postgresql://", words)
