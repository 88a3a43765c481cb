"""A control group that bounds the memory of one process, to let the kernel run out of memory for it and nobody else.

Memory counts for the group that a process is in when it takes it, so the process has to be started inside.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import SetupError
from .waiting import wait_for

_MOUNT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """One group; version 1 or 2, as the machine has it.

    Args:
        name: Of its directory.
        mount: Where control groups are mounted.
    """

    def __init__(self, name: str, mount: Path = _MOUNT) -> None:
        self._is_old = (mount / "memory").is_dir()
        self._root = mount / "memory" if self._is_old else mount
        self._group = self._root / name

    @property
    def used_bytes(self) -> int:
        """What its processes use."""
        return int(self._read("memory.usage_in_bytes" if self._is_old else "memory.current"))

    @property
    def kills(self) -> int:
        """How often the kernel has killed a process of it for want of memory."""
        lines = self._read("memory.oom_control" if self._is_old else "memory.events").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    @contextlib.contextmanager
    def existing(self) -> Iterator[None]:
        """Make it, and remove it when its last process has ended.

        Raises:
            SetupError: This machine has no control groups for memory.
        """
        try:
            self._group.mkdir()
            self._read("memory.usage_in_bytes" if self._is_old else "memory.current")
        except OSError as err:
            with contextlib.suppress(OSError):
                self._group.rmdir()
            raise SetupError(f"no control group for memory: {err}") from err
        try:
            yield
        finally:
            wait_for(self._is_removed, f"{self._group.name} to be empty", timeout_s=20)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be in it for a while: what is started then is in it for good."""
        self._write("cgroup.procs", os.getpid())
        try:
            yield
        finally:
            (self._root / "cgroup.procs").write_text(str(os.getpid()))

    def take(self, pid: int) -> None:
        """Put a process into it, as early as can be: what it has by then counts elsewhere."""
        self._write("cgroup.procs", pid)

    def limit(self, size_bytes: int) -> None:
        """Allow it no more than so much; the kernel kills when that does not suffice."""
        self._write("memory.limit_in_bytes" if self._is_old else "memory.max", size_bytes)

    def _read(self, name: str) -> str:
        return (self._group / name).read_text()

    def _write(self, name: str, value: int) -> None:
        (self._group / name).write_text(str(value))

    def _is_removed(self) -> bool:
        with contextlib.suppress(OSError):
            self._group.rmdir()
        return not self._group.exists()
