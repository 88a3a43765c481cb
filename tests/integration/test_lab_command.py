"""`omamori-lab run` with a real box, interrupted while it starts."""

import signal
import sys
from pathlib import Path

import pytest

from omamori_lab.cleaning import clean
from omamori_lab.journal import NETNS, read_leftovers
from omamori_lab.run import spawn
from omamori_lab.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.image, pytest.mark.timeout(1800)]


def test_ctrl_c_while_the_box_boots_leaves_nothing(tmp_path: Path) -> None:
    state, output = tmp_path / "lab", tmp_path / "output.txt"
    with output.open("wb") as log:
        program = [Path(sys.executable).parent / "omamori-lab", "run", "--once", "--page-port", "0", "--state", state]
        process = spawn(program, log=log)
    try:

        def booting() -> bool:
            assert process.poll() is None, output.read_text()
            return any(mark.name == "box" for mark in read_leftovers(state).processes)

        wait_for(booting, "the box booting", timeout_s=1500, every_s=0.2, detail=output.read_text)
        left = read_leftovers(state)
        assert len(left.namespaces) == 6
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, output.read_text()
        assert not [mark for mark in left.processes if mark.alive]
        assert not [name for name in left.namespaces if (NETNS / name).exists()]
        assert not clean(state)
    finally:
        process.kill()
        process.wait()
        clean(state)
