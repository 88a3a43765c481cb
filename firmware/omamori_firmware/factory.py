"""One device's disk: a copy of the factory disk whose data partition holds the device's provisioning.

It writes what the factory station would write; it does not judge the provisioning beyond its size and form, and it
makes no keys (the box makes its own).
"""

import json
import os
import re
import uuid
from pathlib import Path

from omamori_firmware import disk, gpt
from omamori_firmware.cache import Cache
from omamori_firmware.errors import SetupError
from omamori_firmware.files import copy_sparse
from omamori_firmware.recipe import source_tree
from omamori_firmware.tools import ToolsTree
from omamori_hw.board import load_board

MAX_PROVISION_BYTES = 8 * 1024
_SERIAL = re.compile(r"[A-Z0-9][A-Z0-9-]{3,31}")
# Numbers of root and of the group `omamori` on the box (overlay/common/usr/lib/sysusers.d/omamori.conf).
_OMAMORI_GROUP = 960


def personalise(artifacts: Path, provision: Path, out: Path, tools: ToolsTree, cache: Cache) -> str:
    """Write a device's disk.

    Args:
        artifacts: Artifact directory of a build.
        provision: The device's provision.json.
        out: Disk file to write; replaced.
        tools: Supplies mke2fs.
        cache: Where to work.

    Returns:
        The device's serial number.

    Raises:
        SetupError: The artifacts or the provisioning are not usable.
    """
    data = _read_provision(provision)
    serial = str(data["serial"])
    try:
        manifest = json.loads((artifacts / "manifest.json").read_text(encoding="utf-8"))
        board = load_board(source_tree().boards / str(manifest["board"]))
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise SetupError(
            f"{artifacts} is not an artifact directory ({err})", hint="build one: omamori-image build"
        ) from err
    partition = disk.find(board.disk, "data")
    with cache.workspace("factory") as work:
        image = work / "data.ext4"
        _make_data(image, partition.size, provision.read_bytes(), serial, tools, work)
        fresh = out.with_name(f".{out.name}.new")
        fresh.unlink(missing_ok=True)
        try:
            copy_sparse(artifacts / "disk.raw", fresh)
            copy_sparse(image, fresh, offset=partition.start)
            fresh.replace(out)
        finally:
            fresh.unlink(missing_ok=True)
    return serial


def _read_provision(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_PROVISION_BYTES + 1)
    except OSError as err:
        raise SetupError(f"{path} cannot be read ({err.strerror})", hint="make it with: omamori-ota factory") from err
    if len(raw) > MAX_PROVISION_BYTES:
        raise SetupError(f"{path} is larger than {MAX_PROVISION_BYTES} bytes")
    try:
        data = json.loads(raw)
    except ValueError as err:
        raise SetupError(f"{path} is not JSON ({err})") from err
    serial = data.get("serial") if isinstance(data, dict) else None
    if not isinstance(serial, str) or not _SERIAL.fullmatch(serial):
        raise SetupError(f"{path} has no acceptable serial number", hint="make it with: omamori-ota factory")
    return dict(data)


def _make_data(image: Path, size: int, provision: bytes, serial: str, tools: ToolsTree, work: Path) -> None:
    tree = work / "var"
    place = tree / "lib" / "omamori" / "factory"
    place.mkdir(parents=True)
    file = place / "provision.json"
    file.write_bytes(provision)
    file.chmod(0o640)
    place.chmod(0o750)
    identifier = str(uuid.uuid5(disk.guid("data"), serial))
    line: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "data", "-m", "1", "-e", "continue"]
    line += ["-U", identifier, "-E", f"hash_seed={identifier},root_owner=0:0", "-d", tree, image, f"{size // gpt.MIB}m"]
    try:
        os.chown(file, 0, _OMAMORI_GROUP)
        os.chown(place, 0, _OMAMORI_GROUP)
    except PermissionError as err:
        raise SetupError("making a disk needs root", hint="run the command as root") from err
    tools.run(line, binds=[work])
