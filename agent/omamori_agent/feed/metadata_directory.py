"""The directory with the metadata that python-tuf trusts: when it was renewed last, and that it survives a cut."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from omamori_agent.files import sync_directory

logger = logging.getLogger(__name__)


def renewed_s(directory: Path) -> float:
    """Return when new metadata was accepted last, Unix time; 0 when there is none."""
    try:
        return (directory / "timestamp.json").stat().st_mtime
    except OSError:
        return 0.0


def sync_metadata(directory: Path) -> None:
    """Make durable what python-tuf has written: a power cut must not take the protection against older metadata."""
    try:
        for path in directory.glob("*.json"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(directory)
    except OSError as err:
        logger.warning("metadata not synced: %s", err)
