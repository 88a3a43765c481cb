"""Where a release may come from: a stick that is plugged in, else the repository."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from omamori_agent.errors import AgentError
from omamori_protocol.firmware_release import FirmwareRelease

from .release import FirmwareRepository
from .stream import PayloadStream

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Source:
    """One place.

    Attributes:
        name: For logs.
        repository: Says what is signed.
        stream: Reads payloads.
        is_there: Whether it can be asked at all.
        is_free: Whether reading from it costs nothing.
    """

    name: str
    repository: FirmwareRepository
    stream: PayloadStream
    is_there: Callable[[], bool]
    is_free: bool = False


def look_up(sources: Sequence[Source], version: str) -> tuple[Source, FirmwareRelease]:
    """Return the first place that has a release; what the last one says counts when none has.

    Raises:
        UpdateWaitsError: It could not be asked to the end.
        UpdateRefusedError: There is no such release, or it is not signed as it must be.
    """
    present = [source for source in sources if source.is_there()]
    for source in present[:-1]:
        try:
            return source, source.repository.release(version)
        except AgentError as err:
            logger.warning("%s: %s", source.name, err)
    return present[-1], present[-1].repository.release(version)


def has_stick(directory: Path) -> bool:
    """Tell whether a stick with a repository is plugged in."""
    try:
        return (directory / "metadata").is_dir()
    except OSError:
        return False
