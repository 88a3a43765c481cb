"""A release: the same from the same image, checked by another program, small for those who have its predecessor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.firmware.artifacts import read_artifacts
from omamori_ota.firmware.bundle import BUNDLE, Bundle, make_bundle, prove_bundle
from omamori_ota.firmware.layout import MappedFile
from omamori_ota.firmware.payloads import WINDOW_LOG, prove_payload, unpack_segment
from omamori_ota.firmware.release_directory import ReleaseDirectory, ReleaseRequest, make_release
from omamori_ota.firmware.signing import BundleSigner, open_envelope, read_envelope
from omamori_ota.keys import KeyDirectory
from omamori_protocol.firmware_release import Importance
from omamori_protocol.segments import ReferenceSource

from .conftest import BOOT, ROOT, MakeRelease, SimulatedPrograms, changed, content, write_image

NO_PROGRESS = lambda _done, _total: None  # noqa: E731


def unpacked(directory: ReleaseDirectory, number: int, base: ReleaseDirectory | None = None) -> bytes:
    """Unpack a payload as a box does: from its file, its index, what lies there already and what runs."""
    payload = directory.release.payloads[number]
    index, packed = directory.index(payload), directory.payload_file(payload).read_bytes()
    with (
        MappedFile((base or directory).path / "base/root.erofs") as root,
        MappedFile((base or directory).path / "base/boot.vfat") as boot,
    ):
        old = {ReferenceSource.ROOT: root, ReferenceSource.BOOT: boot} if base else {}
        have = b""
        for place in index.places():
            frame = packed[place.payload_offset : place.payload_offset + place.segment.packed]
            data = unpack_segment(place.segment, frame, old, have)
            assert place.segment.matches(data)
            have += data
    return have


def test_release_holds_what_the_record_says(make: MakeRelease) -> None:
    made = make("1.2.0", importance=Importance.IMPORTANT, min_from="1.0.0")
    made.check()
    release = ReleaseDirectory(made.path).release
    assert (release.version, release.importance, release.min_from) == ("1.2.0", Importance.IMPORTANT, "1.0.0")
    assert release.bundle.length == (made.path / BUNDLE).stat().st_size
    assert unpacked(made, 0) == (made.path / BUNDLE).read_bytes()
    assert sorted(path.name for path in made.path.iterdir()) == [
        "base", "bundle.raucb", "full.index", "full.payload", "notes.en.md", "notes.ja.md", "provenance.json",
        "release.json", "sbom.json",
    ]  # fmt: skip


def test_hash_trees_do_not_travel(make: MakeRelease) -> None:
    made = make("1.2.0")
    index = made.index(made.release.full)
    computed = [item for item in index.segments if item.is_computed]
    assert len(computed) == 2
    assert sum(part.length for part in computed[0].tree_parts) == len(ROOT)
    assert any(part.offset is None for part in computed[0].tree_parts)  # the bundle leaves zeros out


def test_the_same_image_gives_the_same_payload(
    tmp_path: Path, signer: BundleSigner, programs: SimulatedPrograms, make: MakeRelease
) -> None:
    image = read_artifacts(write_image(tmp_path / "twice", "1.2.0", ROOT, BOOT))
    one, two = (make_bundle(image, tmp_path / name, signer, programs) for name in ("one", "two"))
    assert one.payload_sha256 == two.payload_sha256
    assert one.path.read_bytes()[: one.payload_length] == two.path.read_bytes()[: two.payload_length]
    assert Bundle.read(one.path) == one
    other = read_artifacts(write_image(tmp_path / "other", "1.2.0", changed(ROOT), BOOT))
    assert make_bundle(other, tmp_path / "three", signer, programs).tree_salt != one.tree_salt
    made, again = make("1.2.1"), make("1.2.1")
    assert (made.path / "sbom.json").read_bytes() == (again.path / "sbom.json").read_bytes()


def test_delta_is_small_and_becomes_the_bundle(make: MakeRelease) -> None:
    old, new = make("1.1.0"), make("1.2.0", changed(ROOT), changed(BOOT, at=60_000))
    delta = new.add_delta(old, NO_PROGRESS)
    assert delta.length < new.release.full.length / 8
    again = ReleaseDirectory(new.path)
    assert again.release.delta_from("1.1.0") == delta
    again.check()
    assert unpacked(again, 1, old) == (new.path / BUNDLE).read_bytes()
    sources = {item.source for segment in again.index(delta).segments for item in segment.references}
    assert sources == {ReferenceSource.ROOT, ReferenceSource.BOOT}


def test_delta_to_what_runs_already_carries_nothing(make: MakeRelease) -> None:
    old, new = make("1.1.0"), make("1.1.1")
    assert new.add_delta(old, NO_PROGRESS).length < 4096


def test_deltas_are_named_newest_first_and_replaced(make: MakeRelease) -> None:
    first, second, new = make("1.0.0"), make("1.1.0"), make("1.2.0", changed(ROOT))
    for base in (first, second, first):
        new.add_delta(base, NO_PROGRESS)
    assert [item.base for item in new.release.payloads] == ["", "1.1.0", "1.0.0"]


def test_delta_on_another_build_of_the_version_is_noticed(make: MakeRelease) -> None:
    old, new = make("1.1.0"), make("1.2.0", changed(ROOT))
    payload = new.add_delta(old, NO_PROGRESS)
    with MappedFile(new.path / BUNDLE) as bundle, MappedFile(new.path / "base/boot.vfat") as boot:
        other = bytearray(ROOT)
        other[4096:8192] = content(77, 4096)
        runs = {ReferenceSource.ROOT: bytes(other), ReferenceSource.BOOT: boot}
        with pytest.raises(RejectedError, match="does not become"):
            prove_payload(new.index(payload), new.payload_file(payload), bundle, runs)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["1.2.0", "1.3.0"])
def test_delta_from_what_is_not_older_is_refused(make: MakeRelease, version: str) -> None:
    old, new = make(version), make("1.2.0", changed(ROOT))
    with pytest.raises(RejectedError, match="not older"):
        new.add_delta(old, NO_PROGRESS)


def test_delta_past_a_barrier_or_from_another_board_is_refused(make: MakeRelease) -> None:
    new = make("1.2.0", changed(ROOT), min_from="1.1.0")
    with pytest.raises(RejectedError, match=r"leads over 1\.1\.0"):
        new.add_delta(make("1.0.0"), NO_PROGRESS)
    with pytest.raises(RejectedError, match="for the board"):
        new.add_delta(make("1.1.0", board="other"), NO_PROGRESS)
    assert len(ReleaseDirectory(new.path).release.payloads) == 1


def test_delta_that_saves_nothing_is_refused(make: MakeRelease) -> None:
    old, new = make("1.1.0", content(50, len(ROOT)), content(51, len(BOOT))), make("1.2.0")
    with pytest.raises(RejectedError, match="the full payload"):
        new.add_delta(old, NO_PROGRESS)
    assert not list(new.path.glob("from-*"))


def test_wrong_authority_is_refused_and_nothing_appears(
    tmp_path: Path,
    signer: BundleSigner,
    programs: SimulatedPrograms,
    request_of: Callable[..., ReleaseRequest],
    key_directory: KeyDirectory,
) -> None:
    image = write_image(tmp_path / "image", "1.2.0", ROOT, BOOT)
    request = request_of(trust=key_directory.path / "trust/service-ca.pem")
    with pytest.raises(RejectedError, match="RAUC refuses"):
        make_release(image, tmp_path / "out", request, signer, programs, NO_PROGRESS)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_spoilt_bundle_is_refused(
    tmp_path: Path, signer: BundleSigner, programs: SimulatedPrograms, key_directory: KeyDirectory
) -> None:
    image = read_artifacts(write_image(tmp_path / "image", "1.2.0", ROOT, BOOT))
    bundle = make_bundle(image, tmp_path / "bundle", signer, programs)
    data = bytearray(bundle.path.read_bytes())
    data[50_000] ^= 1
    bundle.path.write_bytes(data)
    with pytest.raises(RejectedError, match="RAUC refuses"):
        prove_bundle(bundle.path, image, key_directory.path / "trust/bundle-ca.pem", programs)


@pytest.mark.parametrize("name", ["bundle.raucb", "sbom.json", "notes.ja.md", "provenance.json"])
def test_what_was_changed_afterwards_is_noticed(make: MakeRelease, name: str) -> None:
    made = make("1.2.0")
    with (made.path / name).open("r+b") as stream:
        stream.write(b"\xff")
    with pytest.raises(SetupError, match="not what the record says"):
        made.check()


def test_spoilt_payload_is_noticed(make: MakeRelease) -> None:
    made = make("1.2.0")
    path = made.path / "full.payload"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RejectedError):
        made.check()
    path.write_bytes(data[:-1])
    with pytest.raises(SetupError, match="not what its index says"):
        made.check()
    (made.path / "full.index").write_bytes(b"\xa0")
    with pytest.raises(SetupError, match="damaged"):
        made.check()


def test_changed_artifact_is_noticed(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image", "1.2.0", ROOT, BOOT)
    with (image / "root.erofs").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(SetupError, match="not what was built"):
        read_artifacts(image)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"format": 2}, SetupError),
        ({"security_epoch": None}, SetupError),
        ({"security_epoch": -1}, SetupError),
        ({"roothash": "00"}, SetupError),
        ({"files": {}}, SetupError),
        ({"flavour": "dev"}, RejectedError),
        ({"flavour": "x" * 65}, SetupError),
    ],
)
def test_unfit_manifest_is_refused(tmp_path: Path, changes: dict[str, object], error: type[Exception]) -> None:
    image = write_image(tmp_path / "image", "1.2.0", ROOT, BOOT)
    manifest = json.loads((image / "manifest.json").read_text())
    (image / "manifest.json").write_text(json.dumps(manifest | changes))
    with pytest.raises(error):
        read_artifacts(image)


def test_frames_are_within_what_boxes_take(make: MakeRelease) -> None:
    made = make("1.2.0")
    assert WINDOW_LOG == 25
    assert max(item.packed for item in made.index(made.release.full).segments) <= 2**21


def test_parts_list_and_provenance_name_what_went_in(make: MakeRelease, signer: BundleSigner) -> None:
    made = make("1.2.0")
    sbom = json.loads((made.path / "sbom.json").read_text())
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    purls = [item["purl"] for item in sbom["components"]]
    assert purls == ["pkg:deb/debian/libc6@2.41-12?arch=amd64", "pkg:pypi/backports.zstd@1.8.0", "pkg:pypi/cbor2@6.1.4"]
    statement = read_envelope(made.path / "provenance.json", signer.certificate)
    subjects = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    assert subjects[BUNDLE] == made.release.bundle.sha256
    assert subjects["sbom.json"] == made.release.sbom.sha256
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["version"] == "1.2.0"
    assert {"name": "sources", "digest": {"gitCommit": "d" * 40}} in definition["resolvedDependencies"]


def test_statement_of_somebody_else_is_refused(
    make: MakeRelease, signer: BundleSigner, key_directory: KeyDirectory
) -> None:
    made = make("1.2.0")
    data = (made.path / "provenance.json").read_bytes()
    body = json.loads(data)
    forged = json.dumps(body | {"payload": "e30="}).encode()
    for bad in (forged, json.dumps(body | {"payloadType": "text"}).encode(), b"{}", b"[1]", b"\xff"):
        with pytest.raises(RejectedError):
            open_envelope(bad, signer.certificate)
    with pytest.raises(RejectedError, match="not signed"):
        open_envelope(data, key_directory.authority_certificate("service-ca"))
    with pytest.raises(RejectedError, match="bytes"):
        open_envelope(bytes(4 * 1024 * 1024 + 1), signer.certificate)
