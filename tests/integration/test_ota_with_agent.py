"""The operator's side and the box's side together: the agent's own code against our server, repository and pack."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.x509.oid import NameOID
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from omamori_agent.config import EnrolmentLimits, Paths
from omamori_agent.feed.errors import FeedRefusedError
from omamori_agent.feed.store import FeedStore
from omamori_agent.feed.trust import FeedRepository
from omamori_agent.identity.certificate import make_key, make_request, select_chain
from omamori_agent.identity.enrolment import EnrolmentClient, EnrolmentRefusedError
from omamori_ota import keys, packs, pki
from omamori_ota.boxes import new_claim
from omamori_ota.clock import system_clock
from omamori_ota.enrolment_server import ServerLimits
from omamori_ota.enrolment_service import ServiceConfig, make_server
from omamori_ota.keys import DEVICE_CA, KeyDirectory
from omamori_ota.registry import Registry
from omamori_ota.repository import Repository
from omamori_ota.roles import Lifetimes
from omamori_protocol.provision import Provision
from omamori_signatures import cli as feed_cli

DEMO = Path(__file__).resolve().parents[2] / "signatures" / "demo"
SERIAL = "ZA35-000001"


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("operator")
    made = keys.init(place / "keys", system_clock, Lifetimes())
    pki.issue_server(made, place / "tls", ["127.0.0.1"], system_clock)
    return place


@pytest.fixture
def provision(operator: Path, tmp_path: Path) -> Iterator[Provision]:
    claim = new_claim()
    registry = tmp_path / "registry.db"
    with Registry(registry, KeyDirectory(operator / "keys").authority_certificate(DEVICE_CA)).changing() as change:
        change.add(SERIAL, claim, datetime.now(UTC))
    config = ServiceConfig(
        keys=operator / "keys",
        registry=registry,
        listen=("127.0.0.1", 0),
        tls_directory=operator / "tls",
        limits=ServerLimits(),
    )
    with make_server(config, system_clock) as server:
        worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        worker.start()
        yield Provision(
            serial=SERIAL,
            claim=claim,
            enrolment_url=f"https://127.0.0.1:{server.server_address[1]}",
            broker_host="broker.example",
            broker_port=8883,
            repository_url="https://repo.test",
            channel="demo",
        )
        server.shutdown()
        worker.join()


def enrol(provision: Provision, operator: Path, key: object) -> object:
    client = EnrolmentClient(provision, str(operator / "keys/trust/service-ca.pem"), EnrolmentLimits())
    found = client.enroll(make_request(key, SERIAL))  # type: ignore[arg-type]
    return select_chain(found, key, SERIAL, datetime.now(UTC).timestamp())[0]  # type: ignore[arg-type]


def test_box_enrols_with_its_claim_and_again_after_a_power_cut(provision: Provision, operator: Path) -> None:
    key = make_key()
    certificate = enrol(provision, operator, key)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == SERIAL  # type: ignore[attr-defined]
    assert enrol(provision, operator, key) == certificate


def test_box_with_another_key_is_refused_with_a_reason(provision: Provision, operator: Path) -> None:
    enrol(provision, operator, make_key())
    with pytest.raises(EnrolmentRefusedError, match="used with another key") as caught:
        enrol(provision, operator, make_key())
    assert caught.value.status == 409


class DiskFetcher(FetcherInterface):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._directory / urlsplit(url).path.lstrip("/")
        if not path.is_file():
            raise DownloadHTTPError("not found", 404)
        return iter([path.read_bytes()])


class BoxClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def test_box_takes_the_published_demonstration_feed_and_never_an_older_one(operator: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repository = Repository(repo, KeyDirectory(operator / "keys"), system_clock)
    repository.init()
    box = Paths(tmp_path / "box")
    for directory in (box.feed, box.feed_current.parent, box.empty_feed):
        directory.mkdir(parents=True, exist_ok=True)
    store = FeedStore(box, reserve_bytes=0)
    store.recover()
    trusted = FeedRepository(
        base_url="https://repo.test",
        device="ZA35-000001",
        channel="demo",
        root_file=operator / "keys/trust/root.json",
        metadata_dir=tmp_path / "box/metadata",
        fetcher=DiskFetcher(repo),
        clock=BoxClock(),
    )
    for serial in (1, 2):
        out = tmp_path / f"pack{serial}.tar.gz"
        assert feed_cli.main(["build", str(DEMO), "--serial", str(serial), "--out", str(out)]) == 0
        repository.publish_feed(packs.read_pack(out), "demo")
        assert trusted.refresh().serial == serial
        trusted.download(store.download_path)
        feed = store.add(serial, lambda manifest: None)
        assert {item.name for item in feed.manifest.lists} >= {"dangerous", "malware", "addresses"}
        assert (feed.directory / "engine/dangerous.lst").read_text() == "bWFsd2FyZS50ZXN0\ncGhpc2hpbmcudGVzdA==\n"
        if serial == 1:
            old = {path: path.read_bytes() for path in repo.rglob("*.json")}
    (repo / "metadata/timestamp.json").write_bytes(old[repo / "metadata/timestamp.json"])
    with pytest.raises(FeedRefusedError):
        trusted.refresh()
