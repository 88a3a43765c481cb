"""The engine with the box's own configuration, in a network namespace of this machine.

The configuration is `firmware/engine/suricata.yaml` with nothing changed but the directories it names. The program
is the one the image gets: the same package from the same lock, unpacked into a small Debian tree in the cache.
"""

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from omamori_firmware import enter, lockfile
from omamori_firmware.bootstrap import Request, bootstrap
from omamori_firmware.cache import Cache
from omamori_firmware.dataplane.plan import WirePlan
from omamori_firmware.errors import MachineError
from omamori_firmware.recipe import PackageList, SourceTree
from omamori_firmware.run import Process, end, spawn

STAGE = "engine"
# Where the box has what the configuration names.
BOX_CONFIGURATION = "/usr/lib/omamori/engine/"
BOX_FEED = "/var/lib/omamori/feed/current/"
BOX_RUN = "/run/omamori/"
BOX_CACHE = "/var/cache/omamori-engine"
_TREE_EPOCH = 1_700_000_000


def obtain_engine_tree(tree: SourceTree, cache: Cache, note: Callable[[str], None] = lambda _: None) -> Path:
    """Return a Debian tree that holds the engine, made if it is not in the cache.

    Args:
        tree: This repository.
        cache: Where trees are kept.
        note: Told what is going on.

    Raises:
        SetupError: Not root, or no mirror.
        ToolError: The tree cannot be made.
    """
    image = tree.package_list("root")
    wanted = PackageList(STAGE, image.suite, ("suricata",), image.from_backports, image.path_exclude)
    lock = lockfile.load_lock(tree.lock("root"))
    inputs = {"packages": repr(wanted), "lock": lockfile.render_lock(lock) if lock else ""}

    def build(directory: Path) -> None:
        bootstrap(Request(wanted, lock, None, _TREE_EPOCH), directory / "tree", cache, note)

    return cache.obtain(STAGE, inputs, build) / "tree"


def adapt_configuration(text: str, places: Mapping[str, Path]) -> str:
    """Return the engine's configuration with the box's directories replaced.

    Args:
        text: The configuration as shipped.
        places: Directory here by directory there; the longest match wins.
    """
    for box in sorted(places, key=len, reverse=True):
        here = str(places[box]) + ("/" if box.endswith("/") else "")
        text = text.replace(box, here)
    return text


class NativeEngine:
    """One engine process in a namespace.

    Args:
        plan: Names the queues.
        namespace: The namespace's file.
        program_tree: What `obtain_engine_tree` returned.
        source: This repository.
        feed: Unpacked feed directory (holds `engine/`).
        directory: A directory of ours with a short name (the control socket's path may have 107 bytes).
    """

    def __init__(
        self,
        plan: WirePlan,
        namespace: Path,
        program_tree: Path,
        source: SourceTree,
        feed: Path,
        directory: Path,
    ) -> None:
        self._plan = plan
        self._namespace = namespace
        self._tree = program_tree
        self._source = source
        self._feed = feed
        self._directory = directory
        self._process: Process | None = None
        self._log = directory / "engine.log"

    @property
    def control_socket(self) -> Path:
        """Its control socket."""
        return self._directory / "run" / "engine" / "suricata.sock"

    @property
    def events(self) -> Path:
        """Its EVE log."""
        return self._directory / "run" / "eve" / "eve.json"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def feed(self) -> Path:
        """The feed directory it loads."""
        return self._feed

    def has_ended(self) -> bool:
        """Say whether there is no process (any more)."""
        return self._process is None or self._process.poll() is not None

    def start(self, *, timeout_s: float = 120.0) -> None:
        """Start it and wait until it says that it inspects.

        Raises:
            MachineError: It ended or was not ready in time; its last lines are in the message.
        """
        configuration = self._write_configuration()
        queues = [word for number in self._queues() for word in ("-q", str(number))]
        line: list[str | Path] = ["suricata", "-c", configuration, "--runmode", "workers", *queues]
        command = enter.command(self._tree, "tools", [self._directory, self._feed], line)
        with self._ready_socket() as ready, self._log.open("ab") as log:
            self._process = spawn(
                ["nsenter", f"--net={self._namespace}", "--", *command],
                output=log,
                env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(ready.getsockname())},
            )
            if not _is_told_ready(ready, self._process, timeout_s):
                self.stop()
                raise MachineError(f"the engine did not get ready:\n{self.tail()}")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def kill(self) -> None:
        """End it the hard way, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def tail(self) -> str:
        """Return the last lines of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])
        return ""

    def cpu_s(self) -> float:
        """Return the processor time it has used, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _queues(self) -> range:
        return range(self._plan.first_queue, self._plan.last_queue + 1)

    def _write_configuration(self) -> Path:
        files = self._directory / "files"
        shutil.copytree(self._source.engine, files, dirs_exist_ok=True)
        for name in ("run/engine", "run/eve", "cache"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        places = {
            BOX_CONFIGURATION: files,
            BOX_FEED: self._feed,
            BOX_RUN: self._directory / "run",
            BOX_CACHE: self._directory / "cache",
        }
        path = files / "suricata.yaml"
        path.write_text(adapt_configuration(path.read_text(encoding="utf-8"), places), encoding="utf-8")
        return path

    @contextlib.contextmanager
    def _ready_socket(self) -> Iterator[socket.socket]:
        path = self._directory / "run" / "ready"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            made.bind(str(path))
            yield made
        path.unlink(missing_ok=True)


def _is_told_ready(ready: socket.socket, process: Process, timeout_s: float) -> bool:
    ready.settimeout(0.2)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in ready.recv(4096):
                return True
    return False
