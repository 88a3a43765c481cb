"""What the lab runs on, for reports: processor, memory, kernel, system. Nothing that names the machine's owner."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> dict[str, str]:
    """Return the facts as text."""
    memory_kib = int(_field(Path("/proc/meminfo"), "MemTotal", "0 kB").split()[0])
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name", platform.machine()),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_kib / 1024 / 1024:.0f} GiB",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "acceleration": "none (QEMU TCG)",
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _field(path: Path, name: str, default: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return default
