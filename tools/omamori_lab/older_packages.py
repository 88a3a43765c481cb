"""What the Debian mirrors still have of older versions, so that an update can be measured that really happened.

Reads the mirrors' own indexes through apt, in directories of its own; installs nothing.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from omamori_firmware.lockfile import Package
from omamori_firmware.mirrors import host_mirrors

from .errors import SetupError
from .run import run

_TIMEOUT_S = 300.0
_FIELD = re.compile(r"^(Package|Version|Architecture|SHA256|Depends): (.*)$", re.MULTILINE)
_KERNEL = re.compile(r"linux-image-[0-9]\S*")


def older_lock(
    lock: Iterable[Package], records: Iterable[Mapping[str, str]], *, kernel: bool, userland: bool
) -> list[Package]:
    """Return a lock with the next older version of each package of which the mirror has one.

    Args:
        lock: Packages of today.
        records: What the mirror has, as `read_records` gives it.
        kernel: Whether the kernel shall be older.
        userland: Whether everything else shall be.

    Raises:
        SetupError: The mirror has no older kernel.
    """
    known: dict[str, list[Mapping[str, str]]] = {}
    for record in records:
        known.setdefault(record["Package"], []).append(record)
    older: dict[str, Package] = {}
    for item in lock:
        is_kernel = item.name.startswith("linux-image-")
        if not (kernel if is_kernel else userland):
            continue
        found = _next_older(item, known.get(item.name, ()))
        if found is not None:
            older[item.name] = _package(found)
            if is_kernel and (image := _KERNEL.search(found.get("Depends", ""))):
                (of_image,) = known.get(image[0], [{}])[:1]
                if not of_image:
                    raise SetupError(f"the mirror does not have {image[0]}")
                older[image[0]] = _package(of_image)
    if kernel and not any(_KERNEL.fullmatch(name) for name in older):
        raise SetupError("the mirror has no older kernel", hint="measure with another mirror, or after a kernel update")
    has_new_kernel = any(_KERNEL.fullmatch(name) for name in older)
    kept = [item for item in lock if item.name not in older and not (has_new_kernel and _KERNEL.fullmatch(item.name))]
    return sorted([*kept, *older.values()])


def read_records(names: Iterable[str], suite: str, more: str) -> list[dict[str, str]]:
    """Ask the mirrors for every version of some packages.

    Args:
        names: The packages.
        suite: Debian release.
        more: Pattern of further packages (apt's regular expressions).

    Raises:
        CommandError: apt failed.
        SetupError: This machine's mirrors are not known.
    """
    with tempfile.TemporaryDirectory(prefix="omamori-apt-") as name:
        scratch = Path(name)
        for directory in ("state/lists/partial", "cache/archives/partial"):
            (scratch / directory).mkdir(parents=True)
        (scratch / "status").touch()
        # Without backports: Debian's own version of what comes from there is no older release of it.
        lines = host_mirrors().sources_list(suite).splitlines()
        (scratch / "sources.list").write_text("\n".join(line for line in lines if "-backports" not in line) + "\n")
        settings = {
            "Dir::Etc::SourceList": scratch / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": scratch / "state",
            "Dir::State::status": scratch / "status",
            "Dir::Cache": scratch / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        words = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        run(["apt-get", *words, "-qq", "update"], timeout_s=_TIMEOUT_S, hint="is the mirror reachable?")
        found = run(["apt-cache", *words, "--names-only", "search", more], timeout_s=_TIMEOUT_S).output
        further = [line.split()[0] for line in found.splitlines() if line]
        # A package that only backports has is no error here.
        text = run(["apt-cache", *words, "show", *names, *further], timeout_s=_TIMEOUT_S, check=False).output
    records = [dict(_FIELD.findall(paragraph)) for paragraph in text.split("\n\n")]
    return [record for record in records if {"Package", "Version", "Architecture", "SHA256"} <= set(record)]


def _next_older(item: Package, records: Iterable[Mapping[str, str]]) -> Mapping[str, str] | None:
    best: Mapping[str, str] | None = None
    for record in records:
        if _is_older(record["Version"], item.version) and (
            best is None or _is_older(best["Version"], record["Version"])
        ):
            best = record
    return best


def _is_older(one: str, other: str) -> bool:
    return run(["dpkg", "--compare-versions", one, "lt", other], timeout_s=30, check=False).ok


def _package(record: Mapping[str, str]) -> Package:
    return Package(record["Package"], record["Version"], record["Architecture"], record["SHA256"])
