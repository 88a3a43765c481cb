"""The commands of releases, as people type them; programs that only root can run are tested with the image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography import x509

from omamori_ota import cli
from omamori_ota.keys import KeyDirectory

from .conftest import ROOT, MakeRelease, changed


@pytest.fixture
def keys(tmp_path: Path, key_directory: KeyDirectory) -> Path:
    shutil.copytree(key_directory.path, tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def repo(tmp_path: Path, keys: Path) -> Path:
    assert cli.main(["repository", "init", str(keys), str(tmp_path / "repo")]) == 0
    return tmp_path / "repo"


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_three_steps_publish(
    tmp_path: Path, keys: Path, repo: Path, make: MakeRelease, capsys: pytest.CaptureFixture[str]
) -> None:
    release, staged = make("1.2.0"), tmp_path / "staged.json"
    assert run("firmware", "stage", keys, repo, release.path, "--out", staged) == 0
    assert "0 of 2 signed" in capsys.readouterr().out
    assert run("firmware", "release", keys, repo, release.path, staged) == 1
    assert "hint: omamori-ota firmware sign" in capsys.readouterr().err
    for name in ("firmware1", "firmware2"):
        assert run("firmware", "sign", staged, keys / f"tuf/{name}.pem") == 0
        said = capsys.readouterr().out
        assert "release 1.2.0 for x86_64-uefi: scheduled, epoch 1" in said
        assert release.release.bundle.sha256 in said  # what one signs is shown
    assert run("firmware", "release", "--json", keys, repo, release.path, staged) == 0
    assert json.loads(capsys.readouterr().out)["versions"]["firmware"] == 2
    assert run("firmware", "list", keys, repo) == 0
    assert "release 1.2.0" in capsys.readouterr().out


def test_delta_show_publish_and_stick(
    tmp_path: Path, keys: Path, repo: Path, make: MakeRelease, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = make("1.1.0"), make("1.2.0", changed(ROOT))
    assert run("delta", "--from", old.path, "--to", new.path, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["from"], made["to"]) == ("1.1.0", "1.2.0")
    assert 0 < made["share"] < 0.2
    assert run("delta", "--from", new.path, "--to", old.path) == 1
    assert "not older" in capsys.readouterr().err
    assert run("firmware", "show", new.path, "--certificate", keys / "bundle/bundle.crt", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["release"]["version"] == "1.2.0"
    assert shown["provenance"]["predicateType"] == "https://slsa.dev/provenance/v1"
    assert run("firmware", "show", new.path) == 0
    assert "安定性" in capsys.readouterr().out
    assert run("firmware", "show", new.path, "--certificate", keys / "pki/service-ca.crt") == 1
    assert run("firmware", "publish", keys, repo, old.path, new.path) == 0
    assert not list(new.path.glob(".staged*"))
    stick = tmp_path / "stick"
    stick.mkdir()
    line = ["firmware", "stick", keys, repo, stick, "--board", "x86_64-uefi", "--version", "1.2.0", "--from", "1.1.0"]
    capsys.readouterr()
    assert run(*line, "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == "1.2.0"
    assert list(stick.rglob("*.from-1.1.0.payload"))
    assert run(*line, "--valid", "91d") == 1


def test_authority_of_bundles_changes_step_by_step(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bundle-ca", "adopt", keys) == 1
    assert "hint: omamori-ota bundle-ca prepare" in capsys.readouterr().err
    for step, count in (("renew", 1), ("prepare", 2), ("adopt", 2), ("retire", 1)):
        assert run("bundle-ca", step, keys) == 0
        trusted = x509.load_pem_x509_certificates((keys / "trust/bundle-ca.pem").read_bytes())
        assert len(trusted) == count


def test_ceremony_prints_and_keeps_its_protocol(tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = ["--person", "Hanako Yamada", "--person", "山田 太郎"]
    assert run("keys", "ceremony", keys, *people, "--occasion", "first keys", "--out", tmp_path / "protocol.txt") == 0
    assert capsys.readouterr().out == (tmp_path / "protocol.txt").read_text(encoding="utf-8")
    assert run("keys", "ceremony", keys, *people[:2], "--occasion", "alone") == 1


def test_token_needs_library_and_no_pin(
    tmp_path: Path, keys: Path, repo: Path, make: MakeRelease, capsys: pytest.CaptureFixture[str]
) -> None:
    staged = tmp_path / "staged.json"
    assert run("firmware", "stage", keys, repo, make("1.2.0").path, "--out", staged) == 0
    line = ["firmware", "sign", staged, keys / "trust/desired.pem", "--pkcs11"]
    assert run(*line, "pkcs11:object=owner") == 1
    assert "needs its library" in capsys.readouterr().err
    assert run(*line, "pkcs11:object=owner?pin-value=1234", "--pkcs11-module", "/lib/x.so") == 1
    assert "without a PIN" in capsys.readouterr().err


def test_what_is_missing_is_named(tmp_path: Path, keys: Path, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("firmware", "stage", keys, repo, tmp_path, "--out", tmp_path / "x") == 1
    assert "hint: make one: omamori-ota bundle" in capsys.readouterr().err
    notes = tmp_path / "notes"
    notes.write_text("変更")
    line = ["bundle", "--image", tmp_path, "--keys", keys, "--out", tmp_path / "out"]
    assert run(*line, "--notes-ja", notes, "--notes-en", notes) == 1
    assert "manifest.json" in capsys.readouterr().err
