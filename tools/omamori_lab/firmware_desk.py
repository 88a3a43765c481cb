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
        self._newest: Path | None = None

    def publish_next(self) -> PublishedFirmware:
        """Build the version after the newest one, and publish it with the way from there."""
        before = self._newest or self._release(self._settings.image)
        image = self._settings.image.with_name(f"{self._settings.image.name}-next")
        version = _next_version(_record(before)["version"])
        products.build_image(self._settings.keys, image, self._settings.flavour, version=version)
        release = self._release(image)
        products.call("omamori-ota", "delta", "--from", before, "--to", release, timeout_s=_MAKE_TIMEOUT_S)
        products.call("omamori-ota", "firmware", "publish", self._settings.keys, self._repository, before, release)
        self._newest = release
        record = _record(release)
        lengths = {payload["kind"]: int(payload["length"]) for payload in record["payloads"]}
        return PublishedFirmware(
            version, int(record["bundle"]["length"]), full_bytes=lengths["full"], delta_bytes=lengths["delta"]
        )

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
