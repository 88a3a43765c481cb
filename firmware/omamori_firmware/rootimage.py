"""From a directory to what the box reads: an uncompressed EROFS and its verity hash tree.

Uncompressed, so that a small change in a file stays a small change in the image (deltas between releases).
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware.files import sha256_file
from omamori_firmware.tools import ToolsTree

_BLOCK = 4096
_FILESYSTEM_UUID = "6f6d616d-6f72-4900-8000-000000000001"
_VERITY_UUID = "6f6d616d-6f72-4900-8000-000000000002"


@dataclass(frozen=True)
class VerityRoot:
    """What opens a root file system.

    Attributes:
        roothash: Hash over everything, hex.
        salt: Hex.
        blocks: Data blocks of 4096 bytes.
    """

    roothash: str
    salt: str
    blocks: int


def make_erofs(root: Path, target: Path, tools: ToolsTree, *, epoch: int) -> None:
    """Write the file system of a directory.

    Args:
        root: The tree.
        target: File to write.
        tools: Supplies mkfs.erofs.
        epoch: Time stamp of every file (seconds).
    """
    # mkfs only lowers times that are later than the given one.
    for path in (root, *root.rglob("*")):
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    line = ["mkfs.erofs", "--quiet", "-b", str(_BLOCK), f"-T{epoch}", "-U", _FILESYSTEM_UUID]
    tools.run([*line, target, root], binds=[root, target.parent])


def make_verity(data: Path, target: Path, tools: ToolsTree) -> VerityRoot:
    """Write the hash tree of a file system and return what opens it."""
    salt = hashlib.sha256(b"omamori verity salt\0" + sha256_file(data).encode()).hexdigest()
    target.unlink(missing_ok=True)
    hash_file = target.with_suffix(".hash")
    line: list[str | Path] = ["veritysetup", "format", f"--salt={salt}", f"--uuid={_VERITY_UUID}", "--hash=sha256"]
    line += [f"--data-block-size={_BLOCK}", f"--hash-block-size={_BLOCK}", f"--root-hash-file={hash_file}"]
    tools.run([*line, data, target], binds=[data.parent, target.parent])
    roothash = hash_file.read_text().strip()
    hash_file.unlink()
    return VerityRoot(roothash, salt, data.stat().st_size // _BLOCK)
