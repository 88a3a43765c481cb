"""The part of a box's file system that the agent reads, in a directory of a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omamori_agent.config import AgentConfig, Paths, load_config

DEVICE = "ZA35-000001"
CLAIM = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
RELEASE: dict[str, Any] = {
    "version": "2026.11.1",
    "flavour": "dev",
    "board": "x86_64-uefi",
    "model": "ZA-SA3500N",
    "build_time": 1_700_000_000,
    "kernel": "6.12.0",
    "radio": "wlan0",
    "security_epoch": 3,
    "data_version": 1,
}


def provision_body(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "format": 1,
        "serial": DEVICE,
        "claim": CLAIM,
        "enrolment_url": "https://localhost:1",
        "broker": {"host": "localhost", "port": 1},
        "repository_url": "https://localhost:1",
        "channel": "demo",
    }
    return body | changes


def make_box(root: Path, **provision: Any) -> Paths:
    """Lay out a box as the image, the factory and the initrd leave it."""
    paths = Paths(root)
    for directory in (
        paths.image / "trust",
        paths.image / "engine",
        paths.empty_feed,
        paths.provision.parent,
        paths.spool,
        paths.last_run.parent,
        paths.feed_metadata,
        paths.feed_store,
        paths.run / "engine",
        paths.run / "eve",
        paths.proc / "self",
        paths.boot_id.parent,
        paths.console.parent,
    ):
        directory.mkdir(parents=True, exist_ok=True)
    paths.release.write_text(json.dumps(RELEASE))
    paths.provision.write_text(json.dumps(provision_body(**provision)))
    paths.provision.chmod(0o640)
    paths.slot.write_text("A\n")
    paths.feed_current.symlink_to(paths.empty_feed)
    paths.console.touch()
    paths.boot_id.write_text("5f0c4d9e-7b1a-4c55-9d0e-1f2a3b4c5d6e\n")
    (paths.proc / "uptime").write_text("86460.12 170000.00\n")
    (paths.proc / "meminfo").write_text("MemTotal:  1000000 kB\nMemAvailable:   612344 kB\n")
    (paths.proc / "self/status").write_text("Name:\tpython3\nVmRSS:\t   41200 kB\n")
    return paths


def box_config(root: Path, **provision: Any) -> AgentConfig:
    """Return the configuration of a box made by `make_box`."""
    make_box(root, **provision)
    return load_config(root)
