"""Keys, clock, repository and packs for the tests of omamori_ota."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from omamori_ota import keys
from omamori_ota.keys import KeyDirectory
from omamori_ota.packs import VerifiedPack, read_pack
from omamori_ota.registry import Registry
from omamori_ota.repository import Repository
from omamori_ota.roles import Lifetimes
from omamori_protocol.feed_manifest import FeedManifest
from omamori_signatures.pack_writer import write_pack

START = datetime(2030, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: int) -> None:
        self.now += timedelta(**duration)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def key_directory(tmp_path_factory: pytest.TempPathFactory) -> KeyDirectory:
    return keys.init(tmp_path_factory.mktemp("operator") / "keys", lambda: START, Lifetimes())


@pytest.fixture
def repository(tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock) -> Repository:
    made = Repository(tmp_path / "repo", key_directory, clock)
    made.init()
    return made


@pytest.fixture
def make_pack(tmp_path: Path) -> Callable[..., VerifiedPack]:
    def make(serial: int, channel: str = "demo") -> VerifiedPack:
        manifest = FeedManifest(
            serial=serial,
            created="2030-01-01T00:00:00Z",
            channel=channel,
            engine_min="8.0.0",
            files=(),
            lists=(),
            rules=(),
        )
        path = tmp_path / f"pack-{channel}-{serial}.tar.gz"
        path.write_bytes(write_pack(manifest, {}))
        return read_pack(path)

    return make


@pytest.fixture
def registry(tmp_path: Path, key_directory: KeyDirectory) -> Registry:
    return Registry(tmp_path / "registry.db", key_directory.authority_certificate(keys.DEVICE_CA))
