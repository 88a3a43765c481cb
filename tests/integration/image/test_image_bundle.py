"""A release of the real image, by the operator's commands, judged by RAUC itself; and keys that live in a token."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware.errors import ToolError
from omamori_firmware.tools import ToolsTree
from omamori_ota.cli import main as ota
from omamori_ota.firmware import payloads
from omamori_ota.firmware.artifacts import read_artifacts
from omamori_ota.firmware.bundle import BUNDLE, make_bundle, prove_bundle
from omamori_ota.firmware.layout import MappedFile
from omamori_ota.firmware.programs import TreePrograms
from omamori_ota.firmware.release_directory import ReleaseDirectory
from omamori_ota.firmware.signing import BundleKey, BundleSigner, read_envelope
from omamori_protocol.firmware_release import index_target

pytestmark = [pytest.mark.root, pytest.mark.image, pytest.mark.timeout(600)]
LOCK = Path(__file__).parents[3] / "requirements" / "device.lock"
MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Pack quickly; how well is a matter of benches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "LEVEL", 1)
        patch.setattr(payloads, "DELTA_LEVEL", 1)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("bundle")
    (made / "ja.md").write_text("# 変更点\n- 安定性を改善しました。\n", encoding="utf-8")
    (made / "en.md").write_text("# Changes\n- More stable.\n", encoding="utf-8")
    yield made
    shutil.rmtree(made)


def as_version(release: Path, place: Path, version: str) -> Path:
    """Return the image under another version; its big files are the same ones."""
    image = place / f"image-{version}"
    image.mkdir()
    for name in ("root.erofs", "root.verity", "boot.vfat", "packages.json"):
        (image / name).symlink_to(release / name)
    manifest = json.loads((release / "manifest.json").read_text())
    (image / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    return image


def bundle(image: Path, keys: Path, place: Path, out: str, *more: str) -> ReleaseDirectory:
    notes = ["--notes-ja", str(place / "ja.md"), "--notes-en", str(place / "en.md"), "--wheels", str(LOCK)]
    line = ["bundle", "--image", str(image), "--keys", str(keys), "--out", str(place / out), *notes, *more]
    assert ota(line) == 0
    return ReleaseDirectory(place / out)


@pytest.fixture(scope="module")
def made(release: Path, keys: Path, place: Path) -> ReleaseDirectory:
    return bundle(as_version(release, place, "1.1.0"), keys, place, "1.1.0", "--importance", "important")


def settings(place: Path, keys: Path) -> Path:
    path = place / "system.conf"
    path.write_text(
        "[system]\ncompatible=omamori-x86_64-uefi\nbootloader=noop\nbundle-formats=verity\n"
        f"[keyring]\npath={keys}/trust/bundle-ca.pem\nuse-bundle-signing-time=true\ncheck-purpose=codesign\n"
    )
    return path


def test_rauc_verifies_signature_and_payload(made: ReleaseDirectory, keys: Path, place: Path, tools: ToolsTree) -> None:
    # `resign` is the command of RAUC that reads the whole payload against its hash tree without mounting anything.
    signer = [f"--cert={keys}/bundle/bundle.crt", f"--key={keys}/bundle/bundle.key"]
    line = ["rauc", f"--conf={settings(place, keys)}", *signer, "resign"]
    line += [f"--signing-keyring={keys}/trust/bundle-ca.pem", str(made.path / BUNDLE), str(place / "again.raucb")]
    tools.run(line, binds=[keys, place])
    again = (place / "again.raucb").read_bytes()
    with MappedFile(made.path / BUNDLE) as data:
        end = len(data) - 8 - int.from_bytes(data[-8:], "big")
        assert again[:end] == data[:end]
    spoilt = bytearray(again)
    spoilt[end // 2] ^= 1
    (place / "again.raucb").write_bytes(spoilt)
    with pytest.raises(ToolError):
        tools.run([*line[:-2], str(place / "again.raucb"), str(place / "third.raucb")], binds=[keys, place])
    (place / "again.raucb").unlink()


def test_both_hash_trees_are_computed_on_the_box(made: ReleaseDirectory) -> None:
    index = made.index(made.release.full)
    assert sum(item.is_computed for item in index.segments) == 2
    assert max(item.length for item in index.segments if not item.is_computed) <= payloads.FULL_SEGMENT_BYTES


def test_the_same_image_gives_the_same_payload(made: ReleaseDirectory, keys: Path, place: Path) -> None:
    programs = TreePrograms()
    image = read_artifacts(made.path / "base")
    again = make_bundle(image, place / "twice.raucb", BundleSigner(BundleKey.of_directory(keys), programs), programs)
    with MappedFile(made.path / BUNDLE) as first, MappedFile(again.path) as second:
        assert first[: again.payload_length] == second[: again.payload_length]
    again.path.unlink()


def older(made: ReleaseDirectory, release: Path, place: Path) -> Path:
    """Return what is needed of an older release whose image was the same."""
    path = place / "1.0.0"
    path.mkdir()
    as_version(release, place, "1.0.0").rename(path / "base")
    full = dataclasses.replace(made.release.full, path=index_target(made.release.board, "1.0.0"))
    record = dataclasses.replace(made.release, version="1.0.0", payloads=(full,))
    (path / "release.json").write_bytes(record.to_json())
    return path


def test_delta_of_the_real_image(release: Path, made: ReleaseDirectory, place: Path) -> None:
    assert ota(["delta", "--from", str(older(made, release, place)), "--to", str(made.path)]) == 0
    delta = ReleaseDirectory(made.path).release.delta_from("1.0.0")
    assert delta is not None
    assert delta.length < 64 * 1024


@pytest.fixture
def token(keys: Path, place: Path, tools: ToolsTree, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A software token that holds the bundle's key and a firmware key; gives the file with the PIN."""
    folder = place / "token"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tokens").mkdir(parents=True)
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    (folder / "pin").write_text("4711")
    monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    environment: dict[str, Any] = dict(os.environ)
    line = ["softhsm2-util", "--init-token", "--free", "--label", "omamori", "--so-pin", "0815", "--pin", "4711"]
    tools.run(line, binds=[folder], env=environment)
    for label, number, key in (
        ("bundle", "01", keys / "bundle/bundle.key"),
        ("owner", "02", keys / "pki/device-ca.key"),
    ):
        line = ["softhsm2-util", "--import", str(key), "--token", "omamori", "--label", label, "--id", number]
        tools.run([*line, "--pin", "4711"], binds=[folder, keys], env=environment)
    return folder / "pin"


def test_a_token_signs_bundle_and_provenance(made: ReleaseDirectory, keys: Path, place: Path, token: Path) -> None:
    programs = TreePrograms()
    uri = f"pkcs11:token=omamori;object=bundle;type=private?pin-source={token}"
    signer = BundleSigner(BundleKey.of_token(uri, keys / "bundle/bundle.crt", MODULE), programs, (token.parent,))
    image = read_artifacts(made.path / "base")
    again = make_bundle(image, place / "token.raucb", signer, programs)
    prove_bundle(again.path, image, keys / "trust/bundle-ca.pem", programs)
    again.path.unlink()
    (place / "statement").write_bytes(signer.envelope(b'{"hello": 1}'))
    assert read_envelope(place / "statement", signer.certificate) == {"hello": 1}


def test_publication_with_a_token_and_a_stick(
    made: ReleaseDirectory, keys: Path, place: Path, token: Path, tools: ToolsTree, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, staged, stick, public = (place / name for name in ("repo", "staged.json", "stick", "owner.pub"))
    stick.mkdir()
    line = ["openssl", "pkey", "-in", str(keys / "pki/device-ca.key"), "-pubout", "-out", str(public)]
    tools.run(line, binds=[keys, place])
    assert ota(["repository", "init", str(keys), str(repository)]) == 0
    assert ota(["firmware", "add-owner", str(keys), str(repository), str(public)]) == 0
    assert ota(["firmware", "stage", str(keys), str(repository), str(made.path), "--out", str(staged)]) == 0
    uri = f"pkcs11:token=omamori;object=owner;type=private?pin-source={token}"
    line = ["firmware", "sign", str(staged), str(public), "--pkcs11", uri, "--pkcs11-module", str(MODULE)]
    assert ota([*line, "--bind", str(token.parent)]) == 0
    assert ota(["firmware", "sign", str(staged), str(keys / "tuf/firmware2.pem")]) == 0
    assert ota(["firmware", "release", str(keys), str(repository), str(made.path), str(staged)]) == 0
    capsys.readouterr()
    assert ota(["firmware", "list", "--json", str(keys), str(repository)]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed == ReleaseDirectory(made.path).release.to_custom()
    line = ["firmware", "stick", str(keys), str(repository), str(stick), "--board", "x86_64-uefi", "--version", "1.1.0"]
    assert ota(line) == 0
    names = {path.name.split(".", 1)[1] for path in stick.rglob("x86_64-uefi/1.1.0/*")}
    assert names == {"release.json", "full.index", "full.payload", "notes.ja.md", "notes.en.md"}


def test_secure_boot_takes_kernels_of_either_key_while_db_changes(
    release: Path, keys: Path, place: Path, tools: ToolsTree
) -> None:
    """The middle of a change of db: what a box's variables then hold, and what starts with them."""
    folder = place / "db"
    folder.mkdir()
    assert ota(["keys", "init", str(folder / "next")]) == 0
    new, old = folder / "next/secureboot", keys / "secureboot"
    line = ["virt-fw-vars", "--input", str(release / "vars.fd"), "--output", str(folder / "vars.fd")]
    line += ["--add-db", "6f6d616d-6f72-4900-8000-00000000000b", str(new / "db.crt")]
    tools.run(line, binds=[release, folder, keys])
    said = tools.run(["virt-fw-vars", "--input", str(folder / "vars.fd"), "--print", "--verbose"], binds=[folder])
    database = said.decode().split("name=db guid", 1)[1].split("\nname=", 1)[0]
    assert database.count("subject CN=Omamori Secure Boot db") == 2
    signed = folder / "signed.efi"
    line = ["sbsign", "--key", str(new / "db.key"), "--cert", str(new / "db.crt"), "--output", str(signed)]
    tools.run([*line, str(release / "omamori.efi")], binds=[release, folder])
    tools.run(["sbverify", "--cert", str(new / "db.crt"), str(signed)], binds=[folder])
    tools.run(["sbverify", "--cert", str(old / "db.crt"), str(release / "omamori.efi")], binds=[release, keys])
    with pytest.raises(ToolError, match="verification failed"):
        tools.run(["sbverify", "--cert", str(new / "db.crt"), str(release / "omamori.efi")], binds=[release, folder])
