"""Images that are signed, released, and bad: each has one fault, put into a copy of the sources it is built from."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from omamori_firmware.build import STAGES, Builder, BuildRequest
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.progress import Reporter
from omamori_firmware.recipe import SourceTree, source_tree

_SOURCES = ("firmware/recipe", "firmware/wire", "firmware/engine", "firmware/wifi", "firmware/gate", "firmware/slots")
_INIT = "firmware/recipe/initrd/init"
_START = "exec switch_root /sysroot /usr/lib/systemd/systemd"
_STEP = '''
"""A step that has never seen a real box."""

from pathlib import Path

PATHS = ("desired/document.cose", "desired/state.json")


def apply(state: Path) -> None:
    """Half of it is done when it fails."""
    (state / "desired/document.cose").unlink()
    raise KeyError("ring")
'''


@dataclasses.dataclass(frozen=True)
class BadImage:
    """One fault.

    Attributes:
        name: What is wrong.
        spoil: Puts the fault into a copy of the sources.
        reasons: What the box may report after it is back on the slot before.
        console: What the console says during the trial, as a regular expression; empty for nothing special.
        trial_s: How long the trial may take.
    """

    name: str
    spoil: Callable[[Path], None]
    reasons: frozenset[str]
    console: str
    trial_s: float


def _replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(tree: Path) -> None:
        text = (tree / path).read_text()
        assert text.count(old) == 1, f"{path} has changed: {old}"
        (tree / path).write_text(text.replace(old, new))

    return spoil


def _add_step(tree: Path) -> None:
    (tree / "agent/omamori_agent/migration/steps/step_0002.py").write_text(_STEP)


BAD_IMAGES = (
    BadImage(
        "kernel panic",
        _replace(_INIT, _START, f"echo c >/sysroot/proc/sysrq-trigger\n{_START}"),
        frozenset({"interrupted"}),
        "Kernel panic - not syncing",
        300.0,
    ),
    BadImage(
        "init hangs",
        _replace(_INIT, _START, f"while :; do sleep 3600; done\n{_START}"),
        frozenset({"interrupted"}),
        "",
        600.0,
    ),
    BadImage(
        "agent dies again and again",
        _replace("agent/omamori_agent/cli.py", "def _run(", "def _run_nothing("),
        frozenset({"crash-loop"}),
        "",
        400.0,
    ),
    BadImage("migration fails", _add_step, frozenset({"migration-failed"}), "", 400.0),
    BadImage(
        "user space is up, the data plane is dead",
        # The last port stays outside: everything starts, and nothing passes.
        _replace(_INIT, "ip link set dev $name master br0", "[ $position != 0 ] || ip link set dev $name master br0"),
        frozenset({"wire-down"}),
        "",
        900.0,
    ),
)


def build_image(change: Callable[[Path], None], version: str, *, base: Path, keys: Path, work: Path) -> Path:
    """Build an image from changed sources; return its artifact directory.

    Args:
        change: Changes a copy of the sources.
        version: The version that it says it is.
        base: The image that it is a successor of; it is as old as that one.
        keys: Key directory that signs it.
        work: An empty directory.
    """
    tree = work / "sources"
    for name in (*_SOURCES, "hw", "agent", "protocol"):
        shutil.copytree(source_tree().top / name, tree / name, symlinks=True)
    (tree / "requirements").mkdir()
    shutil.copyfile(source_tree().device_lock, tree / "requirements" / "device.lock")
    change(tree)
    request = BuildRequest(
        board="x86_64-uefi",
        flavour="dev",
        trust=keys / "trust",
        signing_key=keys / "secureboot" / "db.key",
        out=work / "image",
        version=version,
        allow_drift=True,
    )
    built_s = json.loads((base / "manifest.json").read_text())["build_time"]
    with pytest.MonkeyPatch.context() as environment, Reporter(total=STAGES, quiet=True) as reporter:
        environment.setenv("SOURCE_DATE_EPOCH", str(built_s))
        Builder(SourceTree(tree), Cache(default_directory()), reporter).build(request)
    return work / "image"


def slug(text: str) -> str:
    """Return a text as a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
