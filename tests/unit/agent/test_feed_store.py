"""Packs on disk: whole or not at all, whatever moment the power is cut at."""

from __future__ import annotations

import dataclasses
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from omamori_agent.config import Paths
from omamori_agent.errors import SetupError
from omamori_agent.feed.errors import FeedPostponedError, PackRefusedError
from omamori_agent.feed.record import MAX_QUARANTINED, Record, Transition, load_record, save_record
from omamori_agent.feed.store import FeedStore
from omamori_agent.feed.stored import StoredFeed
from omamori_protocol.feed_manifest import FeedManifest
from sim.box import make_box
from sim.packs import PackSource, build_pack
from sim.power import PowerCut, count_steps, power_cut_before
from sim.repository import tree


def anything(_manifest: FeedManifest) -> None:
    """A check that lets every pack pass."""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = make_box(tmp_path / "box")
    engine = made.empty_feed / "engine"
    engine.mkdir()
    (engine / "all.rules").write_text("")
    (engine / "datasets.yaml").write_text("%YAML 1.1\n---\ndatasets: {}\n")
    return made


def open_store(paths: Paths, free: int = 10**9) -> FeedStore:
    store = FeedStore(paths, reserve_bytes=1000, free_bytes=lambda _path: free)
    store.recover()
    return store


def put(store: FeedStore, source: PackSource, serial: int | None = None) -> StoredFeed:
    store.download_path.write_bytes(source.build())
    return store.add(source.serial if serial is None else serial, anything)


def test_first_boot_has_the_empty_feed(paths: Paths) -> None:
    current = open_store(paths).recover()
    assert (current.serial, current.rule_count, current.directory) == (0, 0, paths.empty_feed)


def test_unpacked_pack_is_what_the_engine_loads(paths: Paths) -> None:
    store = open_store(paths)
    source = PackSource(
        serial=7,
        domains={"dangerous": ("malware.test", "phishing.test"), "games": ()},
        digests={"malware": ("a" * 64,)},
    )
    feed = put(store, source)
    engine = paths.feed_store / "7/engine"
    assert feed.directory == paths.feed_store / "7"
    canary = (engine / "canary.rules").read_bytes()
    assert (engine / "all.rules").read_bytes() == source.rules + b"\n" + canary + b"\n"
    assert (engine / "dangerous.lst").read_text() == "bWFsd2FyZS50ZXN0\ncGhpc2hpbmcudGVzdA==\n"
    assert (engine / "games.lst").read_text() == ""
    assert (engine / "malware.sha256").read_text() == "a" * 64 + "\n"
    assert (engine / "datasets.yaml").read_text() == (
        "%YAML 1.1\n---\ndatasets:\n"
        "  dangerous:\n    type: string\n    load: dangerous.lst\n    memcap: 64 MiB\n    hashsize: 1024\n"
        "  games:\n    type: string\n    load: games.lst\n    memcap: 64 MiB\n    hashsize: 1024\n"
    )
    assert feed.list_path("dangerous") == feed.directory / "lists/dangerous.txt"
    assert feed.list_path("nothing") is None
    assert not (paths.feed_store / ".new").exists()


def test_pack_without_lists_declares_no_dataset(paths: Paths) -> None:
    put(open_store(paths), PackSource(domains={}, addresses={}, rules=b"# nothing\n"))
    assert (paths.feed_store / "1/engine/datasets.yaml").read_text().endswith("datasets: {}\n")


def test_engine_may_read_everything_and_others_write_nothing(paths: Paths) -> None:
    put(open_store(paths), PackSource())
    for path in [paths.feed_store / "1", *(paths.feed_store / "1").rglob("*")]:
        wanted = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted


def test_memory_and_buckets_of_a_large_list(paths: Paths) -> None:
    names = tuple(sorted(f"host{number}.test" for number in range(3000)))
    put(open_store(paths), PackSource(domains={"large": names}))
    assert "hashsize: 4096" in (paths.feed_store / "1/engine/datasets.yaml").read_text()


def test_switch(paths: Paths) -> None:
    store = open_store(paths)
    feed = put(store, PackSource(serial=3))
    assert store.current().serial == 0
    store.switch(feed)
    assert store.current() == feed
    assert str(paths.feed_current.readlink()) == "store/3"
    empty = store.get(0)
    assert empty is not None
    store.switch(empty)
    assert paths.feed_current.readlink() == paths.empty_feed
    assert store.current().serial == 0


def test_prune_keeps_current_and_previous(paths: Paths) -> None:
    store = open_store(paths)
    for serial in range(1, 6):
        feed = put(store, PackSource(serial=serial))
    store.switch(feed)
    store.remember(Record(previous=3))
    store.prune()
    assert sorted(path.name for path in paths.feed_store.iterdir()) == ["3", "5"]


def test_prune_keeps_both_ends_of_a_change_that_has_not_ended(paths: Paths) -> None:
    store = open_store(paths)
    for serial in range(1, 6):
        feed = put(store, PackSource(serial=serial))
    store.switch(feed)
    store.remember(Record(transition=Transition(2, 4)))
    store.prune()
    assert sorted(path.name for path in paths.feed_store.iterdir()) == ["2", "4", "5"]


def test_same_serial_again_replaces_what_was_there(paths: Paths) -> None:
    store = open_store(paths)
    put(store, PackSource(serial=2, domains={"dangerous": ("old.test",)}))
    put(store, PackSource(serial=2, domains={"dangerous": ("new.test",)}))
    assert (paths.feed_store / "2/lists/dangerous.txt").read_text() == "new.test\n"


BAD_PACKS: dict[str, Callable[[], bytes]] = {
    "no gzip": lambda: b"x" * 1000,
    "truncated": lambda: PackSource().build()[:-20],
    "undeclared": lambda: build_pack(PackSource().manifest().to_json(), [("rules/extra.rules", b"")]),
    "outside": lambda: build_pack(PackSource().manifest().to_json(), [("../../../current", b"")]),
    "wrong digest": lambda: build_pack(
        PackSource().manifest().to_json(),
        sorted((PackSource().files() | {"lists/dangerous.txt": b"malware.tesT\n"}).items()),
    ),
    "unsorted": lambda: PackSource(domains={"dangerous": ("b.test", "a.test")}).build(),
    "no domain": lambda: PackSource(domains={"dangerous": ("*.test",)}).build(),
    "no address": lambda: PackSource(addresses={"blocked": ("localhost",)}).build(),
    "no digest": lambda: PackSource(digests={"malware": ("short",)}).build(),
    "other serial": lambda: PackSource(serial=2).build(),
    "bad name": lambda: PackSource(domains={"bad:name": ("a.test",)}).build(),
}


@pytest.mark.parametrize("name", BAD_PACKS)
def test_bad_pack_leaves_nothing(paths: Paths, name: str) -> None:
    store = open_store(paths)
    store.switch(put(store, PackSource(serial=5)))
    store.discard_download()
    before = tree(paths.feed)
    store.download_path.write_bytes(BAD_PACKS[name]())
    with pytest.raises(PackRefusedError):
        store.add(1, anything)
    store.discard_download()
    assert tree(paths.feed) == before


def test_pack_that_the_box_does_not_want(paths: Paths) -> None:
    def refuse(manifest: FeedManifest) -> None:
        raise PackRefusedError(f"not {manifest.serial}")

    store = open_store(paths)
    store.download_path.write_bytes(PackSource().build())
    with pytest.raises(PackRefusedError, match="not 1"):
        store.add(1, refuse)
    assert list(paths.feed_store.iterdir()) == []


def test_no_space_for_the_download(paths: Paths) -> None:
    store = open_store(paths, free=1500)
    store.check_space(500)
    with pytest.raises(FeedPostponedError, match="not enough space"):
        store.check_space(501)


def test_no_space_for_the_unpacked_pack(paths: Paths) -> None:
    store = open_store(paths, free=1010)
    with pytest.raises(FeedPostponedError, match="not enough space"):
        put(store, PackSource())
    assert list(paths.feed_store.iterdir()) == []


def test_disk_that_is_full_in_the_middle(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(paths)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omamori_agent.feed.engine_files.write_dataset", full)
    with pytest.raises(FeedPostponedError, match="No space left"):
        put(store, PackSource())
    assert list(paths.feed_store.iterdir()) == []


# Power cuts.


def is_valid(paths: Paths) -> bool:
    """Whether the engine would find a whole feed behind `current`."""
    engine = paths.feed_current / "engine"
    names = {"all.rules", "datasets.yaml"}
    return names <= {path.name for path in engine.iterdir()} and all(
        (engine / line.split()[-1]).is_file()
        for line in (engine / "datasets.yaml").read_text().splitlines()
        if "load:" in line
    )


def take(paths: Paths, source: PackSource) -> None:
    """What the worker does with a new pack, without an engine."""
    store = FeedStore(paths, reserve_bytes=1000, free_bytes=lambda _path: 10**9)
    old = store.current()
    feed = put(store, source)
    store.remember(dataclasses.replace(store.record, transition=Transition(old.serial, feed.serial)))
    store.switch(feed)
    store.remember(dataclasses.replace(store.record, transition=None, previous=old.serial))
    store.prune()
    store.discard_download()


def test_power_cut_at_every_step(tmp_path: Path, paths: Paths) -> None:
    store = open_store(paths)
    for serial in (1, 2):
        take(paths, PackSource(serial=serial))
    source = PackSource(serial=3, digests={"malware": ("a" * 64,)})
    spare = tmp_path / "spare"
    shutil.copytree(paths.root, spare, symlinks=True)
    steps = count_steps(lambda: take(paths, source))
    assert steps > 30
    for step in range(1, steps + 1):
        shutil.rmtree(paths.root)
        shutil.copytree(spare, paths.root, symlinks=True)
        if paths.feed_current.readlink().is_absolute():
            pytest.fail("the copy would not be the box")
        with pytest.raises(PowerCut), power_cut_before(step):
            take(paths, source)
        assert is_valid(paths), f"step {step}"
        store = open_store(paths)
        assert store.current().serial in {2, 3}, f"step {step}"
        assert is_valid(paths), f"step {step}"
        assert not (paths.feed_store / ".new").exists()
        assert list(store.download_path.parent.iterdir()) == []
        take(paths, source)
        assert FeedStore(paths, reserve_bytes=0).current().serial == 3
        assert is_valid(paths)


def test_power_cut_while_old_packs_are_removed(paths: Paths) -> None:
    store = open_store(paths)
    for serial in (1, 2, 3):
        feed = put(store, PackSource(serial=serial))
    store.switch(feed)
    for step in (1, 2):
        with pytest.raises(PowerCut), power_cut_before(step):
            store.prune()
        left = [int(path.name) for path in paths.feed_store.glob("[0-9]*")]
        assert len(left) == 4 - step
        assert all(store.get(serial) for serial in left)


# Recovery.


def test_lost_link(paths: Paths) -> None:
    store = open_store(paths)
    for serial in (1, 2):
        put(store, PackSource(serial=serial))
    paths.feed_current.unlink()
    assert open_store(paths).current().serial == 2


def test_link_to_nowhere(paths: Paths) -> None:
    paths.feed_current.unlink()
    paths.feed_current.symlink_to("store/99")
    assert open_store(paths).current().serial == 0
    assert is_valid(paths)


def test_link_to_somewhere_else(paths: Paths, tmp_path: Path) -> None:
    paths.feed_current.unlink()
    paths.feed_current.symlink_to(tmp_path)
    assert open_store(paths).current().serial == 0


@pytest.mark.parametrize("damage", ["manifest.json", "engine/datasets.yaml"])
def test_damaged_current_feed(paths: Paths, damage: str) -> None:
    store = open_store(paths)
    for serial in (1, 2):
        feed = put(store, PackSource(serial=serial))
    store.switch(feed)
    (feed.directory / damage).unlink()
    assert open_store(paths).current().serial == 1


def test_quarantined_pack_is_no_way_back(paths: Paths) -> None:
    store = open_store(paths)
    for serial in (1, 2):
        put(store, PackSource(serial=serial))
    store.remember(Record().with_quarantined(2, "bad"))
    paths.feed_current.unlink()
    assert open_store(paths).current().serial == 1


def test_rest_of_a_killed_agent_is_removed(paths: Paths) -> None:
    store = open_store(paths)
    (paths.feed_store / ".new/lists").mkdir(parents=True)
    (store.download_path.parent / "tmpabc").write_text("x")
    (store.download_path.parent / "engine-test-1").mkdir()
    open_store(paths)
    assert list(paths.feed_store.iterdir()) == []
    assert list(store.download_path.parent.iterdir()) == []


def test_data_partition_that_is_not_there(paths: Paths) -> None:
    shutil.rmtree(paths.feed)
    with pytest.raises(SetupError, match="feed store"):
        open_store(paths)


# The record.


def test_record_survives(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    record = Record(previous=3, transition=Transition(3, 4, is_unclear=True)).with_quarantined(5, "bad\nrules")
    save_record(path, record)
    assert load_record(path) == record
    assert record.quarantine_reason(5) == "bad rules"
    assert record.quarantine_reason(6) is None


def test_record_forgets_the_oldest_quarantine() -> None:
    record = Record()
    for serial in range(MAX_QUARANTINED + 1):
        record = record.with_quarantined(serial, "bad")
    assert len(record.quarantined) == MAX_QUARANTINED
    assert record.quarantine_reason(0) is None
    assert record.quarantine_reason(MAX_QUARANTINED) == "bad"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"format":2,"previous":null,"transition":null,"quarantined":[]}',
        b'{"format":1,"previous":-1,"transition":null,"quarantined":[]}',
        b'{"format":1,"previous":true,"transition":null,"quarantined":[]}',
        b'{"format":1,"previous":null,"transition":{"origin":1},"quarantined":[]}',
        b'{"format":1,"previous":null,"transition":{"origin":1,"goal":2,"is_unclear":1},"quarantined":[]}',
        b'{"format":1,"previous":null,"transition":null,"quarantined":[[1]]}',
        b'{"format":1,"previous":null,"transition":null,"quarantined":{}}',
        b"x" * 70_000,
        json.dumps([[]] * 1000).encode(),
    ],
)
def test_record_that_cannot_be_understood_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    assert load_record(path) == Record()


def test_no_record(tmp_path: Path) -> None:
    assert load_record(tmp_path / "state.json") == Record()
