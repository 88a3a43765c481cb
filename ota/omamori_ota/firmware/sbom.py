"""The parts list of an image: CycloneDX 1.6 in JSON, from what the build and the locks say. The same every time."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omamori_ota.errors import SetupError
from omamori_ota.files import read_bounded
from omamori_protocol.firmware_release import MAX_ATTACHMENT_BYTES, compatible

from .artifacts import Artifacts

_NAMESPACE = uuid.UUID("6f6d616d-6f72-4900-8000-000000000003")
_MAX_LOCK_BYTES = 4 * 1024 * 1024
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)", re.MULTILINE)


def read_wheels(lock: Path) -> list[tuple[str, str]]:
    """Return name and version of the Python packages in a hash lock, sorted.

    Raises:
        SetupError: It cannot be read, or names none.
    """
    text = read_bounded(lock, _MAX_LOCK_BYTES).decode(errors="replace")
    found = sorted({(match[1].lower().replace("_", "-"), match[2]) for match in _REQUIREMENT.finditer(text)})
    if not found:
        raise SetupError(f"{lock} names no packages", hint="it is the image's lock: requirements/device.lock")
    return found


def render_sbom(image: Artifacts, packages: Iterable[dict[str, str]], wheels: Iterable[tuple[str, str]]) -> bytes:
    """Return the parts list.

    Args:
        image: The image.
        packages: Its Debian packages.
        wheels: Its Python packages.

    Raises:
        SetupError: It is larger than boxes and operators are ready to read.
    """
    components = [_debian(row) for row in packages] + [_python(name, version) for name, version in wheels]
    components.sort(key=lambda item: item["bom-ref"])
    body = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, image.roothash.hex())}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(image.build_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "firmware",
                "bom-ref": "firmware",
                "name": compatible(image.board),
                "version": image.version,
                "hashes": [{"alg": "SHA-256", "content": image.manifest["files"]["root.erofs"]["sha256"]}],
            },
        },
        "components": components,
        "dependencies": [{"ref": "firmware", "dependsOn": [item["bom-ref"] for item in components]}],
    }
    data = (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()
    if len(data) > MAX_ATTACHMENT_BYTES:
        raise SetupError(f"a parts list of {len(data)} bytes")
    return data


def _debian(row: dict[str, str]) -> dict[str, Any]:
    name, version = quote(row["name"], safe="+.-"), quote(row["version"], safe="+.-~")
    purl = f"pkg:deb/debian/{name}@{version}?arch={quote(row['arch'])}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": row["name"],
        "version": row["version"],
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": row["sha256"]}],
    }


def _python(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{quote(name)}@{quote(version)}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
