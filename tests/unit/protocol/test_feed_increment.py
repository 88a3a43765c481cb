"""Increments: what they lead to, and every way in which one can be wrong."""

from __future__ import annotations

import hashlib
import io
import itertools
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol import cbor, feed_increment
from omamori_protocol.errors import OversizeError, PackRejectedError, ProtocolError, UnknownVersionError
from omamori_protocol.feed_chain import MAX_CHAIN, apply_chain
from omamori_protocol.feed_increment import (
    MAX_PIECE_BYTES,
    MAX_REMOVAL_BYTES,
    Changes,
    IncrementReader,
    IncrementWriter,
    Whole,
)
from omamori_protocol.feed_manifest import MAX_MANIFEST_BYTES, FeedManifest
from omamori_protocol.feed_pack import unpack
from sim.increments import make_head, make_increment
from sim.packs import RULE, PackSource

OLD = PackSource(serial=1, domains={"dangerous": ("a.test", "b.test", "d.test"), "games": ("g.test",)})
NEW = PackSource(serial=2, domains={"dangerous": ("b.test", "c.test", "e.test"), "games": ("g.test",)})


def unpacked(source: PackSource, directory: Path) -> Path:
    directory.mkdir()
    unpack(io.BytesIO(source.build()), directory)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def chain(tmp_path: Path, *sources: PackSource) -> list[Path]:
    paths = []
    for old, new in itertools.pairwise(sources):
        path = tmp_path / f"{old.serial}-{new.serial}"
        path.write_bytes(make_increment(old, new))
        paths.append(path)
    return paths


def run_chain(tmp_path: Path, base: PackSource, paths: list[Path], goal: PackSource) -> FeedManifest:
    directory = tmp_path / "out"
    directory.mkdir()
    digest = hashlib.sha256(goal.manifest().to_json()).hexdigest()
    return apply_chain(unpacked(base, tmp_path / "base"), paths, directory, manifest_sha256=digest)


def test_increment_leads_to_what_the_pack_holds(tmp_path: Path) -> None:
    manifest = run_chain(tmp_path, OLD, chain(tmp_path, OLD, NEW), NEW)
    assert manifest.to_json() == NEW.manifest().to_json()
    assert files(tmp_path / "out") == files(unpacked(NEW, tmp_path / "whole"))


def test_file_that_did_not_change_is_the_same_file(tmp_path: Path) -> None:
    run_chain(tmp_path, OLD, chain(tmp_path, OLD, NEW), NEW)
    games = (tmp_path / "out/lists/games.txt", tmp_path / "base/lists/games.txt")
    assert games[0].stat().st_ino == games[1].stat().st_ino


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), min_size=2, max_size=6), st.data())
def test_chain_leads_to_the_last_pack(
    tmp_path_factory: pytest.TempPathFactory, contents: list[list[str]], data: st.DataObject
) -> None:
    """Lists that come, go, are replaced or changed on the way; whatever each increment says, the end is right."""
    sources = []
    for serial, names in enumerate(contents, start=1):
        domains = {"dangerous": tuple(sorted(f"{name}.test" for name in names))}
        if data.draw(st.booleans()):
            domains["games"] = tuple(sorted(f"{name}.test" for name in names[::2]))
        sources.append(PackSource(serial=serial, domains=domains, rules=RULE * data.draw(st.integers(1, 2))))
    directory = tmp_path_factory.mktemp("chain")
    run_chain(directory, sources[0], chain(directory, *sources), sources[-1])
    assert files(directory / "out") == files(unpacked(sources[-1], directory / "whole"))


def test_chain_of_the_greatest_length_and_one_more(tmp_path: Path) -> None:
    sources = [PackSource(serial=n, domains={"dangerous": (f"n{n}.test",)}) for n in range(1, MAX_CHAIN + 3)]
    paths = chain(tmp_path, *sources)
    run_chain(tmp_path, sources[0], paths[:MAX_CHAIN], sources[MAX_CHAIN])
    with pytest.raises(OversizeError, match="chain of 33"):
        apply_chain(tmp_path / "base", paths, tmp_path / "out")


def test_chain_with_a_gap(tmp_path: Path) -> None:
    third = PackSource(serial=3, domains={"dangerous": ("z.test",)})
    paths = chain(tmp_path, OLD, NEW, third)
    with pytest.raises(PackRejectedError, match="increment from 2 to 3 does not begin with what is there"):
        run_chain(tmp_path, OLD, paths[1:], third)


def test_increment_for_another_pack_of_the_same_serial(tmp_path: Path) -> None:
    other = PackSource(serial=1, domains={"dangerous": ("other.test",)})
    with pytest.raises(PackRejectedError, match="does not begin with what is there"):
        run_chain(tmp_path, other, chain(tmp_path, OLD, NEW), NEW)


def test_chain_to_a_manifest_that_was_not_signed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(PackRejectedError, match="another manifest than the signed one"):
        apply_chain(
            unpacked(OLD, tmp_path / "base"),
            chain(tmp_path, OLD, NEW),
            tmp_path / "out",
            manifest_sha256="0" * 64,
        )
    assert files(tmp_path / "out") == {}


def test_refused_by_the_receiver_before_anything_is_written(tmp_path: Path) -> None:
    def refuse(_manifest: FeedManifest) -> None:
        raise PackRejectedError("not for me")

    (tmp_path / "out").mkdir()
    with pytest.raises(PackRejectedError, match="not for me"):
        apply_chain(unpacked(OLD, tmp_path / "base"), chain(tmp_path, OLD, NEW), tmp_path / "out", admit=refuse)
    assert files(tmp_path / "out") == {}


def written(write: Callable[[IncrementWriter], None]) -> bytes:
    out = io.BytesIO()
    writer = IncrementWriter(out, make_head(OLD.manifest(), NEW.manifest()))
    write(writer)
    writer.close()
    return out.getvalue()


DANGEROUS = sorted(NEW.files()).index("lists/dangerous.txt")


@pytest.mark.parametrize(
    "write",
    [
        lambda writer: None,
        lambda writer: writer.changes(DANGEROUS, [0], [b"c.test", b"e.test"]),
        lambda writer: writer.changes(DANGEROUS, [0, 2], [b"c.test"]),
        lambda writer: writer.changes(DANGEROUS, [0, 2], [b"c.test", b"e.test", b"f.test"]),
        lambda writer: writer.changes(DANGEROUS, [0, 2], [b"e.test", b"c.test"]),
        lambda writer: writer.changes(DANGEROUS, [0, 2], [b"b.test", b"c.test", b"e.test"]),
        lambda writer: writer.changes(DANGEROUS, [0, 3], [b"c.test", b"e.test"]),
        lambda writer: writer.whole(DANGEROUS, io.BytesIO(b"")),
    ],
)
def test_content_that_the_manifest_does_not_state(tmp_path: Path, write: Callable[[IncrementWriter], None]) -> None:
    path = tmp_path / "increment"
    path.write_bytes(written(write))
    with pytest.raises(PackRejectedError):
        run_chain(tmp_path, OLD, [path], NEW)


def frames(*bodies: object, tail: bytes = b"") -> bytes:
    parts = []
    for body in bodies:
        data = body if isinstance(body, bytes) else cbor.encode(body)
        parts.append(len(data).to_bytes(4, "big") + data)
    return zlib.compress(b"".join(parts) + tail)


HEAD = {0: 1, 1: 1, 2: 2, 3: bytes(32), 4: NEW.manifest().to_json()}


def read_all(data: bytes) -> None:
    IncrementReader(io.BytesIO(data)).finish()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "truncated"),
        (b"no zlib at all", "not intact"),
        (zlib.compress(b""), "empty"),
        (zlib.compress(b"\0\0"), "truncated"),
        (frames(HEAD)[:-1], "truncated"),
        (frames(HEAD) + b"x", "follows the end"),
        (frames(HEAD, tail=b"\0\0\0\x09abc"), "truncated"),
        (frames(b"\xff"), "not valid CBOR"),
        (frames([]), "head"),
        (frames({**HEAD, 5: 0}), "head has other keys"),
        (frames({**HEAD, 1: 0}), "start"),
        (frames({**HEAD, 1: 2}), "goal"),
        (frames({**HEAD, 1: True}), "start"),
        (frames({**HEAD, 2: 3}), "another serial"),
        (frames({**HEAD, 3: bytes(31)}), "digest"),
        (frames({**HEAD, 4: "text"}), "manifest"),
        (frames({**HEAD, 4: b"{}"}), r".*"),
        (frames(HEAD, {0: 0, 1: 0, 2: b""}), "kind"),
        (frames(HEAD, {0: 4, 1: 0, 2: b""}), "kind"),
        (frames(HEAD, {0: 1, 1: 99, 2: b""}), "file"),
        (frames(HEAD, {0: 1, 1: 0, 2: "x"}), "piece"),
        (frames(HEAD, {0: 1, 1: 0}), "piece"),
        (frames(HEAD, {0: 1, 1: 1, 2: b""}, {0: 1, 1: 0, 2: b""}), "not in order"),
        (frames(HEAD, {0: 3, 1: 1, 2: b""}, {0: 2, 1: 1, 2: b""}), "not in order"),
    ],
)
def test_increment_that_is_none(data: bytes, match: str) -> None:
    with pytest.raises(ProtocolError, match=match):
        read_all(data)


def test_another_format() -> None:
    with pytest.raises(UnknownVersionError):
        read_all(frames({**HEAD, 0: 2}))


@pytest.mark.parametrize("lines", [b"", b"a.test", b"a.test\nb"])
def test_added_lines_without_an_end(lines: bytes) -> None:
    reader = IncrementReader(io.BytesIO(frames(HEAD, {0: 3, 1: DANGEROUS, 2: lines})))
    found = reader.take("lists/dangerous.txt")
    assert isinstance(found, Changes)
    with pytest.raises(PackRejectedError, match="does not end with one"):
        list(found.additions)


@pytest.mark.parametrize("gaps", [b"\x80", b"\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\x7f"])
def test_gaps_that_are_none(gaps: bytes) -> None:
    reader = IncrementReader(io.BytesIO(frames(HEAD, {0: 2, 1: DANGEROUS, 2: gaps})))
    found = reader.take("lists/dangerous.txt")
    assert isinstance(found, Changes)
    with pytest.raises(PackRejectedError):
        list(found.removals)


@given(st.lists(st.integers(0, 3_999_999), unique=True, max_size=300).map(sorted))
def test_places_survive(places: list[int]) -> None:
    reader = IncrementReader(io.BytesIO(written(lambda writer: writer.changes(DANGEROUS, places, []))))
    found = reader.take("lists/dangerous.txt")
    assert list(found.removals if isinstance(found, Changes) else []) == places


def test_whole_file_in_many_pieces() -> None:
    body = bytes(range(256)) * 1024
    reader = IncrementReader(io.BytesIO(written(lambda writer: writer.whole(DANGEROUS, io.BytesIO(body)))))
    found = reader.take("lists/dangerous.txt")
    assert isinstance(found, Whole)
    assert b"".join(found.content) == body


def test_what_nobody_asks_for_is_passed_over() -> None:
    def write(writer: IncrementWriter) -> None:
        writer.changes(0, [1], [b"x"])
        writer.changes(DANGEROUS, [5], [b"y"])

    data = written(write)
    reader = IncrementReader(io.BytesIO(data))
    assert isinstance(reader.take("lists/dangerous.txt"), Changes)
    assert reader.take("lists/games.txt") is None
    assert reader.take("rules/omamori.rules") is None
    reader.finish()


# Bounds.


def test_removals_of_the_greatest_size_and_one_byte_more() -> None:
    for size, is_allowed in ((MAX_REMOVAL_BYTES, True), (MAX_REMOVAL_BYTES + 1, False)):
        pieces = [
            {0: 2, 1: DANGEROUS, 2: bytes(min(MAX_PIECE_BYTES, size - at))} for at in range(0, size, MAX_PIECE_BYTES)
        ]
        reader = IncrementReader(io.BytesIO(frames(HEAD, *pieces)))
        if is_allowed:
            found = reader.take("lists/dangerous.txt")
            assert isinstance(found, Changes)
        else:
            with pytest.raises(OversizeError):
                reader.take("lists/dangerous.txt")


@pytest.mark.parametrize(("body", "index"), [(HEAD, 0), ({0: 1, 1: 0, 2: b""}, 1)])
def test_frame_that_says_it_is_long(body: object, index: int) -> None:
    size = (MAX_MANIFEST_BYTES + 2048, MAX_PIECE_BYTES + 1024)[index]
    first = [HEAD][:index]
    with pytest.raises(OversizeError, match="frame of"):
        read_all(frames(*first, tail=size.to_bytes(4, "big") + b"x"))


def test_packed_and_unpacked_bytes_and_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    data = frames(HEAD, *({0: 1, 1: 0, 2: bytes(1000)} for _ in range(20)))
    unpacked_bytes = len(zlib.decompress(data))
    for name, exact in (
        ("MAX_INCREMENT_BYTES", len(data)),
        ("_MAX_UNPACKED_BYTES", unpacked_bytes),
        ("_MAX_FRAMES", 21),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(feed_increment, name, exact)
            read_all(data)
            patch.setattr(feed_increment, name, exact - 1)
            with pytest.raises(OversizeError):
                read_all(data)


def test_every_truncation_and_flipped_bit_is_refused(tmp_path: Path) -> None:
    data = make_increment(OLD, NEW)
    path = tmp_path / "increment"
    base = unpacked(OLD, tmp_path / "base")
    digest = hashlib.sha256(NEW.manifest().to_json()).hexdigest()

    def leads_nowhere(changed: bytes, name: str) -> None:
        path.write_bytes(changed)
        out = tmp_path / name
        out.mkdir()
        with pytest.raises(ProtocolError):
            apply_chain(base, [path], out, manifest_sha256=digest)

    for length in range(0, len(data), 7):
        leads_nowhere(data[:length], f"short-{length}")
    for place in range(2, len(data), 11):  # zlib's own first two bytes carry one bit that says nothing
        leads_nowhere(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :], f"flip-{place}")


def test_memory_does_not_depend_on_the_list(tmp_path: Path) -> None:
    names = [f"n{number:07d}.test" for number in range(120_000)]
    old = PackSource(serial=1, domains={"dangerous": tuple(names[::2])})
    middle = PackSource(serial=2, domains={"dangerous": tuple(names[::3])})
    new = PackSource(serial=3, domains={"dangerous": tuple(names)})
    paths = chain(tmp_path, old, middle, new)
    base = unpacked(old, tmp_path / "base")
    (tmp_path / "out").mkdir()
    tracemalloc.start()
    try:
        apply_chain(base, paths, tmp_path / "out")
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out/lists/dangerous.txt").read_bytes() == new.files()["lists/dangerous.txt"]
    assert peak < 6 << 20  # the list alone would be 9 MiB as Python's objects
