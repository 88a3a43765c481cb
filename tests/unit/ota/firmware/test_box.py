"""What is published here, a box takes: the agent's own code over HTTPS and from a stick, full and difference."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.config import Paths
from omamori_agent.firmware.errors import UpdateRefusedError
from omamori_agent.firmware.fetch import BundleFetcher
from omamori_agent.firmware.limits import FirmwareLimits
from omamori_agent.firmware.release import FirmwareRepository as BoxRepository
from omamori_agent.firmware.store import FirmwareStore
from omamori_agent.firmware.stream import (
    STICK_URL,
    HTTPSStream,
    PayloadStream,
    RateCap,
    StickFetcher,
    StickStream,
    make_fetcher,
)
from omamori_ota.firmware.bundle import BUNDLE
from omamori_ota.firmware.publication import FirmwareRepository, add_signature
from omamori_ota.firmware.release_directory import ReleaseDirectory
from omamori_ota.firmware.stick import StickWriter
from omamori_ota.keys import KeyDirectory
from omamori_protocol.vocabulary import FirmwareReason, Slot
from sim.box import make_box
from sim.clock import ManualClock as BoxClock
from sim.firmware_box import apply_here
from sim.repository import FileServer

from .conftest import BOARD, BOOT, ROOT, MakeRelease, ManualClock, changed

NEVER = threading.Event()
NO_CAP = RateCap(0, lambda _seconds: None)


class Box:
    """The reading half of a box that runs 1.1.0."""

    def __init__(self, directory: Path, keys: KeyDirectory, clock: ManualClock, runs: ReleaseDirectory) -> None:
        self.paths: Paths = make_box(directory / "box")
        self.paths.stick.mkdir()
        self.paths.trust_root.write_bytes((keys.path / "trust/root.json").read_bytes())
        devices = self.paths.slot_devices(Slot.A)
        devices[0].parent.mkdir(parents=True)
        devices[0].write_bytes((runs.path / "base/root.erofs").read_bytes())
        devices[1].write_bytes((runs.path / "base/boot.vfat").read_bytes())
        self.limits = FirmwareLimits(reserve_bytes=0, batch_bytes=300_000)
        self.store = FirmwareStore(self.paths.firmware, reserve_bytes=0)
        self.store.load()
        self.clock = BoxClock(now_s=clock.now.timestamp())
        self.fetcher = BundleFetcher(self.store, devices, self.limits, run=apply_here)

    def take(self, version: str, repository: BoxRepository, stream: PayloadStream, base: str = "") -> bytes:
        release = repository.release(version)
        payload = release.delta_from(base) if base else release.full
        assert payload is not None
        self.fetcher.obtain(repository.payload(release, payload), payload, stream, NO_CAP, NEVER)
        return self.store.bundle.read_bytes()

    def repository(self, url: str, fetcher: object) -> BoxRepository:
        return BoxRepository(
            base_url=url,
            board=BOARD,
            root_file=self.paths.trust_root,
            metadata_dir=self.paths.firmware / "metadata",
            fetcher=fetcher,  # type: ignore[arg-type]
            clock=self.clock,
        )

    def from_stick(self) -> tuple[BoxRepository, PayloadStream]:
        return self.repository(STICK_URL, StickFetcher(self.paths.stick)), StickStream(self.paths.stick)


@pytest.fixture
def published(
    make: MakeRelease, firmware: FirmwareRepository, key_directory: KeyDirectory, tmp_path: Path
) -> tuple[ReleaseDirectory, ReleaseDirectory]:
    """Publish 1.1.0, and 1.2.0 with the way between them."""
    old = make("1.1.0")
    new = make("1.2.0", changed(ROOT), changed(BOOT, at=50_000))
    new.add_delta(old, lambda _done, _total: None)
    for release in (old, new):
        staged = tmp_path / f"staged-{release.release.version}"
        firmware.stage(release, staged)
        for signer in key_directory.signers("firmware"):
            add_signature(staged, signer)
        firmware.release(release, staged)
    return old, new


@pytest.fixture
def box(
    tmp_path: Path,
    key_directory: KeyDirectory,
    clock: ManualClock,
    published: tuple[ReleaseDirectory, ReleaseDirectory],
) -> Box:
    return Box(tmp_path, key_directory, clock, published[0])


@pytest.fixture
def server(tmp_path: Path, firmware: FirmwareRepository, box: Box) -> Iterator[FileServer]:
    root = tmp_path / "repo"
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    (tmp_path / "server").mkdir()
    with FileServer(files, tmp_path / "server") as made:
        yield made


@pytest.mark.parametrize("base", ["", "1.1.0"], ids=["full", "difference"])
def test_over_the_network(
    box: Box, server: FileServer, published: tuple[ReleaseDirectory, ReleaseDirectory], base: str
) -> None:
    fetcher = make_fetcher(server.ca_file, box.store.download, box.limits)
    repository = box.repository(server.url, fetcher)
    bundle = box.take("1.2.0", repository, HTTPSStream(fetcher, box.limits), base)
    assert bundle == (published[1].path / BUNDLE).read_bytes()
    release = published[1].release
    payload = release.delta_from("1.1.0") if base else release.full
    assert payload is not None
    assert sum(server.sent.values()) < payload.length


def test_from_a_stick(
    box: Box,
    tmp_path: Path,
    key_directory: KeyDirectory,
    clock: ManualClock,
    published: tuple[ReleaseDirectory, ReleaseDirectory],
) -> None:
    writer = StickWriter(tmp_path / "repo", key_directory, clock)
    writer.write_stick(box.paths.stick, BOARD, "1.2.0", valid=dt.timedelta(days=30))
    repository, stream = box.from_stick()
    assert box.take("1.2.0", repository, stream) == (published[1].path / BUNDLE).read_bytes()
    with pytest.raises(UpdateRefusedError) as caught:
        repository.release("1.3.0")
    assert caught.value.reason is FirmwareReason.NOT_RELEASED
