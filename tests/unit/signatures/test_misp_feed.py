"""A MISP feed as it is published, fetched from a web server of this machine: bounds, changes, what is not believed."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_signatures import cli, misp_feed
from omamori_signatures.download import Downloader, Limits
from omamori_signatures.errors import SourceError
from omamori_signatures.fetch import Fetcher, FetchReport, Outcome
from omamori_signatures.indicators import DomainRules
from omamori_signatures.source_reader import Tally, read_entries
from sim.feed_world import NOW, World, table


class FeedSite:
    """A web server with a MISP feed that keeps connections open, as the usual ones do."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.connections = 0
        self.pause_s = 0.0
        self.hangs_up_after: int | None = None
        self.released = threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer is one write: header and body apart would wait for each other

            def setup(self) -> None:
                site.connections += 1
                self.served = 0
                super().setup()

            def do_GET(self) -> None:
                site.answer(self)
                self.served += 1
                if site.hangs_up_after is not None and self.served >= site.hangs_up_after:
                    self.close_connection = True  # without a word: the client finds out with its next request

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/feed/"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        self.released.wait(self.pause_s)
        data = self.files.get(handler.path.removeprefix("/feed/"))
        etag = f'"{hashlib.sha256(data or b"").hexdigest()}"'
        status = 404 if data is None else 304 if handler.headers.get("If-None-Match") == etag else 200
        body = (data or b"") if status == 200 else b"no" if status == 404 else b""
        handler.send_response(status)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def publish(self, events: dict[str, tuple[int, list[str]]], **more: Any) -> None:
        """Put a feed of events there: by id, the time of the last change and the names in it."""
        manifest = {name: {"timestamp": str(time), "info": "x"} for name, (time, _names) in events.items()}
        self.files = {"manifest.json": json.dumps(manifest | more).encode()}
        for name, (_time, names) in events.items():
            attributes = [{"type": "domain", "value": found, "to_ids": True} for found in names]
            self.files[f"{name}.json"] = json.dumps({"Event": {"uuid": name, "Attribute": attributes}}).encode()

    def events_asked(self) -> int:
        return sum("manifest" not in path for path in self.asked)


def ids(count: int) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in range(count)]


def feed(count: int = 6, *, time: int = 1) -> dict[str, tuple[int, list[str]]]:
    return {name: (time, [f"host{number}.evil.example"]) for number, name in enumerate(ids(count))}


@pytest.fixture
def site() -> Iterator[FeedSite]:
    made = FeedSite()
    yield made
    made.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def fetch(world: World, site: FeedSite, *, total_s: float = 30.0, **fields: Any) -> FetchReport:
    world.tables = [table(**{"name": "misp", "kind": "mixed", "format": "misp-feed", "url": site.url, **fields})]
    catalogue = world.catalogue
    downloader = Downloader(Limits(total_s=total_s, pause_s=10.0))
    (report,) = Fetcher(catalogue, world.store, downloader, lambda: NOW).fetch_all(catalogue.sources)
    return report


def names(world: World) -> list[str]:
    source, tally = world.catalogue.sources[0], Tally()
    return [entry.value for entry in read_entries(source, world.store.current("misp"), DomainRules(), tally)]


def test_command_fetches_manifest_and_events(
    site: FeedSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.publish(feed(3), wrong={"timestamp": "1"}, **{"../../etc/passwd": {}})
    (tmp_path / "sources.toml").write_text(
        f'format = 1\n[[sources]]\nname = "misp"\nkind = "mixed"\nformat = "misp-feed"\nurl = "{site.url}"\n'
        'licence = "x"\nattribution = "x"\nmax_bytes = 10000\nentries = [0, 10]\nlists = { domain = "c2" }\n'
    )
    words = ["--sources", str(tmp_path / "sources.toml"), "--store", str(tmp_path / "store")]
    assert cli.main(["fetch", *words]) == 0
    told = capsys.readouterr()
    assert "misp: new; 3 entries, 2 bad lines" in told.out
    assert "manifest.json, line 4: no id of an event: 'wrong'" in told.err
    assert site.asked == ["/feed/manifest.json", *(f"/feed/{name}.json" for name in ids(3))]
    assert site.connections == 1
    assert cli.main(["status", *words]) == 0
    assert "misp: 3 entries" in capsys.readouterr().out


def test_unchanged_manifest_is_all_that_is_asked_for(world: World, site: FeedSite) -> None:
    site.publish(feed())
    assert fetch(world, site).outcome is Outcome.NEW
    provenance = world.store.provenance("misp")
    assert provenance is not None
    assert (provenance.origin, provenance.used, provenance.etag != "") == (site.url, 6, True)
    site.asked.clear()
    assert fetch(world, site).outcome is Outcome.UNCHANGED
    assert site.asked == ["/feed/manifest.json"]


def test_only_changed_events_are_fetched_and_withdrawn_ones_are_gone(world: World, site: FeedSite) -> None:
    events = feed()
    site.publish(events)
    fetch(world, site)
    first, second, *_, last = ids(6)
    del events[last]
    site.publish(events | {second: (2, ["new.evil.example"])})
    # What says that it has not changed is not looked at again.
    site.files[f"{first}.json"] = b"{}"
    site.asked.clear()
    assert fetch(world, site).outcome is Outcome.NEW
    assert site.asked == ["/feed/manifest.json", f"/feed/{second}.json"]
    found = names(world)
    assert found == ["host0.evil.example", "new.evil.example", *(f"host{n}.evil.example" for n in (2, 3, 4))]


def test_same_feed_gives_the_same_copy(world: World, site: FeedSite, tmp_path: Path) -> None:
    site.publish(feed())
    fetch(world, site)
    other = World(tmp_path / "other")
    other.root.mkdir()
    site.publish(dict(reversed(feed().items())))
    site.files["manifest.json"] = json.dumps({name: {"timestamp": "1", "info": "x"} for name in ids(6)}).encode()
    fetch(other, site)
    assert other.store.current("misp").read_bytes() == world.store.current("misp").read_bytes()


def test_event_that_is_not_there_is_bad_and_asked_for_again(world: World, site: FeedSite) -> None:
    site.publish(feed())
    whole = dict(site.files)
    del site.files[f"{ids(6)[3]}.json"]
    report = fetch(world, site)
    assert (report.outcome, report.used, report.bad) == (Outcome.NEW, 5, 1)
    assert report.bad_lines[0].file == f"{ids(6)[3]}.json"
    site.files = whole
    site.asked.clear()
    report = fetch(world, site)
    assert (report.outcome, report.used, report.bad) == (Outcome.NEW, 6, 0)
    assert site.asked == ["/feed/manifest.json", f"/feed/{ids(6)[3]}.json"]
    assert fetch(world, site).outcome is Outcome.UNCHANGED


def test_feed_that_shrinks_or_is_emptied_keeps_its_copy(world: World, site: FeedSite) -> None:
    site.publish(feed(200))
    fetch(world, site)
    site.publish(feed(100))
    report = fetch(world, site)
    assert report.outcome is Outcome.REFUSED
    assert "shrank from 200 to 100" in report.reason
    assert len(names(world)) == 200
    site.publish({})
    assert fetch(world, site, entries=[1, 1000]).outcome is Outcome.REFUSED
    assert len(names(world)) == 200


def test_server_that_ends_kept_connections(world: World, site: FeedSite) -> None:
    site.publish(feed())
    site.hangs_up_after = 2
    assert fetch(world, site).used == 6
    assert site.connections == 4


def size(site: FeedSite) -> int:
    return sum(len(data) for data in site.files.values())


def test_exactly_as_many_bytes_as_allowed_and_one_less(world: World, site: FeedSite) -> None:
    site.publish(feed())
    assert fetch(world, site, max_bytes=size(site)).outcome is Outcome.NEW
    world.store.current("misp").unlink()
    report = fetch(world, site, max_bytes=size(site) - 1)
    assert report.outcome is Outcome.UNAVAILABLE
    assert "bytes" in report.reason
    assert not world.store.incoming("misp").exists()


def test_copy_counts_for_the_bytes_too(world: World, site: FeedSite) -> None:
    site.publish(feed())
    fetch(world, site)
    site.publish(feed() | {ids(7)[6]: (1, ["host6.evil.example"])})
    assert fetch(world, site, max_bytes=size(site) - 1).outcome is Outcome.UNAVAILABLE
    assert len(names(world)) == 6


@pytest.mark.parametrize("is_manifest", [True, False])
@pytest.mark.parametrize("extra", [0, 1])
def test_manifest_and_event_of_one_byte_too_much(
    world: World, site: FeedSite, monkeypatch: pytest.MonkeyPatch, extra: int, *, is_manifest: bool
) -> None:
    site.publish(feed())
    longest = max(len(data) for name, data in site.files.items() if (name == "manifest.json") == is_manifest)
    bound = "MAX_MANIFEST_BYTES" if is_manifest else "MAX_DOCUMENT_BYTES"
    monkeypatch.setattr(misp_feed, bound, longest - extra)
    assert fetch(world, site).outcome is (Outcome.UNAVAILABLE if extra else Outcome.NEW)


def test_one_event_too_many(world: World, site: FeedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misp_feed, "MAX_EVENTS", 6)
    site.publish(feed(7))
    report = fetch(world, site)
    assert report.outcome is Outcome.UNAVAILABLE
    assert "at most 6 events" in report.reason
    assert site.events_asked() == 0
    site.publish(feed(6))
    assert fetch(world, site).outcome is Outcome.NEW


@pytest.mark.parametrize("manifest", [b"", b"[]", b"null", b"{", b'{"a":' * 100_000, b"1" * 10_000])
def test_what_is_no_manifest(world: World, site: FeedSite, manifest: bytes) -> None:
    site.publish(feed())
    fetch(world, site)
    site.files["manifest.json"] = manifest
    assert fetch(world, site, max_bytes=10_000_000).outcome is Outcome.UNAVAILABLE
    assert len(names(world)) == 6


def test_event_nested_without_end_is_a_bad_one(world: World, site: FeedSite) -> None:
    site.publish(feed())
    site.files[f"{ids(1)[0]}.json"] = b'{"Event":' * 100_000
    report = fetch(world, site, max_bytes=10_000_000)
    assert (report.outcome, report.used, report.bad) == (Outcome.NEW, 5, 1)


def test_time_is_that_of_the_whole_feed(world: World, site: FeedSite) -> None:
    site.publish(feed(200))
    site.pause_s = 0.05  # no single answer is slow
    report = fetch(world, site, total_s=0.5)
    assert report.outcome is Outcome.UNAVAILABLE
    assert "not done within 0.5 s" in report.reason
    assert site.events_asked() < 200


def test_copy_of_another_place_or_format_is_not_used(world: World, site: FeedSite) -> None:
    site.publish(feed())
    fetch(world, site)
    site.asked.clear()
    assert fetch(world, site, url=site.url + "./").outcome is Outcome.UNCHANGED  # the same bytes, asked for anew
    assert site.events_asked() == 6
    (world.root / "misp.txt").write_bytes(b"")
    fetch(world, site, url=site.url + "manifest.json", format="plain")
    assert fetch(world, site).outcome is Outcome.NEW


def test_url_is_a_directory(world: World, site: FeedSite) -> None:
    with pytest.raises(SourceError, match="ends with a slash"):
        fetch(world, site, url=site.url.rstrip("/"))


def test_feed_of_a_local_directory(world: World, site: FeedSite) -> None:
    site.publish(feed(3))
    folder = world.root / "export"
    folder.mkdir()
    for name, data in site.files.items():
        (folder / name).write_bytes(data)
    world.tables = [table(name="misp", kind="mixed", format="misp-feed", file="export")]
    assert [(report.outcome, report.used) for report in world.fetch()] == [(Outcome.NEW, 3)]
    assert [report.outcome for report in world.fetch()] == [Outcome.UNCHANGED]
