"""The operator's release desk in the lab: builds the next firmware, makes its release and publishes it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from . import products
from .errors import SetupError
from .settings import LabSettings

_NOTES = {
    "ja": "# ファームウェア {version}\n\n- 試験用の新しい版です。\n",
    "en": "# Firmware {version}\n\n- A new version, for the lab.\n",
}
_MAKE_TIMEOUT_S = 1200.0
_REQUEST = re.compile(r'"GET (?P<path>/\S+) HTTP/[\d.]+" 20[06] (?P<bytes>\d+)')


@dataclasses.dataclass(frozen=True)
class PublishedFirmware:
    """A release that boxes can see.

    Attributes:
        version: Its version.
        bundle_bytes: Length of the whole bundle.
        full_bytes: What a box fetches that has nothing in common with it.
        delta_bytes: What a box fetches that runs the version before.
    """

    version: str
    bundle_bytes: int
    full_bytes: int
    delta_bytes: int


class FirmwareDesk:
    """Makes and publishes firmware.

    Args:
        settings: Of the lab.
        repository: The operator's repository.
    """

    def __init__(self, settings: LabSettings, repository: Path) -> None:
        self._settings = settings
        self._repository = repository
        self._releases = settings.run / "releases"
        self._kept: Path | None = None
        self._published: list[Path] = []

    def publish_next(self) -> PublishedFirmware:
        """Build the version after the newest one, and publish it with the way from what boxes have by now."""
        image = self._settings.image.with_name(f"{self._settings.image.name}-next")
        products.build_image(
            self._settings.keys,
            image,
            self._settings.flavour,
            version=self.next_version(),
            board=self._settings.board,
        )
        return self.publish_image(image)

    def next_version(self) -> str:
        """Return the version after the newest one that was published."""
        return _next_version(_record(self._published[-1] if self._published else self._before())["version"])

    def publish_image(self, image: Path, *, is_kept: bool = True) -> PublishedFirmware:
        """Publish an image with the way from what boxes have by now.

        Args:
            image: Artifact directory.
            is_kept: Boxes stay with it: the next way begins there.
        """
        before, release = self._before(), self._release(image)
        products.call("omamori-ota", "delta", "--from", before, "--to", release, timeout_s=_MAKE_TIMEOUT_S)
        fresh = [path for path in (before, release) if path not in self._published]
        products.call("omamori-ota", "firmware", "publish", self._settings.keys, self._repository, *fresh)
        self._published += fresh
        if is_kept:
            self._kept = release
        record = _record(release)
        lengths = {payload["kind"]: int(payload["length"]) for payload in record["payloads"]}
        return PublishedFirmware(
            str(record["version"]),
            int(record["bundle"]["length"]),
            full_bytes=lengths["full"],
            delta_bytes=lengths["delta"],
        )

    def _before(self) -> Path:
        if self._kept is None:
            self._kept = self._release(self._settings.image)
        return self._kept

    def fetched_bytes(self, release: PublishedFirmware) -> int:
        """Return how many bytes of a release's targets were served so far."""
        log = (self._settings.run / "nginx" / "nginx.access.log").read_text(errors="replace")
        of_release = (match for match in _REQUEST.finditer(log) if f"/{release.version}/" in match["path"])
        return sum(int(match["bytes"]) for match in of_release)

    def _release(self, image: Path) -> Path:
        """Make the release of an image."""
        version = str(products.read_manifest(image)["version"])
        out = self._releases / version
        self._releases.mkdir(exist_ok=True)
        words: list[str | Path] = ["--image", image, "--keys", self._settings.keys, "--out", out, "--level", "3"]
        for language, text in _NOTES.items():
            notes = self._releases / f"notes-{version}.{language}.md"
            notes.write_text(text.format(version=version))
            words += [f"--notes-{language}", notes]
        products.call("omamori-ota", "bundle", *words, timeout_s=_MAKE_TIMEOUT_S)
        return out


def _record(release: Path) -> dict[str, Any]:
    body = json.loads((release / "release.json").read_text())
    if not isinstance(body, dict):
        raise SetupError(f"{release} is no release directory")
    return body


def _next_version(version: object) -> str:
    numbers, dash, development = str(version).partition("-")
    major, minor, patch = numbers.split(".")
    return f"{major}.{minor}.{int(patch) + 1}{dash}{development}"
