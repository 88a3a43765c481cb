"""From source to pack and back: determinism, the reader's view, the command line."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omamori_protocol.feed_manifest import FeedManifest, ListKind, PackFile, PackRules
from omamori_protocol.feed_pack import MAX_PACK_BYTES, unpack
from omamori_signatures import cli
from omamori_signatures.compiler import compile_feed, parse_created
from omamori_signatures.errors import PackError, SourceError
from omamori_signatures.pack_reader import check_content, read_pack
from omamori_signatures.pack_writer import write_pack

DEMO = Path(__file__).resolve().parents[3] / "signatures" / "demo"
# Stands in for the engine: fails unless it finds the feed as the engine would.
ENGINE_THAT_LOOKS = """\
#!/bin/sh
set -e
test "$1" = -c
cd "$(dirname "$2")"
test -s all.rules
grep -q '^bWFsd2FyZS50ZXN0$' dangerous.lst
grep -q 'dangerous: {type: string, load: dangerous.lst, ' datasets.yaml
test "$5" = -T || test "$5" = --engine-analysis
test "$5" = -T || cp ANALYSIS rules.json
"""
ANALYSIS = (
    '{"id": 7, "raw": "alert udp any any -> any any (sid:7;)", "pkt_engines": [{"name": "payload"}], '
    '"mpm": {"buffer": "payload", "pattern": "|00 00|"}}\n'
)
CREATED = "2030-01-01T00:00:00Z"


def build(source: Path, serial: int = 1) -> bytes:
    feed = compile_feed(source, serial=serial, created=CREATED, channel="demo")
    return write_pack(feed.manifest, feed.files)


def test_same_input_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in sorted(source.rglob("*"), reverse=True):
        if path.is_file():
            (copy / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(source)).write_bytes(path.read_bytes())
    assert build(source) == build(copy)
    assert build(source) != build(source, serial=2)


def test_order_and_writing_of_the_lines_do_not_matter(source: Path) -> None:
    before = build(source)
    (source / "lists/dangerous.txt").write_text("# other comment\r\nmalware.TEST\r\n\r\nphishing.test.\r\n")
    assert build(source) == before


def test_content_of_the_pack(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    manifest = unpack(io.BytesIO(build(source)), tmp_path / "out")
    assert (tmp_path / "out/lists/dangerous.txt").read_text() == "malware.test\nphishing.test\n"
    assert (tmp_path / "out/lists/addresses.txt").read_text() == "2001:db8:bad::/48\n203.0.113.99\n"
    assert [(item.name, item.kind, item.count) for item in manifest.lists] == [
        ("addresses", ListKind.IP, 2),
        ("dangerous", ListKind.DOMAIN, 2),
    ]
    assert [(item.path, item.count) for item in manifest.rules] == [("rules/lists.rules", 8), ("rules/own.rules", 1)]
    assert "#" not in (tmp_path / "out/rules/own.rules").read_text().partition("drop")[0]


def test_archive_says_nothing_about_the_machine(source: Path) -> None:
    pack = build(source)
    assert pack[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    with tarfile.open(fileobj=io.BytesIO(pack)) as archive:
        members = archive.getmembers()
    assert members[0].name == "manifest.json"
    assert [member.name for member in members[1:]] == sorted(member.name for member in members[1:])
    for member in members:
        assert (member.mode, member.uid, member.gid, member.uname, member.gname) == (0o644, 0, 0, "", "")
        assert member.isreg()
        assert member.mtime == 1893456000


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"lists/[a-z0-9][a-z0-9._-]{0,30}", fullmatch=True), st.binary(max_size=2000)))
def test_whatever_is_written_is_read_back(files: dict[str, bytes]) -> None:
    manifest = FeedManifest(
        serial=1,
        created=CREATED,
        channel="demo",
        engine_min="8.0.0",
        files=tuple(
            PackFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in sorted(files.items())
        ),
        lists=(),
        rules=tuple(PackRules(path=path, count=0) for path in sorted(files)),
    )
    with tempfile.TemporaryDirectory() as name:
        assert unpack(io.BytesIO(write_pack(manifest, files)), Path(name)) == manifest
        for path, data in files.items():
            assert (Path(name) / path).read_bytes() == data


def test_demonstration_feed_compiles(tmp_path: Path) -> None:
    feed = compile_feed(DEMO, serial=1, created=CREATED, channel="demo")
    assert feed.bad_lines == ()
    lists = {item.name: item for item in feed.manifest.lists}
    assert set(lists) == {"dangerous", "c2", "games", "sns", "malware", "addresses"}
    assert feed.files["lists/dangerous.txt"] == b"malware.test\nphishing.test\n"
    assert feed.files["lists/addresses.txt"] == b"2001:db8:bad::99\n203.0.113.99\n"
    assert int(lists["c2"].severity) == 3
    check_content(feed.manifest, dict(feed.files))


def test_empty_hash_list_gets_no_rule(source: Path) -> None:
    text = (source / "feed.toml").read_text() + (
        '[[lists]]\nname = "malware"\nkind = "sha256"\nfile = "lists/malware.txt"\nfunction = "virus"\nseverity = 2\n'
        'action = "blocked"\nsid = 1910020\nlicence = "x"\norigin = "x"\n'
    )
    (source / "feed.toml").write_text(text)
    (source / "lists/malware.txt").write_text("")
    rules = compile_feed(source, serial=1, created=CREATED, channel="demo").files["rules/lists.rules"]
    assert b"filesha256" not in rules
    (source / "lists/malware.txt").write_text("0" * 64)
    rules = compile_feed(source, serial=1, created=CREATED, channel="demo").files["rules/lists.rules"]
    assert rules.count(b"filesha256:malware.sha256;") == 1


@pytest.mark.parametrize("serial", [0, -1, 2**31])
def test_serial_out_of_range_is_refused(source: Path, serial: int) -> None:
    with pytest.raises(SourceError, match="outside"):
        build(source, serial)


def test_missing_list_is_named(source: Path) -> None:
    (source / "lists/dangerous.txt").unlink()
    with pytest.raises(SourceError, match=r"dangerous\.txt is not a regular file"):
        build(source)


def test_list_that_is_a_link_is_refused(source: Path) -> None:
    (source / "lists/dangerous.txt").unlink()
    (source / "lists/dangerous.txt").symlink_to("/etc/hostname")
    with pytest.raises(SourceError, match="not a regular file"):
        build(source)


def test_pack_that_no_box_would_take_is_not_written(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = compile_feed(source, serial=1, created=CREATED, channel="demo")
    monkeypatch.setattr("omamori_signatures.pack_writer.MAX_PACK_BYTES", 100)
    with pytest.raises(SourceError, match="a box takes 100"):
        write_pack(feed.manifest, feed.files)


@pytest.mark.parametrize(
    ("text", "created"), [("0", "1970-01-01T00:00:00Z"), (CREATED, CREATED), ("1893456000", CREATED)]
)
def test_times(text: str, created: str) -> None:
    assert parse_created(text) == created


@pytest.mark.parametrize(
    "text", ["", "now", "2030-01-01", "2030-13-01T00:00:00Z", "2030-01-01T00:00:00+09:00", "-1", "9" * 12]
)
def test_time_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="not a time"):
        parse_created(text)


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("lists/dangerous.txt", b"phishing.test\nmalware.test\n", "not sorted"),
        ("lists/dangerous.txt", b"malware.test\n", "1 entries, the manifest says 2"),
        ("lists/dangerous.txt", b"malware.test\nWWW.test\n", "not sorted"),
        ("lists/dangerous.txt", b"co.jp\nmalware.test\n", "public suffix"),
        ("lists/addresses.txt", b"10.0.0.1\n203.0.113.99\n", "private"),
        ("rules/own.rules", b"", "0 rules, the manifest says 1"),
        ("rules/own.rules", b"pass ip any any -> any any (sid:1;)\n", "not a rule"),
    ],
)
def test_content_that_breaks_a_rule_of_its_kind_is_found(source: Path, path: str, data: bytes, reason: str) -> None:
    feed = compile_feed(source, serial=1, created=CREATED, channel="demo")
    check_content(feed.manifest, dict(feed.files))
    with pytest.raises(PackError, match=reason):
        check_content(feed.manifest, {**feed.files, path: data})


def test_oversize_pack_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "pack").open("wb") as out:
        out.truncate(MAX_PACK_BYTES + 1)
    with pytest.raises(SourceError, match="larger than"):
        read_pack(tmp_path / "pack")


class TestCommandLine:
    def test_build_show_check(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "pack.tar.gz"
        assert cli.main(["build", str(source), "--serial", "5", "--created", CREATED, "--out", str(out)]) == 0
        assert stat.S_IMODE(out.stat().st_mode) == 0o644
        assert "serial 5, channel demo" in capsys.readouterr().out
        assert cli.main(["show", str(out)]) == 0
        assert "list dangerous: 2 of kind domain: dangerous-site ★★ blocked" in capsys.readouterr().out
        assert cli.main(["show", str(out), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["serial"] == 5
        assert cli.main(["check", str(out)]) == 0
        assert cli.main(["check", str(source)]) == 0

    def test_time_comes_from_the_environment(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1893456000")
        for name in ("one", "two"):
            assert cli.main(["build", str(source), "--serial", "1", "--out", str(tmp_path / name), "--json"]) == 0
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == build(source)

    def test_bad_lines_are_told(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (source / "lists/dangerous.txt").write_text("good.example\nnot a domain\n")
        assert cli.main(["build", str(source), "--serial", "1", "--out", str(tmp_path / "p")]) == 0
        assert "warning: lists/dangerous.txt, line 2: not a domain name; left out" in capsys.readouterr().err

    def test_refused_source_leaves_the_previous_pack(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "pack.tar.gz"
        out.write_text("previous")
        (source / "lists/dangerous.txt").unlink()
        assert cli.main(["build", str(source), "--serial", "1", "--out", str(out)]) == 1
        assert capsys.readouterr().err.startswith("error: ")
        assert out.read_text() == "previous"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pack.tar.gz", "source"]

    def test_file_that_is_no_pack_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "pack").write_bytes(gzip.compress(b"x" * 600))
        assert cli.main(["show", str(tmp_path / "pack")]) == 1
        assert "is not a feed pack" in capsys.readouterr().err

    def test_engine_that_is_not_there_is_named(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["check", str(source), "--engine", "/nowhere/engine"]) == 1
        assert cli.main(["check", str(source), "--engine-root", str(source)]) == 1
        error = capsys.readouterr().err
        assert "/nowhere/engine is not there" in error
        assert "holds no engine" in error

    def test_engine_that_refuses_gives_its_reasons(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        engine = tmp_path / "engine"
        engine.write_text("#!/bin/sh\necho 'Error: detect: no such keyword' >&2\nexit 1\n")
        engine.chmod(0o755)
        assert cli.main(["check", str(source), "--engine", str(engine)]) == 1
        assert "  Error: detect: no such keyword" in capsys.readouterr().err

    def test_engine_that_agrees_is_told_of(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        engine = tmp_path / "engine"
        (tmp_path / "analysis").write_text(ANALYSIS)
        engine.write_text(ENGINE_THAT_LOOKS.replace("ANALYSIS", str(tmp_path / "analysis")))
        engine.chmod(0o755)
        assert cli.main(["check", str(source), "--engine", str(engine)]) == 0
        told = capsys.readouterr()
        assert "the engine loads it" in told.out
        assert "warning: rule 7 costs too much: a fast pattern of padding" in told.err

    @pytest.mark.parametrize(
        ("analysis", "complaint"),
        [
            ("{}\n", "cannot read"),
            ("no JSON\n", "not JSON"),
            (f"{' ' * 1024 * 1024}\n", "more than 1048576 bytes"),
            (None, "did not"),
        ],
        ids=["empty", "no JSON", "too long", "none"],
    )
    def test_analysis_that_cannot_be_read_stops_the_check(
        self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], analysis: str | None, complaint: str
    ) -> None:
        engine = tmp_path / "engine"
        if analysis is not None:
            (tmp_path / "analysis").write_text(analysis)
        engine.write_text(ENGINE_THAT_LOOKS.replace("ANALYSIS", str(tmp_path / "analysis")))
        engine.chmod(0o755)
        assert cli.main(["check", str(source), "--engine", str(engine)]) == 1
        assert complaint in capsys.readouterr().err
