"""Small decisions of the build: units, command line, disk sizes, recipes, provisioning."""

import json
from pathlib import Path

import pytest

from omamori_firmware import disk, factory, gpt
from omamori_firmware.errors import SetupError
from omamori_firmware.factory import MAX_PROVISION_BYTES
from omamori_firmware.recipe import SourceTree, source_tree
from omamori_firmware.rootfs import install_sections
from omamori_firmware.rootimage import VerityRoot
from omamori_firmware.uki import command_line
from omamori_hw.board import load_board

BOARD = load_board(source_tree().boards / "x86_64-uefi")


def test_what_a_unit_wants_to_be_enabled_for() -> None:
    text = (
        "[Unit]\nWantedBy=no.target\n[Install]\nWantedBy=multi-user.target sysinit.target\nRequiredBy = a.target\n"
        "Alias=x.service\n[Service]\nWantedBy=no.target\n"
    )
    assert install_sections(text) == [
        ("wants", "multi-user.target"),
        ("wants", "sysinit.target"),
        ("requires", "a.target"),
    ]


def test_the_command_line_names_the_root_by_hash_and_panics_into_a_restart() -> None:
    words = command_line(BOARD, VerityRoot("ab" * 32, "cd" * 32, 1234), version="1.2", flavour="dev").split()
    assert f"roothash={'ab' * 32}" in words
    assert "omamori.blocks=1234" in words
    assert {"oops=panic", "panic=10", "net.ifnames=0", "systemd.machine_id=firmware"} <= set(words)
    assert [word for word in words if word.startswith("console=")] == ["console=ttyS0,115200"]
    assert not any(word.startswith(("init=", "systemd.debug", "rd.")) for word in words)


def test_a_root_larger_than_its_partition(tmp_path: Path) -> None:
    large = tmp_path / "root.erofs"
    with large.open("wb") as stream:
        stream.truncate(BOARD.disk.root_mib * gpt.MIB + 1)
    with pytest.raises(SetupError, match="root_a"):
        disk.write_disk(tmp_path / "disk.raw", BOARD.disk, {"root_a": large})


def test_parts_land_where_the_table_says(tmp_path: Path) -> None:
    part = tmp_path / "p"
    part.write_bytes(b"verity")
    disk.write_disk(tmp_path / "disk.raw", BOARD.disk, {"verity_b": part})
    with (tmp_path / "disk.raw").open("rb") as stream:
        stream.seek(disk.find(BOARD.disk, "verity_b").start)
        assert stream.read(6) == b"verity"
    assert (tmp_path / "disk.raw").stat().st_size == BOARD.disk.total_mib * gpt.MIB
    assert (tmp_path / "disk.raw").stat().st_blocks * 512 < 1 << 20


def test_the_recipes_of_this_repository_can_be_read() -> None:
    for name in ("root", "tools"):
        assert source_tree().package_list(name).suite == "trixie"


def test_a_recipe_with_an_unknown_key(tmp_path: Path) -> None:
    recipe = tmp_path / "firmware" / "recipe"
    recipe.mkdir(parents=True)
    (recipe / "root.toml").write_text('suite = "x"\npackages = []\nfrom_backports = []\npath_exclude = []\nshell = 1\n')
    with pytest.raises(SetupError, match="not a package list"):
        SourceTree(tmp_path).package_list("root")


def test_numbers_of_accounts_agree_wherever_they_are_written() -> None:
    overlay = source_tree().recipe / "overlay" / "common" / "usr" / "lib"
    users = (overlay / "sysusers.d" / "omamori.conf").read_text()
    mount = (overlay / "systemd" / "system" / "run-omamori-eve.mount").read_text()
    assert "g omamori          960" in users
    assert "u omamori-engine   962:960" in users
    assert "uid=962,gid=960" in mount
    assert factory._OMAMORI_GROUP == 960


def test_the_image_carries_exactly_three_packages_of_ours() -> None:
    names = [path.name for path in source_tree().device_packages]
    assert names == ["omamori_protocol", "omamori_hw", "omamori_agent"]


def provision(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "provision.json"
    path.write_text(text)
    return path


def test_provisioning_of_exactly_the_limit(tmp_path: Path) -> None:
    text = json.dumps({"serial": "ZA35-000001"})
    assert factory._read_provision(provision(tmp_path, text.ljust(MAX_PROVISION_BYTES)))["serial"] == "ZA35-000001"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"serial": "ZA35-000001"}).ljust(MAX_PROVISION_BYTES + 1),
        "{",
        "[]",
        "{}",
        '{"serial": 5}',
        '{"serial": "za35"}',
        '{"serial": "../../etc/passwd"}',
    ],
)
def test_provisioning_that_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SetupError):
        factory._read_provision(provision(tmp_path, text))


def test_provisioning_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        factory._read_provision(tmp_path / "none.json")
