"""The gate and its programs are the same bytes wherever they are compiled."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from omamori_firmware.dataplane.build import LOADER, OBJECT, WATCH, build_gate
from omamori_firmware.errors import SetupError, ToolError
from omamori_firmware.recipe import source_tree


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the sources somewhere else."""
    if shutil.which("clang") is None or shutil.which("gcc") is None:
        pytest.skip("no compilers")
    copy = tmp_path / "another" / "place"
    shutil.copytree(source_tree().gate, copy)
    return copy


def test_same_bytes_from_another_directory(sources: Path, tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    build_gate(tmp_path / "here")
    build_gate(tmp_path / "there", source=sources)
    for name in (OBJECT, LOADER, WATCH):
        built = (tmp_path / "here" / name).read_bytes()
        assert built == (tmp_path / "there" / name).read_bytes()
        assert str(source_tree().top).encode() not in built
    for name in (LOADER, WATCH):
        assert (tmp_path / "here" / name).stat().st_mode & 0o111


def test_source_with_a_warning_is_not_built(sources: Path, tmp_path: Path) -> None:
    program = sources / "gate.bpf.c"
    program.write_text(program.read_text() + "static int unused(void) { return 0; }\n")
    with pytest.raises(ToolError, match="unused"):
        build_gate(tmp_path, source=sources)


def test_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="not installed"):
        build_gate(tmp_path)
