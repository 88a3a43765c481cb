"""Makes a bundle: what RAUC installs, in its *verity* format, the same bytes from the same image.

    squashfs with the images, stored as they are │ hash tree over it │ CMS with the manifest │ its length, 8 bytes

RAUC's own command takes a random salt for the tree, so no two bundles of it are alike; here the salt follows from the
content. Everything before the CMS is the payload: it depends on the image alone. The finished bundle is given to RAUC
to read, with the authority that boxes carry, before anybody else sees it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from omamori_ota.errors import ProgramError, RejectedError, SetupError
from omamori_protocol.firmware_release import MAX_BUNDLE_BYTES, compatible
from omamori_protocol.hash_tree import BLOCK_BYTES, hash_tree

from .artifacts import BOOT, ROOT, VERITY, Artifacts, sha256_file
from .layout import MappedFile
from .programs import Programs
from .signing import BundleSigner

BUNDLE = "bundle.raucb"
IMAGES = (("boot", "boot.vfat", BOOT), ("root", "root.img", ROOT), ("verity", "verity.img", VERITY))
_SYSTEM = """\
[system]
compatible={compatible}
bootloader=noop
bundle-formats=verity

[keyring]
path={trust}
use-bundle-signing-time=true
check-purpose=codesign
"""
_TREE = re.compile(rb"verity-salt=([0-9a-f]{64})\nverity-size=([0-9]{1,10})\n")
_MAX_CMS_BYTES = 64 * 1024  # RAUC's own bound
_CHUNK = 1024 * 1024
# No compression, so that a small change stays a small change; no fragments and no duplicates, so that a file lies in
# one piece (but for blocks of zeros, which are left out).
_SQUASHFS = ("-noappend", "-no-progress", "-all-root", "-no-xattrs", "-no-exports", "-no-fragments", "-no-duplicates",
             "-noI", "-noId", "-noD", "-noF", "-noX", "-b", "131072", "-processors", "1")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        path: The file.
        length: Its bytes.
        sha256: Of all of it, hexadecimal.
        payload_length: Bytes before the CMS: what depends on the image alone.
        payload_sha256: Of these, hexadecimal.
        tree_offset: Where the hash tree over the squashfs begins.
        tree_salt: Salt of that tree.
    """

    path: Path
    length: int
    sha256: str
    payload_length: int
    payload_sha256: str
    tree_offset: int
    tree_salt: bytes

    @staticmethod
    def read(path: Path) -> Bundle:
        """Return what a bundle of ours says of itself; its signature is not looked at.

        Raises:
            SetupError: It is no bundle.
        """
        with MappedFile(path) as data:
            end = len(data) - 8
            message_length = int.from_bytes(data[max(end, 0) :], "big")
            begin = end - message_length
            found = _TREE.search(data[max(begin, 0) : max(end, 0)]) if message_length <= _MAX_CMS_BYTES else None
            if found is None or begin < int(found[2]):
                raise SetupError(f"{path} is not a bundle", hint="make it again: omamori-ota bundle")
            return Bundle(
                path=path,
                length=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                payload_length=begin,
                payload_sha256=hashlib.sha256(memoryview(data)[:begin]).hexdigest(),
                tree_offset=begin - int(found[2]),
                tree_salt=bytes.fromhex(found[1].decode()),
            )


def make_bundle(image: Artifacts, target: Path, signer: BundleSigner, programs: Programs) -> Bundle:
    """Write the bundle of an image.

    Args:
        image: The image.
        target: File to write.
        signer: Who signs it.
        programs: Supplies mksquashfs.

    Raises:
        RejectedError: It would be larger than boxes take.
        ProgramError: A program failed.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".content.") as name:
        content = Path(name)
        for _, inside, artifact in IMAGES:
            _place(image.file(artifact), content / inside)
            os.utime(content / inside, (image.build_time, image.build_time))
        content.chmod(0o755)
        os.utime(content, (image.build_time, image.build_time))
        environment = {"SOURCE_DATE_EPOCH": str(image.build_time)}
        line = ["mksquashfs", str(content.resolve()), str(target.resolve()), *_SQUASHFS]
        programs.run(line, binds=[target.resolve().parent], env=environment)
    tree_offset = target.stat().st_size
    if tree_offset % BLOCK_BYTES or tree_offset <= BLOCK_BYTES:
        raise ProgramError(f"mksquashfs wrote {tree_offset} bytes, which are no whole blocks")
    salt = hashlib.sha256(b"omamori bundle salt\0" + sha256_file(target).encode()).digest()
    tree = hash_tree(_chunks(target), salt)
    manifest = _manifest(image, tree.root, salt, len(tree.data))
    message = signer.cms(manifest)
    if len(message) > _MAX_CMS_BYTES:
        raise ProgramError(f"a signature of {len(message)} bytes")
    with target.open("ab") as stream:
        stream.write(tree.data)
        stream.flush()
        payload_length, payload_sha256 = stream.tell(), sha256_file(target)
        stream.write(message + len(message).to_bytes(8, "big"))
        stream.flush()
        os.fsync(stream.fileno())
        length = stream.tell()
    if length > MAX_BUNDLE_BYTES:
        raise RejectedError(f"a bundle of {length} bytes; boxes take {MAX_BUNDLE_BYTES}")
    return Bundle(
        path=target,
        length=length,
        sha256=sha256_file(target),
        payload_length=payload_length,
        payload_sha256=payload_sha256,
        tree_offset=tree_offset,
        tree_salt=salt,
    )


def prove_bundle(path: Path, image: Artifacts, trust: Path, programs: Programs) -> None:
    """Let RAUC read a bundle as a box would: with the authorities that images carry, for code signing only.

    Raises:
        RejectedError: RAUC refuses it, or reads something else than the image.
    """
    with tempfile.TemporaryDirectory(prefix="omamori-rauc.") as name:
        settings = Path(name) / "system.conf"
        settings.write_text(_SYSTEM.format(compatible=compatible(image.board), trust=trust.resolve()))
        line = ["rauc", f"--conf={settings}", "info", "--output-format=json-2", str(path.resolve())]
        binds = [path.resolve().parent, trust.resolve().parent, settings.parent]
        try:
            said = json.loads(programs.run(line, binds=binds))
            update = said["update"]
            found = (update["compatible"], update["version"], said["bundle"]["format"])
        except ProgramError as err:
            raise RejectedError(f"RAUC refuses the bundle: {err}") from err
        except (ValueError, KeyError, TypeError) as err:
            raise RejectedError("RAUC does not say what the bundle is") from err
    if found != (compatible(image.board), image.version, "verity"):
        raise RejectedError(f"RAUC reads {found} in the bundle")


def _place(source: Path, target: Path) -> None:
    """Put a file there without copying it where that is possible; nobody writes to it."""
    try:
        shutil.copyfile(source, target)
    except OSError as err:
        raise SetupError(f"cannot read {source}: {err.strerror}") from err


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _manifest(image: Artifacts, root: bytes, salt: bytes, tree_length: int) -> bytes:
    lines = ["[update]", f"compatible={compatible(image.board)}", f"version={image.version}", ""]
    lines += ["[bundle]", "format=verity", f"verity-hash={root.hex()}", f"verity-salt={salt.hex()}"]
    lines += [f"verity-size={tree_length}", ""]
    for slot_class, inside, artifact in IMAGES:
        path = image.file(artifact)
        lines += [f"[image.{slot_class}]", f"filename={inside}"]
        lines += [f"sha256={sha256_file(path)}", f"size={path.stat().st_size}", ""]
    return "\n".join(lines).encode()
