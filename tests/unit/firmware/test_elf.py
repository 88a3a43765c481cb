"""Which libraries a program needs is read from files of any processor, and only from whole ones."""

import contextlib
import platform
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_firmware.architecture import AARCH64, X86_64, architecture
from omamori_firmware.elf import libraries, needed
from omamori_firmware.errors import SetupError
from sim.elf_file import elf_file

ARM = AARCH64.elf_machine


def test_the_names_are_those_before_the_end_of_the_table() -> None:
    assert needed(elf_file(ARM, ["libc.so.6", "libm.so.6"]), machine=ARM, where="x") == ["libc.so.6", "libm.so.6"]
    assert needed(elf_file(ARM), machine=ARM, where="x") == []


def test_a_program_of_this_machine(tmp_path: Path) -> None:
    arch = architecture(platform.machine())
    found = shutil.which("sh")
    assert found
    assert "libc.so.6" in needed(Path(found).resolve().read_bytes(), machine=arch.elf_machine, where="sh")


def test_a_program_of_another_processor_is_refused() -> None:
    with pytest.raises(SetupError, match=r"/usr/sbin/x is not a program of the board's processor"):
        needed(elf_file(X86_64.elf_machine), machine=ARM, where="/usr/sbin/x")


@given(st.integers(0, 200), st.binary(max_size=64))
def test_a_cut_or_spoilt_file_is_refused_or_read_but_nothing_else(cut: int, noise: bytes) -> None:
    whole = elf_file(ARM, ["libc.so.6"])
    for data in (whole[:cut], noise, whole[:cut] + noise + whole[cut + len(noise) :]):
        with contextlib.suppress(SetupError):
            needed(data, machine=ARM, where="x")


def test_libraries_are_followed_and_have_to_be_there(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/aarch64-linux-gnu"
    place.mkdir(parents=True)
    (tmp_path / "program").write_bytes(elf_file(ARM, ["liba.so.1", "ld-linux-aarch64.so.1"]))
    (place / "liba.so.1").write_bytes(elf_file(ARM, ["libb.so.1", "liba.so.1"]))
    (place / "libb.so.1").write_bytes(elf_file(ARM, ["liba.so.1"]))
    found = libraries(tmp_path, ["/program"], machine=ARM, triplet=AARCH64.triplet)
    assert found == {f"/usr/lib/aarch64-linux-gnu/lib{name}.so.1" for name in "ab"}
    (place / "libb.so.1").unlink()
    with pytest.raises(SetupError, match=r"liba\.so\.1 needs libb\.so\.1"):
        libraries(tmp_path, ["/program"], machine=ARM, triplet=AARCH64.triplet)


def test_a_chain_of_libraries_without_end_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/aarch64-linux-gnu"
    place.mkdir(parents=True)
    for number in range(66):
        (place / f"lib{number}.so").write_bytes(elf_file(ARM, [f"lib{number + 1}.so"]))
    with pytest.raises(SetupError, match="more than 64"):
        libraries(tmp_path, ["/usr/lib/aarch64-linux-gnu/lib0.so"], machine=ARM, triplet=AARCH64.triplet)
