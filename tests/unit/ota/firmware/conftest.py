"""Small images, and programs that behave like the real ones as far as bundles need them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from omamori_ota.errors import ProgramError
from omamori_ota.firmware import payloads
from omamori_ota.firmware.bundle_keys import TRUST
from omamori_ota.firmware.programs import HostPrograms
from omamori_ota.firmware.publication import FirmwareRepository
from omamori_ota.firmware.release_directory import ReleaseDirectory, ReleaseRequest, make_release
from omamori_ota.firmware.signing import BundleKey, BundleSigner
from omamori_ota.keys import KeyDirectory
from omamori_protocol.firmware_release import Importance
from omamori_protocol.hash_tree import hash_tree
from unit.ota.conftest import START, ManualClock

BOARD = "x86_64-uefi"
BLOCK = 131072
SALT = hashlib.sha256(b"salt").digest()


class SimulatedPrograms:
    """mksquashfs that lays files out as the real one does without compression, RAUC that checks the signature.

    openssl is the real one of this machine.
    """

    def __init__(self) -> None:
        self.host = HostPrograms()

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        binds: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
        input_bytes: bytes = b"",
    ) -> bytes:
        match Path(argv[0]).name:
            case "mksquashfs":
                return self._squash(Path(argv[1]), Path(argv[2]))
            case "rauc":
                return self._info(Path(str(argv[1]).removeprefix("--conf=")), Path(argv[-1]))
            case _:
                return self.host.run(argv, binds=binds, env=env, input_bytes=input_bytes)

    def _squash(self, source: Path, target: Path) -> bytes:
        data = bytearray(b"hsqs".ljust(96, b"\1"))
        for path in sorted(source.iterdir()):
            content = path.read_bytes()
            for at in range(0, len(content), BLOCK):
                if content[at : at + BLOCK].strip(b"\0"):
                    data += content[at : at + BLOCK]
        data += b"inodes and directories"
        target.write_bytes(bytes(data) + bytes(-len(data) % 4096))
        return b""

    def _info(self, settings: Path, bundle: Path) -> bytes:
        options = dict(line.split("=", 1) for line in settings.read_text().splitlines() if "=" in line)
        assert options["check-purpose"] == "codesign"
        data = bundle.read_bytes()
        length = int.from_bytes(data[-8:], "big")
        message = bundle.with_name("message.der")
        message.write_bytes(data[-8 - length : -8])
        # Test keys are of the year 2030.
        line = ["openssl", "cms", "-verify", "-inform", "DER", "-in", message, "-CAfile", options["path"]]
        try:
            manifest = self.host.run([*line, "-purpose", "any", "-no_check_time"]).decode()
        finally:
            message.unlink()
        fields = dict(line.split("=", 1) for line in manifest.splitlines() if "=" in line)
        payload = data[: -8 - length]
        tree = int(fields["verity-size"])
        made = hash_tree([payload[: len(payload) - tree]], bytes.fromhex(fields["verity-salt"]))
        if made.data != payload[len(payload) - tree :] or made.root.hex() != fields["verity-hash"]:
            raise ProgramError("payload does not match")
        update = {"compatible": fields["compatible"], "version": fields["version"]}
        return json.dumps({"update": update, "bundle": {"format": fields["format"]}}).encode()


def content(seed: int, size: int) -> bytes:
    """Return bytes that compress a little, as programs do."""
    source = random.Random(seed)
    words = [source.randbytes(12) for _ in range(4000)]
    return b"".join(source.choice(words) for _ in range(size // 12 + 1))[:size]


def write_image(place: Path, version: str, root: bytes, boot: bytes, *, epoch: int = 1, board: str = BOARD) -> Path:
    """Write an artifact directory."""
    place.mkdir()
    tree = hash_tree([root], SALT)
    files = {
        "root.erofs": root,
        "root.verity": b"verity".ljust(4096, b"\0") + tree.data,
        "boot.vfat": boot,
        "packages.json": json.dumps(
            [{"name": "libc6", "version": "2.41-12", "arch": "amd64", "sha256": "c" * 64}]
        ).encode(),
    }
    for name, data in files.items():
        (place / name).write_bytes(data)
    manifest = {
        "format": 1,
        "board": board,
        "version": version,
        "flavour": "release",
        "security_epoch": epoch,
        "build_time": 1_890_000_000,
        "roothash": tree.root.hex(),
        "salt": SALT.hex(),
        "lock": {"root": "locked"},
        "drift": [],
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
    }
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


ROOT = content(1, 5 * BLOCK) + bytes(BLOCK) + content(2, 4 * BLOCK)
BOOT = content(3, 2 * BLOCK) + bytes(2 * BLOCK)


def changed(data: bytes, *, at: int = 100_000, size: int = 5000, seed: int = 9) -> bytes:
    """Return data in which something was replaced by something larger, as in an update."""
    return (data[:at] + content(seed, size + 4096) + data[at + size :])[: len(data)]


MakeRelease = Callable[..., ReleaseDirectory]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack quickly; how well is measured with real images."""
    monkeypatch.setattr(payloads, "LEVEL", 3)
    monkeypatch.setattr(payloads, "DELTA_LEVEL", 3)


@pytest.fixture
def programs() -> SimulatedPrograms:
    return SimulatedPrograms()


@pytest.fixture
def signer(key_directory: KeyDirectory, programs: SimulatedPrograms) -> BundleSigner:
    return BundleSigner(BundleKey.of_directory(key_directory.path), programs)


@pytest.fixture
def request_of(tmp_path: Path, key_directory: KeyDirectory) -> Callable[..., ReleaseRequest]:
    def make(**changes: object) -> ReleaseRequest:
        notes = {"ja": tmp_path / "notes-ja", "en": tmp_path / "notes-en"}
        notes["ja"].write_text("# 変更点\n- 安定性を改善しました。\n", encoding="utf-8")
        notes["en"].write_text("# Changes\n- More stable.\n", encoding="utf-8")
        lock = tmp_path / "device.lock"
        lock.write_text("cbor2==6.1.4 \\\n    --hash=sha256:00\nbackports.zstd==1.8.0\n")
        values = {
            "importance": Importance.SCHEDULED,
            "min_from": "",
            "notes": notes,
            "wheels": lock,
            "trust": key_directory.path / TRUST,
            "revision": "d" * 40,
            "now": START,
        }
        return ReleaseRequest(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make(
    tmp_path: Path,
    programs: SimulatedPrograms,
    signer: BundleSigner,
    request_of: Callable[..., ReleaseRequest],
) -> MakeRelease:
    """Make a release of a small image."""

    def build(
        version: str, root: bytes = ROOT, boot: bytes = BOOT, *, epoch: int = 1, board: str = BOARD, **changes: object
    ) -> ReleaseDirectory:
        number = len(list(tmp_path.glob("image*")))
        image = write_image(tmp_path / f"image{number}", version, root, boot, epoch=epoch, board=board)
        out = tmp_path / f"release{number}-{version}"
        return make_release(image, out, request_of(**changes), signer, programs, lambda _done, _total: None)

    return build


@pytest.fixture
def firmware(tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock) -> FirmwareRepository:
    made = FirmwareRepository(tmp_path / "repo", key_directory, clock)
    made.init()
    return made
