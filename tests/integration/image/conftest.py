"""Images built from this tree with keys of the session, and machines that run them.

The cache of the developer is used: only what depends on the keys is made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import struct
import subprocess  # noqa: TID251 - makes a network namespace
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware.build import STAGES, Builder, BuildRequest
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.progress import Reporter
from omamori_firmware.qemu import Machine, MachineConfig, PortFd, prepare
from omamori_firmware.recipe import SourceTree, source_tree
from omamori_firmware.tools import ToolsTree, find_tools
from omamori_ota.cli import main as ota

BOOT_TIMEOUT_S = 150.0
_TUNSETIFF = 0x400454CA
_TAP_FLAGS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys") / "keys"
    assert ota(["keys", "init", str(directory)]) == 0
    return directory


@pytest.fixture(scope="session")
def cache() -> Cache:
    return Cache(default_directory())


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> SourceTree:
    """A copy of what images are made from, so that editing meanwhile does not show as a difference."""
    top = tmp_path_factory.mktemp("sources")
    for name in (
        "firmware/recipe",
        "firmware/wire",
        "firmware/engine",
        "firmware/wifi",
        "firmware/gate",
        "firmware/slots",
        "hw",
        "agent",
        "protocol",
    ):
        shutil.copytree(source_tree().top / name, top / name, symlinks=True)
    (top / "requirements").mkdir()
    shutil.copyfile(source_tree().device_lock, top / "requirements" / "device.lock")
    return SourceTree(top)


Build = Callable[..., tuple[Path, dict[str, Any], Reporter]]


@pytest.fixture(scope="session")
def build(keys: Path, cache: Cache, sources: SourceTree, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build an image; the result lies in a directory of its own each time."""

    def run(
        flavour: str,
        *,
        own_cache: Cache = cache,
        version: str | None = None,
        tree: SourceTree = sources,
        board: str = "x86_64-uefi",
    ) -> tuple[Path, dict[str, Any], Reporter]:
        out = tmp_path_factory.mktemp(f"image-{flavour}")
        request = BuildRequest(
            board=board,
            flavour=flavour,
            trust=keys / "trust",
            signing_key=keys / "secureboot" / "db.key",
            out=out,
            version=version,
            allow_drift=True,
        )
        with pytest.MonkeyPatch.context() as environment, Reporter(total=STAGES, quiet=True) as reporter:
            environment.setenv("SOURCE_DATE_EPOCH", "1800000000")
            manifest = Builder(tree, own_cache, reporter).build(request)
        return out, manifest, reporter

    return run


@pytest.fixture(scope="session")
def release(build: Build) -> Path:
    return build("release")[0]


@pytest.fixture(scope="session")
def dev(build: Build) -> Path:
    return build("dev")[0]


@pytest.fixture(scope="session")
def tools(release: Path, cache: Cache) -> ToolsTree:
    return find_tools(source_tree(), cache)


@pytest.fixture(scope="session")
def release_tree(release: Path, tools: ToolsTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything a customer's box contains, unpacked."""
    place = tmp_path_factory.mktemp("release-root")
    tools.run(["fsck.erofs", f"--extract={place}/root", release / "root.erofs"], binds=[release, place])
    return place / "root"


@dataclass(frozen=True)
class Box:
    """A running machine and what it says."""

    machine: Machine

    def said(self) -> str:
        path = self.machine.console_log
        return path.read_bytes().decode(errors="replace") if path.exists() else ""

    def wait(self, pattern: str, *, timeout_s: float = BOOT_TIMEOUT_S, since: int = 0) -> re.Match[str]:
        """Wait until the console has shown a line; `since` is a length of `said()`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if match := re.search(pattern, self.said()[since:]):
                return match
            if not self.machine.is_on:
                break
            time.sleep(0.1)
        pytest.fail(f"{pattern!r} was not said:\n{self.said()[-3000:]}")

    def shell(self, command: str, *, timeout_s: float = 60.0) -> str:
        """Run a command on the root console of a development image and return what it printed."""
        terminal = os.open(self.machine.shell, os.O_RDWR | os.O_NOCTTY)
        try:
            tty.setraw(terminal)
            # What is typed before the shell is there may get lost, also in part, and half a quoted word would swallow
            # everything after it: ask until it answers, and give up (Ctrl-C) what it waits for.
            deadline = time.monotonic() + BOOT_TIMEOUT_S
            while self._ask(terminal, "true", 3.0) is None:
                os.write(terminal, b"\x03\n")
                if time.monotonic() > deadline:
                    pytest.fail(f"the root console does not answer:\n{self.said()[-2000:]}")
            answer = self._ask(terminal, command, timeout_s)
            if answer is None:
                pytest.fail(f"no answer to {command!r}")
            return answer
        finally:
            os.close(terminal)

    @staticmethod
    def _ask(terminal: int, command: str, timeout_s: float) -> str | None:
        mark = f"done{time.monotonic_ns()}"
        split = f"{mark[:5]}''{mark[5:]}"  # the echo of the command must not look like its answer
        line = f" stty -echo 2>/dev/null; echo {split}-begin; {command}; echo {split}-end\n"
        os.write(terminal, line.encode())
        deadline, text = time.monotonic() + timeout_s, ""
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.5)[0]:
                text += os.read(terminal, 65536).decode(errors="replace").replace("\r", "")
            if match := re.search(f"{mark}-begin\n(.*){mark}-end", text, re.DOTALL):
                return match[1]
        return None


@pytest.fixture
def ports() -> Iterator[list[PortFd]]:
    """Two tap devices in a network namespace of this test."""
    name = f"omamori-image-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    taps = [os.open("/dev/net/tun", os.O_RDWR) for _ in range(2)]
    try:
        for number, tap in enumerate(taps):
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", f"imgtest{number}".encode(), _TAP_FLAGS))
            subprocess.run(["ip", "link", "set", f"imgtest{number}", "netns", name], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", f"imgtest{number}", "up"], check=True)
        yield [PortFd(tap, f"52:54:00:00:01:{number:02x}") for number, tap in enumerate(taps)]
    finally:
        for tap in taps:
            os.close(tap)
        subprocess.run(["ip", "netns", "del", name], check=True)


Boot = Callable[..., Box]


@pytest.fixture
def boot(tools: ToolsTree, ports: list[PortFd], tmp_path: Path) -> Iterator[Boot]:
    """Start machines; whatever still runs at the end is killed."""
    with starter(tools, ports, tmp_path / "vm") as start:
        yield start


@contextlib.contextmanager
def starter(tools: ToolsTree, ports: list[PortFd], workdir: Path, **always: Any) -> Iterator[Boot]:
    """Give a function that starts machines with a tree's QEMU; whatever still runs at the end is killed."""
    machines: list[Machine] = []

    def start(disk: Path, variables: Path, **changes: Any) -> Box:
        config = MachineConfig(disk=disk, vars=variables, workdir=workdir, ports=ports)
        machine = Machine(replace(config, **always, **changes), tools)
        machines.append(machine)
        machine.start()
        return Box(machine)

    try:
        yield start
    finally:
        for machine in machines:
            machine.kill()


@pytest.fixture
def disk(dev: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A development image's disk and variables, to be written to."""
    return prepare(dev, tmp_path / "disk")
