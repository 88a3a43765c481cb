"""What leaves the root file system, and that nothing outside it is touched."""

from pathlib import Path

import pytest

from omamori_firmware.errors import SetupError
from omamori_firmware.recipe import source_tree
from omamori_firmware.strip import StripList, load_strip_list, remove_dangling_links, remove_orphan_scripts, strip

NOTHING = StripList((), (), (), (), ())


def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("usr/bin", "usr/sbin", "usr/lib/systemd/system", "etc/systemd/system", "var/lib/dpkg/info"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/bash").write_text("elf")
    (root / "usr/bin/sh").symlink_to("bash")
    (root / "var/lib/dpkg/info/bash.list").write_text("/.\n/usr\n/usr/bin\n/usr/bin/bash\n/bin/sh\n")
    return root


def test_a_package_leaves_with_its_files_and_not_its_directories(tmp_path: Path) -> None:
    root = tree(tmp_path)
    wanted = StripList(("bash", "absent"), (), (), (), ())
    assert strip(root, wanted, release=False) == {"bash"}
    assert (root / "usr/bin").is_dir()
    assert not list((root / "usr/bin").iterdir())


def test_the_shell_stays_for_developers(tmp_path: Path) -> None:
    root = tree(tmp_path)
    wanted = StripList((), ("bash",), (), (), ())
    assert strip(root, wanted, release=False) == set()
    assert (root / "usr/bin/sh").exists()
    assert strip(root, wanted, release=True) == {"bash"}
    assert not (root / "usr/bin/sh").is_symlink()


def test_units_leave_with_their_links(tmp_path: Path) -> None:
    root = tree(tmp_path)
    units = root / "usr/lib/systemd/system"
    (units / "getty@.service").write_text("x")
    (units / "getty.target.wants").mkdir()
    (units / "getty.target.wants/getty@tty1.service").symlink_to("../getty@.service")
    (root / "etc/systemd/system/dbus.service").symlink_to("/usr/lib/systemd/system/gone.service")
    strip(root, StripList((), (), (), (), ("getty*",)), release=False)
    assert not list(units.iterdir())
    assert not list((root / "etc/systemd/system").iterdir())


def test_links_out_of_the_tree_are_judged_inside_it(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "usr/bin/host").symlink_to("/etc/passwd")  # exists here, not in the tree
    (root / "usr/bin/masked").symlink_to("/dev/null")
    (root / "usr/bin/loop").symlink_to("loop")
    remove_dangling_links(root, ["usr/bin"])
    assert sorted(path.name for path in (root / "usr/bin").iterdir()) == ["bash", "masked", "sh"]


def test_scripts_without_their_interpreter_leave(tmp_path: Path) -> None:
    root = tree(tmp_path)
    scripts = {
        "a": "#!/usr/bin/perl -w\n",
        "b": "#!/bin/sh\n",
        "c": "#! /usr/bin/env perl\n",
        "d": "#!/usr/bin/env bash\n",
    }
    for name, first in scripts.items():
        (root / "usr/bin" / name).write_text(first)
        (root / "usr/bin" / name).chmod(0o755)
    (root / "usr/bin/data").write_text("#!/usr/bin/perl\n")
    remove_orphan_scripts(root, ["usr/bin"])
    assert sorted(path.name for path in (root / "usr/bin").iterdir()) == ["b", "bash", "d", "data", "sh"]


def test_the_list_of_this_repository_is_usable_and_names_every_door() -> None:
    wanted = load_strip_list(source_tree().recipe / "strip.toml")
    assert {"bash", "dash"} <= set(wanted.release_packages)
    assert {"usr/sbin/agetty", "usr/sbin/sulogin", "usr/bin/su"} <= set(wanted.doors)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "usr/../../x"])
def test_a_path_out_of_the_tree(tmp_path: Path, path: str) -> None:
    file = tmp_path / "strip.toml"
    file.write_text(f'packages = []\nrelease_packages = []\npaths = ["{path}"]\ndoors = []\nunits = []\n')
    with pytest.raises(SetupError, match="out of the tree"):
        load_strip_list(file)


def test_a_list_with_an_unknown_key(tmp_path: Path) -> None:
    file = tmp_path / "strip.toml"
    file.write_text("packages = []\n")
    with pytest.raises(SetupError, match="keys"):
        load_strip_list(file)
