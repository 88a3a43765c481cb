"""The command line: the commands others rely on, errors with hints, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omamori_ota import cli
from omamori_ota.announcement import BrokerAddress
from omamori_ota.clock import parse_duration
from omamori_ota.enrolment_service import parse_listen
from omamori_ota.errors import RejectedError
from omamori_ota.keys import KeyDirectory
from omamori_ota.packs import VerifiedPack
from omamori_ota.roles import Lifetimes

from .test_factory import write_template
from .test_repository import MakePack


@pytest.fixture
def keys(key_directory: KeyDirectory) -> str:
    return str(key_directory.path)


def test_from_keys_to_published_feed(
    tmp_path: Path, keys: str, make_pack: MakePack, capsys: pytest.CaptureFixture[str]
) -> None:
    pack: VerifiedPack = make_pack(7)
    (tmp_path / "pack.tar.gz").write_bytes(pack.data)
    repo = str(tmp_path / "repo")
    assert cli.main(["repository", "init", keys, repo]) == 0
    assert cli.main(["publish", "feed", keys, repo, str(tmp_path / "pack.tar.gz"), "--channel", "demo"]) == 0
    assert cli.main(["refresh", keys, repo]) == 0
    assert "published feed channel=demo serial=7" in capsys.readouterr().out
    assert cli.main(["status", keys, repo, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["feeds"][0]["serial"] == 7
    assert {role["role"]: role["version"] for role in status["roles"]}["timestamp"] == 3
    assert cli.main(["status", keys, repo]) == 0
    assert "feed demo: serial 7" in capsys.readouterr().out


def test_file_that_is_no_pack_is_refused_with_a_reason(
    tmp_path: Path, keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = str(tmp_path / "repo")
    cli.main(["repository", "init", keys, repo])
    (tmp_path / "pack.tar.gz").write_bytes(b"not a pack")
    assert cli.main(["publish", "feed", keys, repo, str(tmp_path / "pack.tar.gz"), "--channel", "demo"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "is not a feed pack" in error
    assert "\nhint: " in error


def test_announcement_without_certificate_publishes_nothing(
    tmp_path: Path, keys: str, make_pack: MakePack, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pack.tar.gz").write_bytes(make_pack(1).data)
    repo = str(tmp_path / "repo")
    cli.main(["repository", "init", keys, repo])
    command = ["publish", "feed", keys, repo, str(tmp_path / "pack.tar.gz"), "--channel", "demo"]
    assert cli.main([*command, "--announce", "mqtts://127.0.0.1:1"]) == 1
    assert cli.main([*command, "--announce", "mqtts://127.0.0.1:1", "--tls-dir", str(tmp_path)]) == 1
    assert "pki client" in capsys.readouterr().err
    assert not (tmp_path / "repo/metadata/2.feed.json").exists()


def test_batch_of_boxes(tmp_path: Path, keys: str, capsys: pytest.CaptureFixture[str]) -> None:
    template = write_template(tmp_path / "template.json")
    arguments = ["factory", keys, str(tmp_path / "boxes.db"), "--serial", "ZA35-000001", "--count", "3"]
    assert cli.main([*arguments, "--provision-template", str(template), "--out", str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["ZA35-000001.json", "ZA35-000002.json", "ZA35-000003.json"]
    capsys.readouterr()
    assert cli.main(["boxes", keys, str(tmp_path / "boxes.db"), "--json"]) == 0
    assert [box["claim"] for box in json.loads(capsys.readouterr().out)] == ["issued"] * 3


def test_no_claim_is_printed(tmp_path: Path, keys: str, capsys: pytest.CaptureFixture[str]) -> None:
    template = write_template(tmp_path / "template.json")
    out = tmp_path / "provision.json"
    arguments = ["factory", keys, str(tmp_path / "boxes.db"), "--serial", "ZA35-000001", "--json"]
    assert cli.main([*arguments, "--provision-template", str(template), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["claim"] not in "".join(capsys.readouterr())


def test_wrong_usage_is_status_two() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["publish"])
    assert caught.value.code == 2


@pytest.mark.parametrize("text", ["0d", "90", "d", "-1d", "1w", "99999d", "1 d", "٣d"])
def test_duration_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(RejectedError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["timestamp", "timestamp=", "nobody=1d", "feed=0s"])
def test_lifetime_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(RejectedError):
        Lifetimes.parse([text])


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:65536", ":8443", "[::1]", "::1:8443", "host:port"])
def test_listen_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(RejectedError):
        parse_listen(text)


def test_listen_addresses() -> None:
    assert parse_listen("127.0.0.1:8443") == ("127.0.0.1", 8443)
    assert parse_listen("[::1]:0") == ("::1", 0)


@pytest.mark.parametrize(
    "url", ["mqtt://h:1", "mqtts://", "mqtts://h:99999", "mqtts://u:p@h:1", "mqtts://h:1/x", "h:1", "mqtts://h:1?x=1"]
)
def test_broker_address_of_another_form_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(RejectedError):
        BrokerAddress.parse(url, tmp_path)
