"""Links are replaced whole, reads are bounded."""

import os
from pathlib import Path

import pytest

from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded, replace_link
from sim.power import PowerCut, count_steps, power_cut_before


def test_link_is_replaced_at_every_power_cut_or_not_at_all(tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to("store/1")
    steps = count_steps(lambda: replace_link(tmp_path / "other", Path("store/2")))
    for step in range(1, steps + 1):
        replace_link(link, Path("store/1"))
        with pytest.raises(PowerCut), power_cut_before(step):
            replace_link(link, Path("store/2"))
        assert str(link.readlink()) in {"store/1", "store/2"}
    replace_link(link, Path("store/2"))
    assert str(link.readlink()) == "store/2"


def test_read_of_exactly_the_bound_and_one_byte_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_bounded(path, 10) == b"x" * 10
    with pytest.raises(SetupError, match="more than 9 bytes"):
        read_bounded(path, 9)


def test_read_of_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "absent", 10)
    with pytest.raises(SetupError):
        read_bounded(tmp_path, 10)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SetupError, match="regular"):
        read_bounded(tmp_path / "fifo", 10)  # and does not wait for a writer
