"""Fetching sources: what a server may do to us, what the guard believes, and what stays in use afterwards."""

from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omamori_signatures import cli
from omamori_signatures.download import Downloader, Limits, Validators
from omamori_signatures.errors import FetchError, GuardError
from omamori_signatures.fetch import Fetcher, Outcome
from omamori_signatures.guard import SMALL_CHANGE, Counts, judge
from sim.feed_world import NOW, World, source_of, table

LIST = "".join(f"host.evil{number}.example\n" for number in range(100)).encode()


class Site:
    """A web server on this machine that can be told to misbehave; it counts what it was asked."""

    def __init__(self) -> None:
        self.content = LIST
        self.mode = "good"
        self.asked: list[dict[str, str]] = []
        self.released = threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append({key.lower(): value for key, value in self.headers.items()})
                try:
                    getattr(site, f"_{site.mode}")(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/list.txt"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'

    def _head(self, handler: http.server.BaseHTTPRequestHandler, *headers: tuple[str, str], status: int = 200) -> None:
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()

    def _good(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.headers.get("If-None-Match") == self.etag:
            self._head(handler, status=304)
            return
        self._head(handler, ("Content-Length", str(len(self.content))), ("ETag", self.etag))
        handler.wfile.write(self.content)

    def _short(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler, ("Content-Length", str(len(self.content) + 10)))
        handler.wfile.write(self.content)

    def _huge(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler, ("Content-Length", str(10**15)))

    def _endless(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler)
        while not self.released.is_set():
            handler.wfile.write(self.content)

    def _silent(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler, ("Content-Length", str(len(self.content))))
        self.released.wait(30)

    def _dripping(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler, ("Content-Length", str(len(self.content))))
        for byte in self.content:
            handler.wfile.write(bytes([byte]))
            if self.released.wait(0.02):
                return

    def _dripping_head(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in itertools.count():
            handler.wfile.write(f"X-{number}: x\r\n".encode())
            if self.released.wait(0.02):
                return

    def _elsewhere(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler, ("Location", "http://localhost:9/list.txt"), status=302)

    def _round(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler, ("Location", handler.path), status=301)

    def _moved(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path == "/list.txt":
            self._head(handler, ("Location", "/new.txt"), status=307)
        else:
            self._good(handler)

    def _gone(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler, ("Content-Length", "0"), status=404)

    def _packed(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler, ("Content-Length", "3"), ("Content-Encoding", "gzip"))
        handler.wfile.write(b"abc")

    def _lying(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._head(handler, status=304)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def fetch(world: World, *, total_s: float = 20.0, pause_s: float = 10.0) -> tuple[Outcome, str]:
    downloader = Downloader(Limits(total_s=total_s, pause_s=pause_s))
    catalogue = world.catalogue
    (report,) = Fetcher(catalogue, world.store, downloader, lambda: NOW).fetch_all(catalogue.sources)
    return report.outcome, report.reason


def web(world: World, site: Site, **fields: object) -> None:
    world.tables = [table(name="web", url=site.url, **fields)]


class TestWeb:
    def test_first_copy_with_its_provenance(self, world: World, site: Site) -> None:
        web(world, site)
        assert fetch(world) == (Outcome.NEW, "")
        provenance = world.store.provenance("web")
        assert provenance is not None
        assert (provenance.sha256, provenance.size) == (hashlib.sha256(LIST).hexdigest(), len(LIST))
        assert (provenance.origin, provenance.fetched, provenance.etag) == (site.url, NOW, site.etag)
        assert provenance.used == 100
        assert world.store.current("web").read_bytes() == LIST

    def test_second_time_nothing_is_sent(self, world: World, site: Site) -> None:
        web(world, site)
        fetch(world)
        assert fetch(world) == (Outcome.UNCHANGED, "")
        assert site.asked[1]["if-none-match"] == site.etag
        assert world.store.current("web").read_bytes() == LIST

    def test_etag_of_another_url_is_not_told(self, world: World, site: Site) -> None:
        web(world, site)
        fetch(world)
        world.tables[0]["url"] = site.url + "?other"
        fetch(world)
        assert "if-none-match" not in site.asked[1]

    def test_damaged_copy_is_fetched_anew(self, world: World, site: Site) -> None:
        web(world, site)
        fetch(world)
        world.store.current("web").write_bytes(LIST[:-1] + b"x")
        assert fetch(world)[0] is Outcome.NEW
        assert world.store.current("web").read_bytes() == LIST

    def test_redirect_on_the_same_host_is_followed(self, world: World, site: Site) -> None:
        web(world, site)
        site.mode = "moved"
        assert fetch(world) == (Outcome.NEW, "")

    @pytest.mark.parametrize(
        ("mode", "reason"),
        [
            ("short", "bytes"),
            ("huge", "announced"),
            ("endless", "more than 100000 bytes"),
            ("elsewhere", "moved to"),
            ("round", "more than 3 redirects"),
            ("gone", "status 404"),
            ("packed", "encoded"),
            ("lying", "what we do not have"),
        ],
    )
    def test_misbehaving_server_leaves_everything_as_it_was(
        self, world: World, site: Site, mode: str, reason: str
    ) -> None:
        web(world, site, max_bytes=100_000)
        site.mode = mode
        outcome, why = fetch(world)
        assert outcome is Outcome.UNAVAILABLE
        assert reason in why
        assert world.store.provenance("web") is None
        site.mode = "good"
        assert fetch(world)[0] is Outcome.NEW
        site.content = LIST[::-1]  # so that there is something to fetch
        site.mode = "short" if mode == "lying" else mode
        assert fetch(world)[0] is Outcome.UNAVAILABLE
        assert world.store.current("web").read_bytes() == LIST
        assert sorted(path.name for path in world.store.current("web").parent.iterdir()) == ["current", "current.json"]

    @pytest.mark.parametrize("mode", ["silent", "dripping", "dripping_head"])
    def test_slow_server_is_left_at_the_deadline(self, world: World, site: Site, mode: str) -> None:
        web(world, site)
        site.mode = mode
        outcome, _ = fetch(world, total_s=0.3, pause_s=0.2)
        assert outcome is Outcome.UNAVAILABLE

    def test_exactly_as_many_bytes_as_allowed(self, world: World, site: Site) -> None:
        web(world, site, max_bytes=len(LIST))
        assert fetch(world)[0] is Outcome.NEW
        web(world, site, max_bytes=len(LIST) - 1)
        world.store.current("web").unlink()
        assert fetch(world)[0] is Outcome.UNAVAILABLE

    def test_nobody_there(self, tmp_path: Path) -> None:
        with (tmp_path / "x").open("wb") as target, pytest.raises(FetchError):
            Downloader(Limits(total_s=2)).fetch("http://127.0.0.1:1/x", target, max_bytes=10, known=Validators())

    def test_offline_keeps_the_copy(self, world: World, site: Site) -> None:
        web(world, site)
        fetch(world)
        catalogue = world.catalogue
        (report,) = Fetcher(catalogue, world.store, None, lambda: NOW).fetch_all(catalogue.sources)
        assert (report.outcome, report.has_copy, report.used) == (Outcome.KEPT, True, 100)


class TestFiles:
    def test_directory_becomes_one_copy_with_the_same_bytes_each_time(self, world: World) -> None:
        world.add("", name="ut1", kind="category", format="ut1", categories={"games": "games"}, file="blacklists")
        for name in ("games", "adult"):
            (world.root / "blacklists" / name).mkdir(parents=True)
            (world.root / "blacklists" / name / "domains").write_text(f"{name}.example\n")
        assert [report.outcome for report in world.fetch()] == [Outcome.NEW]
        assert [report.outcome for report in world.fetch()] == [Outcome.UNCHANGED]

    def test_file_that_is_not_there_stops_no_other(self, world: World) -> None:
        world.add("a.example\n", name="a")
        world.add("b.example\n", name="b")
        (world.root / "a.txt").unlink()
        assert [report.outcome for report in world.fetch()] == [Outcome.UNAVAILABLE, Outcome.NEW]


class TestGuard:
    def test_source_that_shrinks_beyond_its_bound_keeps_its_copy_until_accepted(self, world: World) -> None:
        names = [f"host.evil{number}.example\n" for number in range(1000)]
        world.add("".join(names), name="list", shrink_percent=10)
        world.fetch()
        world.write("list", "".join(names[:900]))
        assert world.fetch()[0].outcome is Outcome.NEW
        world.write("list", "".join(names[:809]))
        (report,) = world.fetch()
        assert report.outcome is Outcome.REFUSED
        assert "shrank from 900 to 809" in report.reason
        assert (report.has_copy, report.used) == (True, 900)
        assert world.store.current("list").read_bytes().count(b"\n") == 900
        refusal = world.store.refusal("list")
        assert refusal is not None
        assert "shrank" in refusal.reason
        catalogue = world.catalogue
        fetcher = Fetcher(catalogue, world.store, None, lambda: NOW)
        assert fetcher.accept(catalogue.find("list")).outcome is Outcome.NEW
        assert world.store.current("list").read_bytes().count(b"\n") == 809
        assert world.store.refusal("list") is None

    def test_emptied_source_is_refused(self, world: World) -> None:
        world.add("".join(f"host.evil{n}.example\n" for n in range(50)), name="list", entries=[1, 1000])
        world.fetch()
        world.write("list", "")
        (report,) = world.fetch()
        assert report.outcome is Outcome.REFUSED
        assert "0 entries" in report.reason

    def test_web_page_in_the_place_of_a_list_is_refused(self, world: World) -> None:
        names = "".join(f"host.evil{n}.example\n" for n in range(50))
        world.add(names, name="list")
        world.fetch()
        world.write("list", names + "<html><body>\n" * 60)
        (report,) = world.fetch()
        assert report.outcome is Outcome.REFUSED
        assert "60 bad lines" in report.reason

    @pytest.mark.parametrize(
        ("previous", "now", "bad", "believed"),
        [
            (1000, 900, 0, True),
            (1000, 899, 0, False),
            (1000, 1300, 0, True),
            (1000, 1301, 0, False),
            (SMALL_CHANGE + 1, 1, 0, True),
            (100, 100 - SMALL_CHANGE - 1, 0, False),
            (None, 5000, 0, True),
            (None, 5001, 0, False),
            (None, 0, 0, False),
            (1000, 1000, 52, True),
            (1000, 1000, 53, False),
            (1000, 1, 10, False),
            (10, 10, 10, True),
            (10, 10, 11, False),
        ],
    )
    def test_bounds(self, previous: int | None, now: int, bad: int, believed: bool) -> None:
        source = source_of(entries=[1, 5000], shrink_percent=10, growth_percent=30, bad_percent=5)
        before = None if previous is None else Counts(used=previous, bad=0)
        if believed:
            judge(source, Counts(used=now, bad=bad), before)
        else:
            with pytest.raises(GuardError):
                judge(source, Counts(used=now, bad=bad), before)

    @settings(deadline=None)
    @given(before=st.integers(100_000, 10**6), now=st.integers(0, 10**6))
    def test_loss_of_more_than_the_bound_is_never_believed(self, before: int, now: int) -> None:
        source = source_of(entries=[0, 10**6], shrink_percent=10, growth_percent=10_000)
        try:
            judge(source, Counts(used=now, bad=0), Counts(used=before, bad=0))
        except GuardError:
            assert now < before
        else:
            assert now * 10 >= before * 9 or before - now <= SMALL_CHANGE


class TestCommand:
    def test_fetch_offline_and_status(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "list.txt").write_text("evil.example\nexample\n")
        (tmp_path / "sources.toml").write_text(
            'format = 1\n[[sources]]\nname = "list"\nkind = "domain"\nformat = "plain"\nfile = "list.txt"\n'
            'licence = "x"\nattribution = "x"\nmax_bytes = 100\nentries = [0, 10]\nlists = { domain = "c2" }\n'
        )
        words = ["--sources", str(tmp_path / "sources.toml"), "--store", str(tmp_path / "store")]
        assert cli.main(["fetch", *words, "--offline"]) == 0
        told = capsys.readouterr()
        assert "list: new; 1 entries, 1 bad lines" in told.out
        assert "list.txt" not in told.err  # named after the copy
        assert "line 2: a top-level domain" in told.err
        assert cli.main(["status", *words, "--json"]) == 0
        (source,) = json.loads(capsys.readouterr().out)["sources"]
        assert (source["copy"]["used"], source["refused"]) == (1, None)
        (tmp_path / "list.txt").unlink()
        (tmp_path / "store/list/current").unlink()
        assert cli.main(["fetch", *words, "--offline"]) == 1
        assert "no copy of list" in capsys.readouterr().err
