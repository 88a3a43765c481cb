"""The TUF client as a command: called as the public conformance suite calls one, against a real web server."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess  # noqa: TID251 - the command as the suite runs it, a test only
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, TargetFile, Targets

from omamori_agent.feed import tuf_client
from sim.repository import FAR, TARGET, RepositorySimulator, signer


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        self.server.requests.append(path)
        data = self.server.files.get(path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_args: Any) -> None:
        pass


class Client:
    """The command and the directories it is given."""

    def __init__(self, directory: Path, repo: RepositorySimulator, server: Any) -> None:
        self.metadata = directory / "metadata"
        self.targets = directory / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        self.root = directory / "root.json"
        self.root.write_bytes(repo.trusted_root)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.requests: list[str] = server.requests

    def arguments(self, command: str, *more: str) -> list[str]:
        return ["--metadata-url", f"{self.url}/metadata/", "--metadata-dir", str(self.metadata), *more, command]

    def init(self) -> int:
        return tuf_client.main(["--metadata-dir", str(self.metadata), "init", str(self.root)])

    def refresh(self) -> int:
        return tuf_client.main(self.arguments("refresh"))

    def download(self, name: str = TARGET) -> int:
        where = ["--target-name", name, "--target-dir", str(self.targets)]
        return tuf_client.main(self.arguments("download", *where, "--target-base-url", f"{self.url}/targets/"))

    @property
    def trusted(self) -> dict[str, int]:
        """Roles and versions, read as the suite reads them."""
        paths = sorted(self.metadata.glob("*.json"))
        return {path.stem: Metadata.from_file(str(path)).signed.version for path in paths}

    @property
    def downloaded(self) -> list[bytes]:
        return [path.read_bytes() for path in self.targets.rglob("*") if path.is_file()]


@pytest.fixture
def repo() -> RepositorySimulator:
    made = RepositorySimulator()
    made.publish(b"first", 1)
    return made


@pytest.fixture
def client(tmp_path: Path, repo: RepositorySimulator) -> Iterator[Client]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.files, server.requests = repo.files, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        made = Client(tmp_path, repo, server)
        assert made.init() == 0
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_init_trusts_the_root_and_asks_nobody(client: Client) -> None:
    assert client.trusted == {"root": 1}
    assert client.requests == []


def test_init_with_what_is_no_root(client: Client, tmp_path: Path) -> None:
    client.root.write_bytes(b"{}")
    assert client.init() == 1


def test_init_with_a_root_that_nobody_signed(client: Client) -> None:
    root = json.loads(client.root.read_bytes())
    for signature in root["signatures"]:
        signature["sig"] = "00" * 64
    client.root.write_text(json.dumps(root))
    shutil.rmtree(client.metadata)
    client.metadata.mkdir()
    assert client.init() == 1
    assert client.refresh() == 1
    assert client.requests == []


def test_refresh_and_download(client: Client, repo: RepositorySimulator) -> None:
    assert client.refresh() == 0
    assert client.trusted == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}
    assert client.requests[0] == "metadata/2.root.json"
    assert client.download() == 0
    assert client.downloaded == [b"first"]
    assert client.trusted["feed"] == 2
    repo.publish(b"second", 2)
    assert client.download() == 0
    assert client.downloaded == [b"second"]


def test_target_that_is_there_is_not_downloaded_again(client: Client) -> None:
    assert client.download() == 0
    client.requests.clear()
    assert client.download() == 0
    assert not any(path.startswith("targets/") for path in client.requests)


def test_refresh_begins_with_the_newest_root_it_knows(client: Client, repo: RepositorySimulator) -> None:
    for _ in range(3):
        repo.root.version += 1
        repo.write_root()
    assert client.refresh() == 0
    assert client.trusted["root"] == 4
    client.requests.clear()
    assert client.refresh() == 0
    assert client.requests[0] == "metadata/5.root.json"


@pytest.mark.parametrize(
    "arguments",
    [["--target-name", "x"], ["--target-dir", "/nowhere"], []],
)
def test_download_that_lacks_an_option(client: Client, arguments: list[str]) -> None:
    assert tuf_client.main(client.arguments("download", *arguments)) == 1


def test_unknown_target(client: Client) -> None:
    assert client.download("feed/other/pack.tar.gz") == 1
    assert client.downloaded == []


def test_repository_that_is_not_this_machine_needs_https(client: Client) -> None:
    client.url = "http://192.0.2.1:1"
    assert client.refresh() == 1


def test_refresh_without_init(tmp_path: Path) -> None:
    assert tuf_client.main(["--metadata-dir", str(tmp_path), "--metadata-url", "http://127.0.0.1:1", "refresh"]) == 1


def test_refresh_without_an_address(client: Client) -> None:
    assert tuf_client.main(["--metadata-dir", str(client.metadata), "refresh"]) == 1


def test_as_a_program(client: Client) -> None:
    line = [sys.executable, "-m", "omamori_agent.feed.tuf_client", *client.arguments("refresh")]
    assert subprocess.run(line, timeout=60, check=False).returncode == 0
    assert client.trusted["timestamp"] == 2


# Attacks, with the command's answer to each.


def refused(client: Client, **expected: int) -> None:
    assert client.refresh() == 1
    assert client.trusted == client.trusted | expected


def test_rollback(client: Client, repo: RepositorySimulator) -> None:
    old = repo.files["metadata/timestamp.json"]
    repo.publish(b"second", 2)
    assert client.refresh() == 0
    repo.files["metadata/timestamp.json"] = old
    refused(client, timestamp=3)


def test_freeze(client: Client, repo: RepositorySimulator) -> None:
    repo.timestamp.expires = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    repo.resign()
    assert client.refresh() == 1


def test_mix_and_match(client: Client, repo: RepositorySimulator) -> None:
    assert client.download() == 0
    old = repo.files[f"metadata/{repo.feed.version}.feed.json"]
    repo.publish(b"second", 2)
    repo.files[f"metadata/{repo.feed.version}.feed.json"] = old
    assert client.download() == 1
    assert client.downloaded == [b"first"]


def test_arbitrary_target(client: Client, repo: RepositorySimulator) -> None:
    place = repo.publish(b"second", 2)
    repo.files[place] = b"secone"
    assert client.download() == 1
    assert client.downloaded == []


def test_wrong_key(client: Client, repo: RepositorySimulator) -> None:
    repo.timestamp.version += 1
    repo.write(repo.timestamp, "timestamp", by=[signer()])
    assert client.refresh() == 1


def test_threshold_not_met(client: Client, repo: RepositorySimulator) -> None:
    repo.root.version += 1
    repo.write_root(by=repo.signers["root"][:1])
    refused(client, root=1)


def test_timestamp_that_changes_under_its_version(client: Client, repo: RepositorySimulator) -> None:
    assert client.refresh() == 0
    known = (client.metadata / "timestamp.json").read_bytes()
    repo.timestamp.snapshot_meta.version = 100
    repo.write(repo.timestamp, "timestamp")
    client.refresh()
    assert (client.metadata / "timestamp.json").read_bytes() == known


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_every_kind_of_key_that_the_suite_signs_with(client: Client, repo: RepositorySimulator, kind: str) -> None:
    made = getattr(CryptoSigner, f"generate_{kind}")()
    (old,) = repo.signers["timestamp"]
    repo.root.revoke_key(old.public_key.keyid, "timestamp")
    repo.root.add_key(made.public_key, "timestamp")
    repo.root.version += 1
    repo.write_root()
    repo.signers["timestamp"] = [made]
    repo.resign()
    assert client.refresh() == 0
    assert client.trusted["root"] == 2


@pytest.mark.parametrize("name", ["?", "#", "/role", "../role"])
def test_name_of_a_role_never_becomes_a_part_of_a_path(client: Client, repo: RepositorySimulator, name: str) -> None:
    role = DelegatedRole(name, [], 1, terminating=False, paths=["*"])
    keys = signer()
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    repo.targets.delegations.roles = {name: role}
    repo.targets.add_key(keys.public_key, name)
    child = Targets(expires=FAR)
    place = _put(child)
    repo.files[f"targets/{place}"] = b"deep"
    # As it is asked for: quoted.
    repo.files[f"metadata/1.{quote(name, '')}.json"] = repo.encode(child, [keys])
    repo.snapshot.meta[f"{name}.json"] = MetaFile(1)
    repo.targets.version += 1
    repo.write(repo.targets, "targets")
    repo.resign()
    assert client.download("deep") == 0
    assert client.downloaded == [b"deep"]
    assert {path.parent for path in client.metadata.parent.rglob("*.json")} <= {
        client.metadata, client.metadata / "root_history", client.metadata.parent,
    }  # fmt: skip


def test_deep_delegations(client: Client, repo: RepositorySimulator) -> None:
    """Chains as deep as the suite's, far deeper than ours."""
    parent, name = repo.targets, "targets"
    for depth in range(20):
        child = f"level{depth}"
        keys = signer()
        role = DelegatedRole(child, [], 1, terminating=False, paths=["*"])
        if parent.delegations is None:
            parent.delegations = Delegations({}, {})
        assert parent.delegations.roles is not None
        parent.delegations.roles = {child: role} | parent.delegations.roles
        parent.add_key(keys.public_key, child)
        repo.signers[child] = [keys]
        repo.snapshot.meta[f"{child}.json"] = MetaFile(1)
        if name != "targets":
            repo.write(parent, name)
        parent, name = Targets(expires=FAR), child
    repo.files["targets/" + _put(parent)] = b"deep"
    repo.write(parent, name)
    repo.targets.version += 1
    repo.write(repo.targets, "targets")
    repo.resign()
    assert client.download("deep") == 0
    assert client.downloaded == [b"deep"]


def _put(targets: Targets) -> str:
    target = TargetFile.from_data("deep", b"deep", ["sha256"])
    targets.targets["deep"] = target
    return f"{target.hashes['sha256']}.deep"
