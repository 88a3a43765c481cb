"""How a bundle came about: an in-toto statement with a SLSA provenance predicate, to be signed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .artifacts import BOOT, PACKAGES, ROOT, VERITY, Artifacts
from .bundle import BUNDLE, Bundle

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:omamori:build:firmware:1"
BUILDER = "urn:omamori:builder:omamori-image"


def render_statement(image: Artifacts, bundle: Bundle, files: Mapping[str, str], now: datetime, revision: str) -> bytes:
    """Return the statement.

    Args:
        image: What the bundle was made from.
        bundle: The bundle; it and its payload are the first subjects.
        files: Further subjects: name to SHA-256 in hexadecimal.
        now: When the bundle was finished.
        revision: Revision of the sources; empty when it is not told.
    """
    subjects = {BUNDLE: bundle.sha256, f"{BUNDLE}#payload": bundle.payload_sha256, **files}
    dependencies: list[dict[str, Any]] = [
        {"name": name, "digest": {"sha256": image.manifest["files"][name]["sha256"]}}
        for name in (BOOT, ROOT, VERITY, PACKAGES)
    ]
    dependencies.append({"name": "manifest.json", "digest": {"sha256": image.manifest_sha256}})
    if revision:
        dependencies.append({"name": "sources", "digest": {"gitCommit": revision}})
    body = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"board": image.board, "version": image.version, "flavour": image.flavour},
                "internalParameters": {
                    "buildTime": image.build_time,
                    "securityEpoch": image.security_epoch,
                    "lock": image.manifest.get("lock", {}),
                    "drift": image.manifest.get("drift", []),
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {
                    "invocationId": f"urn:omamori:bundle:{bundle.sha256}",
                    "startedOn": _time(datetime.fromtimestamp(image.build_time, UTC)),
                    "finishedOn": _time(now),
                },
            },
        },
    }
    return (json.dumps(body, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
