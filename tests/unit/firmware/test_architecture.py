"""What differs between processors: values only, and each board's are there."""

from pathlib import Path

import pytest

from omamori_firmware import disk, emulation
from omamori_firmware.architecture import AARCH64, X86_64, architecture
from omamori_firmware.cache import Cache
from omamori_firmware.emulation import registration
from omamori_firmware.errors import SetupError, ToolError
from omamori_firmware.qemu import MachineConfig, arguments
from omamori_firmware.recipe import source_tree
from omamori_firmware.tools import ToolsTree
from omamori_hw.board import list_boards, load_board

TREE = source_tree()


@pytest.mark.parametrize("name", list_boards(TREE.boards))
def test_everything_a_board_is_made_of_is_locked(name: str) -> None:
    board = load_board(TREE.boards / name)
    arch = architecture(board.platform.arch)
    lists = {arch.root_lock, arch.target_tree, arch.machine_tree, "tools"}
    for item in lists:
        assert TREE.lock(item).is_file(), item
    for item in lists - {arch.root_lock}:
        TREE.package_list(item)
    locked = TREE.lock(arch.root_lock).read_text()
    assert f" {arch.debian} " in locked
    assert board.platform.kernel_package + " " in locked
    assert board.platform.kernel_package.endswith(arch.debian)


def test_a_lock_names_no_package_of_another_processor() -> None:
    for arch, other in ((X86_64, AARCH64), (AARCH64, X86_64)):
        assert f" {other.debian} " not in TREE.lock(arch.root_lock).read_text()
    assert f" {X86_64.debian} " not in TREE.lock(AARCH64.target_tree).read_text()


def test_a_processor_nobody_knows() -> None:
    with pytest.raises(SetupError, match="riscv64"):
        architecture("riscv64")


def test_root_partitions_are_typed_for_their_processor() -> None:
    sizes = load_board(TREE.boards / "aarch64-uefi").disk
    for arch in (X86_64, AARCH64):
        kinds = {item.name: item.kind for item in disk.layout(sizes, arch)}
        assert kinds["root_a"] == kinds["root_b"] == arch.root_type
        assert kinds["verity_a"] == kinds["verity_b"] == arch.verity_type
    assert X86_64.root_type != AARCH64.root_type


def test_the_machine_is_the_processors(tmp_path: Path) -> None:
    config = MachineConfig(tmp_path / "disk", tmp_path / "vars", tmp_path, model=AARCH64.model)
    line = arguments(config)
    assert line[0] == "qemu-system-aarch64"
    assert line[line.index("-machine") + 1].startswith("virt,")
    assert not any("smm" in word or "ICH9" in word for word in line)
    assert any(word.endswith("AAVMF_CODE.secboot.fd") for word in line)
    usual = arguments(MachineConfig(tmp_path / "disk", tmp_path / "vars", tmp_path))
    assert usual[usual.index("-machine") + 1] == "q35,smm=on,pflash0=code,pflash1=vars"


def test_a_supervisor_only_where_boards_have_one(tmp_path: Path) -> None:
    place = tmp_path / "line"
    line = arguments(MachineConfig(tmp_path / "disk", tmp_path / "vars", tmp_path, supervisor=place))
    assert any(word.startswith("isa-serial,chardev=supervisor,") for word in line)
    with pytest.raises(SetupError, match="no board with a supervisor"):
        MachineConfig(tmp_path / "disk", tmp_path / "vars", tmp_path, supervisor=place, model=AARCH64.model)


def test_the_kernel_is_told_programs_of_the_processor_and_no_others() -> None:
    line = registration("omamori-aarch64", AARCH64.elf_machine, Path("/cache/qemu-aarch64"))
    fields = line.decode().split(":")
    assert (fields[1], fields[2], fields[3], fields[6], fields[7]) == (
        *("omamori-aarch64", "M", ""),
        *("/cache/qemu-aarch64", "F"),
    )
    magic, mask = (bytes.fromhex(field.replace("\\x", "")) for field in fields[4:6])

    def is_taken(program: bytes) -> bool:
        return all(byte & bits == wanted & bits for byte, wanted, bits in zip(program, magic, mask, strict=True))

    def header(machine: int, kind: int, abi: int = 0) -> bytes:
        return b"\x7fELF\x02\x01\x01" + bytes([abi]) + bytes(8) + bytes([kind, 0, machine, 0])

    assert is_taken(header(183, 2))
    assert is_taken(header(183, 3, abi=3))
    assert not is_taken(header(62, 2))
    assert not is_taken(header(183, 1))
    for path in ("/a:b/qemu", "/" + "x" * 1919):
        with pytest.raises(SetupError, match="takes no emulator"):
            registration("x", 183, Path(path))


def test_a_kernel_without_the_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise ToolError("mount", 32, "unknown filesystem type")

    monkeypatch.setattr(emulation, "run", refuse)
    cross = ToolsTree(tmp_path / "cross", "key", ())
    with (
        pytest.raises(SetupError, match="programs of another processor cannot be run") as caught,
        emulation.emulation(AARCH64, cross, Cache(tmp_path / "cache")),
    ):
        pass
    assert caught.value.hint is not None
    assert "CONFIG_BINFMT_MISC" in caught.value.hint
    with emulation.emulation(X86_64, None, Cache(tmp_path / "cache")):
        pass  # nothing was asked of the kernel
