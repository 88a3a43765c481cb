"""The initrd's archive and its one script."""

import stat
import subprocess  # noqa: TID251 - asks the system's own cpio and sh
from pathlib import Path

import pytest

from omamori_firmware.initrd import APPLETS, Entry, archive
from omamori_firmware.recipe import source_tree

SCRIPT = source_tree().recipe / "initrd" / "init"
ENTRIES = [
    Entry("usr/lib/x", stat.S_IFREG | 0o644, b"abc"),
    Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
    Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
]


def test_the_archive_does_not_depend_on_the_order_of_its_entries() -> None:
    assert archive(ENTRIES) == archive(list(reversed(ENTRIES)))


def test_other_tools_can_read_the_archive(tmp_path: Path) -> None:
    listing = subprocess.run(["cpio", "-tvn"], input=archive(ENTRIES), capture_output=True, check=True).stdout.decode()
    rows = [line.split() for line in listing.splitlines()]
    assert [row[-1] for row in rows] == ["bin", "busybox", "dev", "dev/console", "usr", "usr/lib", "usr/lib/x"]
    assert rows[1][-3:] == ["bin/sh", "->", "busybox"]
    assert rows[3][0] == "crw-------"
    assert rows[6][0] == "-rw-r--r--"


def test_the_script_is_correct_shell() -> None:
    subprocess.run(["sh", "-n", SCRIPT], check=True)


def test_the_script_forwards_before_it_looks_at_any_disk() -> None:
    text = SCRIPT.read_text()
    assert text.index('say "forwarding') < text.index("find_disk()")
    assert text.index('say "forwarding') < text.index("dmsetup create")
    assert text.index("dmsetup create") < text.index("mke2fs")


@pytest.mark.parametrize("applet", APPLETS)
def test_every_applet_is_used(applet: str) -> None:
    assert applet in SCRIPT.read_text()
