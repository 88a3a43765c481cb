"""Feed packs as an attacker would make them: each is refused, and what is refused costs no memory and no file."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol import feed_manifest, feed_pack
from omamori_protocol.errors import OversizeError, PackRejectedError, ProtocolError, UnknownVersionError
from omamori_protocol.feed_manifest import MANIFEST_NAME, FeedManifest, parse_manifest
from omamori_protocol.feed_pack import unpack
from sim.packs import PackSource, build_pack, member, pack_archive, pack_file


def manifest_body(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(PackSource().manifest().to_json())
    return body | changes


def encoded(body: Any) -> bytes:
    return json.dumps(body).encode()


def refuse(
    pack: bytes, directory: Path, error: type[ProtocolError] = PackRejectedError, match: str | None = None
) -> None:
    with pytest.raises(error, match=match):
        unpack(io.BytesIO(pack), directory)


def test_good_pack(tmp_path: Path) -> None:
    source = PackSource(serial=7, digests={"malware": ("0" * 64, "f" * 64)})
    manifest = unpack(io.BytesIO(source.build()), tmp_path)
    assert manifest == parse_manifest(source.manifest().to_json())
    for path, data in source.files().items():
        assert (tmp_path / path).read_bytes() == data
    assert parse_manifest((tmp_path / MANIFEST_NAME).read_bytes()) == manifest


def test_pack_of_the_standard_library(tmp_path: Path) -> None:
    source = PackSource()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in [(MANIFEST_NAME, source.manifest().to_json()), *sorted(source.files().items())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    unpack(io.BytesIO(gzip.compress(buffer.getvalue())), tmp_path)


def test_manifest_survives_a_round_trip() -> None:
    manifest = parse_manifest(PackSource(serial=9).manifest().to_json())
    assert parse_manifest(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "rules/../../evil",
        "/etc/passwd",
        "rules//etc/passwd",
        "rules/sub/evil.rules",
        "rules/.hidden",
        "rules/",
        "rules",
        "manifest.json",
        "Rules/evil.rules",
        "lists/" + "a" * 65,
        "lists/a\nb",
        "other/file",
    ],
)
def test_path_tricks_in_the_manifest(tmp_path: Path, name: str) -> None:
    body = manifest_body()
    body["files"][0]["path"] = name
    body["lists"][0]["path"] = name
    refuse(pack_archive(member(MANIFEST_NAME, encoded(body)) + bytes(1024)), tmp_path, match="path")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "rules/../../evil", "lists/extra.txt", "rules/omamori.rules/"]
)
def test_member_that_the_manifest_does_not_name(tmp_path: Path, name: str) -> None:
    source = PackSource()
    inside = tmp_path / "inside"
    inside.mkdir()
    pack = build_pack(source.manifest().to_json(), [(name, b"x"), *sorted(source.files().items())])
    refuse(pack, inside, match="not in the manifest")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside"]


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
    ],
)
def test_member_that_is_no_plain_file(tmp_path: Path, kind: bytes) -> None:
    source = PackSource()
    odd = member("rules/omamori.rules", kind=kind)
    archive = member(MANIFEST_NAME, source.manifest().to_json()) + odd + bytes(1024)
    refuse(pack_archive(archive), tmp_path, match="plain file")
    assert not (tmp_path / "rules").exists()


def test_plain_file_with_a_link_target(tmp_path: Path) -> None:
    source = PackSource()
    odd = member("rules/omamori.rules", source.rules, link="/etc/passwd")
    refuse(
        pack_archive(member(MANIFEST_NAME, source.manifest().to_json()) + odd + bytes(1024)), tmp_path, match="links"
    )


def test_name_that_continues_in_the_prefix_field(tmp_path: Path) -> None:
    source = PackSource()
    header = bytearray(member("rules/omamori.rules", source.rules))
    header[345:348] = b"../"
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header[:512])
    archive = member(MANIFEST_NAME, source.manifest().to_json()) + bytes(header) + bytes(1024)
    refuse(pack_archive(archive), tmp_path, match="long names")


def test_member_twice(tmp_path: Path) -> None:
    source = PackSource()
    files = sorted(source.files().items())
    refuse(build_pack(source.manifest().to_json(), [*files, files[0]]), tmp_path, match="twice")


def test_member_missing(tmp_path: Path) -> None:
    source = PackSource()
    files = sorted(source.files().items())
    refuse(build_pack(source.manifest().to_json(), files[:-1]), tmp_path, match="missing")


def test_member_with_other_content(tmp_path: Path) -> None:
    source = PackSource()
    files = source.files() | {"lists/dangerous.txt": b"malware.tesT\n"}
    refuse(build_pack(source.manifest().to_json(), sorted(files.items())), tmp_path, match="digest")


def test_member_of_another_size(tmp_path: Path) -> None:
    source = PackSource()
    files = source.files() | {"lists/dangerous.txt": b"malware.test\nmore.test\n"}
    refuse(build_pack(source.manifest().to_json(), sorted(files.items())), tmp_path, match="bytes, the manifest says")


def test_manifest_is_not_first(tmp_path: Path) -> None:
    source = PackSource()
    archive = b"".join(member(*item) for item in source.files().items())
    archive += member(MANIFEST_NAME, source.manifest().to_json()) + bytes(1024)
    refuse(pack_archive(archive), tmp_path, match="begin with")


def test_empty_archive(tmp_path: Path) -> None:
    refuse(pack_archive(bytes(1024)), tmp_path, match="begin with")


def test_nothing_at_all(tmp_path: Path) -> None:
    refuse(b"", tmp_path)


def test_no_gzip(tmp_path: Path) -> None:
    refuse(b"PK\3\4" + bytes(2000), tmp_path, match="intact gzip")


def test_directory_in_use(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    refuse(PackSource().build(), tmp_path, match="not empty")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    pack = PackSource().build()
    for length in range(0, len(pack), 7):
        directory = tmp_path / str(length)
        directory.mkdir()
        refuse(pack[:length], directory)


def test_damaged_checksum_of_the_compression(tmp_path: Path) -> None:
    pack = bytearray(PackSource().build())
    pack[-5] ^= 1
    refuse(bytes(pack), tmp_path, match="intact gzip")


def test_archive_header_with_a_wrong_checksum(tmp_path: Path) -> None:
    damaged = bytearray(member(MANIFEST_NAME, PackSource().manifest().to_json()))
    damaged[0] ^= 1
    refuse(pack_archive(bytes(damaged) + bytes(1024)), tmp_path, match="checksum")


@pytest.mark.parametrize(
    "size", [b"\x80" + bytes(10) + b"\1", b"-0000000001\0", b"00000000x00\0", b" " * 12, bytes(12)]
)
def test_archive_header_with_an_odd_size(tmp_path: Path, size: bytes) -> None:
    header = bytearray(member(MANIFEST_NAME, b""))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header[:512])
    refuse(pack_archive(bytes(header) + bytes(1024)), tmp_path, match="size")


@pytest.mark.parametrize("tail", [b"x", bytes(512) + b"x", member("rules/late.rules", b"x"), bytes(1024 * 1024)])
def test_something_after_the_end(tmp_path: Path, tail: bytes) -> None:
    source = PackSource()
    archive = member(MANIFEST_NAME, source.manifest().to_json())
    archive += b"".join(member(*item) for item in sorted(source.files().items()))
    refuse(pack_archive(archive + bytes(1024) + tail), tmp_path, match="follows the end")


def test_garbage_after_the_compressed_data(tmp_path: Path) -> None:
    refuse(PackSource().build() + b"garbage", tmp_path, match="intact gzip")


def test_content_hidden_in_padding(tmp_path: Path) -> None:
    source = PackSource()
    archive = bytearray(member(MANIFEST_NAME, source.manifest().to_json()))
    archive[-1] = 1
    refuse(pack_archive(bytes(archive) + bytes(1024)), tmp_path, match="padding")


def test_oversize_manifest(tmp_path: Path) -> None:
    data = PackSource().manifest().to_json()
    data += b" " * (feed_manifest.MAX_MANIFEST_BYTES + 1 - len(data))
    refuse(build_pack(data, []), tmp_path, OversizeError, "manifest of")
    with pytest.raises(OversizeError):
        parse_manifest(data)
    assert parse_manifest(data[:-1])


def test_bomb_within_a_declared_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_pack, "_MAX_BLOCKS_BYTES", 300_000)
    source = PackSource(rules=b"# " + bytes(400_000) + b"\n")
    pack = source.build()
    assert len(pack) < 5000
    refuse(pack, tmp_path, OversizeError, "unpacks to more")


def test_bomb_behind_the_end(tmp_path: Path) -> None:
    source = PackSource()
    archive = member(MANIFEST_NAME, source.manifest().to_json())
    archive += b"".join(member(*item) for item in sorted(source.files().items()))
    pack = pack_archive(archive + bytes(64 * 1024 * 1024))
    refuse(pack, tmp_path, match="follows the end")


class EndlessNothing(io.RawIOBase):
    """Compressed data that never ends and never unpacks to a byte."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0
        self._unit = gzip.compress(b"") * 1000

    def read(self, size: int = -1) -> bytes:
        self.given += len(self._unit)
        return self._unit


def test_endless_compressed_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_pack, "MAX_PACK_BYTES", 1_000_000)
    source = EndlessNothing()
    with pytest.raises(OversizeError, match="pack of more than"):
        unpack(source, tmp_path)  # type: ignore[arg-type]
    assert source.given < 2_000_000


def test_pack_of_exactly_the_allowed_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = PackSource().build()
    monkeypatch.setattr(feed_pack, "MAX_PACK_BYTES", len(pack))
    unpack(io.BytesIO(pack), tmp_path)


def test_pack_one_byte_over_the_allowed_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = PackSource().build()
    monkeypatch.setattr(feed_pack, "MAX_PACK_BYTES", len(pack) - 1)
    refuse(pack, tmp_path, OversizeError)


def test_refused_by_the_receiver_before_anything_is_written(tmp_path: Path) -> None:
    def admit(manifest: FeedManifest) -> None:
        raise PackRejectedError(f"not serial {manifest.serial}")

    with pytest.raises(PackRejectedError, match="not serial 1"):
        unpack(io.BytesIO(PackSource().build()), tmp_path, admit=admit)
    assert list(tmp_path.iterdir()) == []


def one_more(key: str, limit: int) -> dict[str, Any]:
    body = manifest_body()
    body[key] = [dict(body[key][0]) for _ in range(limit + 1)]
    return body


@pytest.mark.parametrize(
    ("key", "limit"),
    [
        ("files", feed_manifest.MAX_FILES),
        ("lists", feed_manifest.MAX_LISTS),
        ("rules", feed_manifest.MAX_FILES),
    ],
)
def test_one_item_too_many(key: str, limit: int) -> None:
    with pytest.raises(OversizeError) as caught:
        parse_manifest(encoded(one_more(key, limit)))
    assert caught.value.limit == limit


def test_as_many_files_as_allowed() -> None:
    rules = [{"path": f"rules/r{number}.rules", "count": 0} for number in range(feed_manifest.MAX_FILES)]
    files = [dataclasses.asdict(pack_file(item["path"], b"")) for item in rules]
    body = manifest_body(files=files, rules=rules, lists=[])
    assert len(parse_manifest(encoded(body)).files) == feed_manifest.MAX_FILES


def test_files_that_together_are_too_large() -> None:
    sizes = [feed_manifest.MAX_FILE_BYTES, feed_manifest.MAX_FILE_BYTES, 1]
    body = manifest_body()
    for item, size in zip(body["files"], sizes, strict=True):
        item["size"] = size
    with pytest.raises(OversizeError, match="pack holds"):
        parse_manifest(encoded(body))
    body["files"][2]["size"] = 0
    parse_manifest(encoded(body))


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    body = manifest_body()
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return body


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("serial",), -1),
        (("serial",), 2**31),
        (("serial",), True),
        (("serial",), 1.0),
        (("serial",), "1"),
        (("created",), "2026-11-22"),
        (("created",), "2026-11-22T00:00:00+00:00"),
        (("channel",), "Demo"),
        (("channel",), "a" * 33),
        (("channel",), None),
        (("engine_min",), "8"),
        (("engine_min",), "8.0.0-beta"),
        (("files",), {}),
        (("files", 0, "size"), -1),
        (("files", 0, "size"), feed_manifest.MAX_FILE_BYTES + 1),
        (("files", 0, "sha256"), "f" * 63),
        (("files", 0, "sha256"), "F" * 64),
        (("files", 0), []),
        (("lists", 0, "name"), "Bad"),
        (("lists", 0, "name"), "../x"),
        (("lists", 0, "name"), "a" * 41),
        (("lists", 0, "name"), "a\n"),
        (("lists", 0, "kind"), "url"),
        (("lists", 0, "kind"), ["domain"]),
        (("lists", 0, "count"), feed_manifest.MAX_ENTRIES + 1),
        (("lists", 0, "function"), "nothing"),
        (("lists", 0, "function"), None),
        (("lists", 0, "severity"), 0),
        (("lists", 0, "severity"), 4),
        (("lists", 0, "severity"), True),
        (("lists", 0, "severity"), 2.0),
        (("lists", 0, "action"), "allowed"),
        (("lists", 0, "category"), "No Category"),
        (("lists", 0, "path"), "lists/nowhere.txt"),
        (("rules", 0, "count"), -1),
        (("rules", 0, "path"), "rules/nowhere.rules"),
    ],
)
def test_value_out_of_its_form(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(PackRejectedError):
        parse_manifest(encoded(changed(path, value)))


def test_unknown_key() -> None:
    with pytest.raises(PackRejectedError, match="keys"):
        parse_manifest(encoded(manifest_body(extra=1)))


def test_missing_key() -> None:
    body = manifest_body()
    del body["rules"]
    with pytest.raises(PackRejectedError, match="keys"):
        parse_manifest(encoded(body))


def test_unknown_format() -> None:
    with pytest.raises(UnknownVersionError):
        parse_manifest(encoded(manifest_body(format=2)))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"[" * 100_000, b"1" * 10_000, b'"\xed\xa0\x80"'])
def test_manifest_that_is_no_object(data: bytes) -> None:
    with pytest.raises(PackRejectedError):
        parse_manifest(data)


def test_same_list_twice() -> None:
    body = manifest_body()
    body["lists"].append(body["lists"][0])
    with pytest.raises(PackRejectedError, match="twice"):
        parse_manifest(encoded(body))


def test_same_file_for_two_lists() -> None:
    body = manifest_body()
    body["lists"].append(body["lists"][0] | {"name": "other"})
    with pytest.raises(PackRejectedError, match="twice"):
        parse_manifest(encoded(body))


def test_file_that_nobody_uses() -> None:
    body = manifest_body()
    body["files"].append(dataclasses.asdict(pack_file("rules/unused.rules", b"")))
    with pytest.raises(PackRejectedError, match="differ"):
        parse_manifest(encoded(body))


def flips(data: bytes) -> Iterator[bytes]:
    for position in range(0, len(data), 3):
        yield data[:position] + bytes([data[position] ^ 0x20]) + data[position + 1 :]


def test_no_flipped_bit_of_the_archive_gets_through(tmp_path: Path) -> None:
    source = PackSource()
    archive = member(MANIFEST_NAME, source.manifest().to_json())
    archive += b"".join(member(*item) for item in sorted(source.files().items()))
    before = source.files()
    for number, flipped in enumerate(flips(archive[: len(archive)])):
        directory = tmp_path / str(number)
        directory.mkdir()
        try:
            unpack(io.BytesIO(pack_archive(flipped + bytes(1024))), directory)
        except ProtocolError:
            continue
        # A flip in a field that has no meaning (owner, time) may pass; what is unpacked may not differ.
        assert {path: (directory / path).read_bytes() for path in before} == before


@given(st.binary(max_size=4096))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(io.BytesIO(data), tmp_path_factory.mktemp("random"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda kids: st.lists(kids) | st.dictionaries(st.text(), kids),
    )
)
def test_random_json_is_refused(body: Any) -> None:
    with pytest.raises(ProtocolError):
        parse_manifest(encoded(body))
