"""Every format in which lists are published, with the lines that real ones have; a bad line is told and never fatal."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omamori_signatures import archive
from omamori_signatures.archive import open_members
from omamori_signatures.catalogue import Source
from omamori_signatures.errors import SourceError
from omamori_signatures.indicators import DomainRules
from omamori_signatures.source_reader import Entry, Tally, count_source, read_entries
from omamori_signatures.tokens import MAX_LINE_BYTES
from sim.feed_world import source_of

DOMAINS = DomainRules()
DIGEST = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"


def read(source: Source, data: bytes | str, tmp_path: Path, name: str = "list.txt") -> tuple[list[str], Tally]:
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    tally = Tally()
    found = [_words(entry) for entry in read_entries(source, path, DOMAINS, tally)]
    return found, tally


def _words(entry: Entry) -> str:
    return f"{entry.kind} {entry.value}{entry.path}" + (f" [{entry.group}]" if entry.group else "")


class TestPlain:
    def test_comments_case_ends_and_a_bad_line(self, tmp_path: Path) -> None:
        text = "\ufeff# t\r\n\r\nEvil.Example.COM. # why\nexample\nwww.bad.example;x\n; also a comment\n! and this\n"
        found, tally = read(source_of(), text, tmp_path)
        assert found == ["domain evil.example.com", "domain www.bad.example"]
        assert [(line.number, line.reason[:20]) for line in tally.bad_lines] == [(4, "a top-level domain o")]

    def test_networks_as_drop_lists_have_them(self, tmp_path: Path) -> None:
        text = "; Spamhaus\n1.10.16.0/20 ; SBL256894\n2a06:e480::/29\n10.0.0.0/8\n1.2.3.4/24\n9.9.9.9,x\n"
        found, tally = read(source_of(kind="ip"), text, tmp_path)
        assert found == ["ip 1.10.16.0/20", "ip 2a06:e480::/29", "ip 9.9.9.9"]
        assert [line.number for line in tally.bad_lines] == [4, 5]

    def test_score_below_the_bound_is_passed_over(self, tmp_path: Path) -> None:
        found, tally = read(source_of(kind="ip", minimum_score=3), "1.1.1.9\t10\n1.1.1.8\t2\n1.1.1.7\n", tmp_path)
        assert (found, tally.skipped, tally.bad) == (["ip 1.1.1.9"], 2, 0)

    def test_mixed_list_of_all_kinds(self, tmp_path: Path) -> None:
        text = (
            f"evil.example\nhttp://9.8.7.6\nhttp://evil.example/a?b#c\n9.8.7.5:8080\nevil2.example/x.exe\n{DIGEST.upper()}\n"
            "http://9.8.7.4:81/y\nhttps://evil3.example/\nhttps://evil4.example/x\n/only/path\n" + "a" * 32 + "\n"
        )
        found, tally = read(source_of(kind="mixed"), text, tmp_path)
        assert found == [
            "domain evil.example",
            "ip 9.8.7.6",
            "url evil.example/a?b",
            "url evil2.example/x.exe",
            f"sha256 {DIGEST}",
            "url 9.8.7.4/y",
            "domain evil3.example",
        ]
        assert (tally.bad, tally.skipped) == (0, 4)  # a port, HTTPS with a path, a path alone, an MD5

    def test_hosts_of_https_and_addresses_with_ports_on_request(self, tmp_path: Path) -> None:
        source = source_of(kind="mixed", https_hosts=True, ports="address")
        found, _ = read(source, "https://evil4.example/x\n9.8.7.5:8080\n", tmp_path)
        assert found == ["domain evil4.example", "ip 9.8.7.5"]

    def test_digests_as_text(self, tmp_path: Path) -> None:
        text = f"{DIGEST}\n{'0' * 63}\n{'b' * 32}\n{DIGEST}  eicar.com\n"
        found, tally = read(source_of(kind="hash", lists={"sha256": "malware-files"}), text, tmp_path)
        assert found == [f"sha256 {DIGEST}"] * 2
        assert (tally.used, tally.skipped) == (2, 1)

    def test_line_of_one_byte_too_much_is_bad_and_the_next_is_read(self, tmp_path: Path) -> None:
        long = b"a" * (MAX_LINE_BYTES + 1)
        found, tally = read(source_of(), long + b"\nevil.example\n\xff\xfe\n" + long, tmp_path)
        assert found == ["domain evil.example"]
        assert [line.number for line in tally.bad_lines] == [1, 3, 4]


class TestHosts:
    def test_names_behind_addresses_that_lead_nowhere(self, tmp_path: Path) -> None:
        text = (
            "127.0.0.1 localhost\n::1 localhost ip6-loopback\n0.0.0.0 0.0.0.0\n0.0.0.0 evil.example b.evil.example\n"
            "192.168.1.5 printer.office.example\nbare.example\n"
        )
        found, tally = read(source_of(format="hosts"), text, tmp_path)
        assert found == ["domain evil.example", "domain b.evil.example", "domain bare.example"]
        assert [(line.number, line.reason) for line in tally.bad_lines] == [(5, "'192.168.1.5' leads somewhere")]


class TestAdblock:
    def test_rules_about_hosts_and_urls_and_nothing_else(self, tmp_path: Path) -> None:
        text = (
            "[Adblock]\n! T\n||evil.example^\n||evil2.example^$all\n||evil3.example^$script\n||bad.example/x/y^\n"
            "@@||good.example^\nplain.example\nexample.com##.ad\n*.wild.example\n/banner\\d+/\n||9.8.7.6^\n(\n"
        )
        found, tally = read(source_of(format="adblock"), text, tmp_path)
        assert found == [
            "domain evil.example", "domain evil2.example", "url bad.example/x/y", "domain plain.example", "ip 9.8.7.6",
        ]  # fmt: skip
        assert (tally.skipped, tally.bad) == (5, 1)


class TestCSV:
    def test_urlhaus_as_published(self, tmp_path: Path) -> None:
        text = (
            "################\n# abuse.ch URLhaus\n# id,dateadded,url,url_status,threat\n"
            '"1","2026-01-01","http://9.8.7.6:81/bin.sh","online","malware_download"\r\n'
            '"2","2026-01-01","http://evil.example/a,b","offline","malware_download"\r\n'
            '"3","2026-01-01\n'
        )
        source = source_of(kind="url", format="csv", column=2, where=[3, ["online"]])
        found, tally = read(source, text, tmp_path)
        assert found == ["url 9.8.7.6/bin.sh"]
        assert (tally.skipped, [line.number for line in tally.bad_lines]) == (1, [6])

    def test_table_with_a_header(self, tmp_path: Path) -> None:
        text = '"first_seen_utc","dst_ip","dst_port"\n"2023-05-23","9.8.7.6","1194"\n"x"\n'
        found, tally = read(source_of(kind="ip", format="csv", column=1, has_header=True), text, tmp_path)
        assert (found, tally.bad) == (["ip 9.8.7.6"], 1)

    def test_table_of_digests(self, tmp_path: Path) -> None:
        text = f'"first_seen_utc", "sha256_hash", "md5_hash"\n"2026-01-01","{DIGEST.upper()}","{"a" * 32}"\n"x","y"\n'
        fields: dict[str, Any] = {"kind": "hash", "format": "csv", "has_header": True, "lists": {"sha256": "files"}}
        found, tally = read(source_of(**fields, column=1), text, tmp_path)
        assert (found, tally.bad, tally.skipped) == ([f"sha256 {DIGEST}"], 1, 0)
        found, tally = read(source_of(**fields, column=2), text, tmp_path)
        assert (found, tally.bad, tally.skipped) == ([], 1, 1)  # an MD5


class TestUT1:
    def test_directory_of_categories(self, tmp_path: Path) -> None:
        root = tmp_path / "blacklists"
        for name, text in {
            "games/domains": "play.example\n1.2.3.4\nbad_\n",
            "games/urls": "example.com/play\n",
            "adult/domains": "never.example\n",
            "social_networks/domains": "sns.example\n",
        }.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / "link").symlink_to("games")
        source = source_of(kind="category", format="ut1", categories={"games": "games", "social_networks": "sns"})
        tally = Tally()
        found = [_words(entry) for entry in read_entries(source, root, DOMAINS, tally)]
        assert found == ["domain play.example [games]", "domain sns.example [social_networks]"]
        assert (tally.skipped, tally.bad) == (1, 1)


def stix(*objects: dict[str, Any]) -> str:
    return json.dumps({"type": "bundle", "id": "bundle--1", "objects": list(objects)})


def indicator(pattern: str, **more: Any) -> dict[str, Any]:
    return {"type": "indicator", "pattern": pattern, "pattern_type": "stix", **more}


class TestSTIX:
    def test_comparisons_that_each_suffice(self, tmp_path: Path) -> None:
        text = stix(
            {"type": "malware", "name": "x"},
            indicator("[domain-name:value = 'evil.example']"),
            indicator("[ipv4-addr:value='9.8.7.6' OR url:value = 'http://evil.example/it\\'s']"),
            indicator(f"[file:hashes.'SHA-256' = '{DIGEST}'] OR [file:hashes.MD5 = '{'a' * 32}']"),
            indicator("[domain-name:value = 'both.example' AND ipv4-addr:value = '9.8.7.5']"),
            indicator("[domain-name:value != 'not.example']"),
            indicator("[domain-name:value = 'gone.example']", revoked=True),
            indicator("[domain-name:value = 'old.example']", valid_until="2025-01-01T00:00:00Z"),
            indicator("[domain-name:value = 'soon.example']", valid_from="2026-01-02T00:00:00Z"),
            indicator("[domain-name:value = 'now.example']", valid_from="2026-01-01T00:00:00Z", valid_until="never"),
            indicator("[ipv4-addr:value IN ('9.8.7.4', '9.8.7.3')]"),
            indicator("[ipv4-addr:value ISSUBSET '9.8.0.0/16']"),
            indicator("[domain-name:value = 'often.example'] REPEATS 5 TIMES WITHIN 60 SECONDS"),
            indicator("[url:value LIKE 'http://%.example/x']"),
            indicator("[domain-name:value = 'open"),
            indicator("alert dns", pattern_type="suricata"),
        )
        source = source_of(kind="mixed", format="stix")
        source = type(source)(**{**source.__dict__, "as_of": datetime(2026, 1, 1, tzinfo=UTC)})
        found, tally = read(source, text, tmp_path, "bundle.json")
        assert found == [
            "domain evil.example",
            "ip 9.8.7.6",
            "url evil.example/it's",
            f"sha256 {DIGEST}",
            "domain now.example",
            "ip 9.8.7.4",
            "ip 9.8.7.3",
            "ip 9.8.0.0/16",
        ]
        assert [line.number for line in tally.bad_lines] == [15]

    @pytest.mark.parametrize("text", ["", "{", "[" * 5000, "[]", '{"objects": 3}', "null", '[{"type": "indicator"}]'])
    def test_what_is_no_bundle_is_bad_and_not_fatal(self, text: str, tmp_path: Path) -> None:
        found, tally = read(source_of(kind="mixed", format="stix"), text, tmp_path)
        assert (found, tally.bad) == ([], 0 if text == "[]" else 1)


class TestMISP:
    def test_event_with_attributes_and_objects(self, tmp_path: Path) -> None:
        event = {
            "Event": {
                "info": "x",
                "Attribute": [
                    {"type": "domain", "value": "evil.example", "to_ids": True},
                    {"type": "domain", "value": "context.example", "to_ids": False},
                    {"type": "ip-dst", "value": "9.8.7.6", "to_ids": True},
                    {"type": "filename|sha256", "value": f"a.exe|{DIGEST}", "to_ids": True},
                    {"type": "filename|sha256", "value": "a.exe", "to_ids": True},
                    {"type": "hostname|port", "value": "c2.example|443", "to_ids": True},
                    {"type": "regkey", "value": "HKLM", "to_ids": True},
                    {"type": "domain", "to_ids": True},
                ],
                "Object": [{"Attribute": [{"type": "url", "value": "http://evil.example/x", "to_ids": True}]}],
            }
        }
        found, tally = read(source_of(kind="mixed", format="misp"), json.dumps(event), tmp_path, "event.json")
        assert found == [
            "domain evil.example", "ip 9.8.7.6", f"sha256 {DIGEST}", "domain c2.example", "url evil.example/x",
        ]  # fmt: skip
        assert (tally.skipped, tally.bad) == (2, 2)

    def test_warninglist_for_the_allow_list(self, tmp_path: Path) -> None:
        text = json.dumps({"name": "x", "list": [".example.com", "9.9.9.9", "com", "2620:fe::fe"]})
        found, tally = read(source_of(kind="allow", format="warninglist"), text, tmp_path, "list.json")
        assert found == ["domain example.com", "ip 9.9.9.9", "ip 2620:fe::fe"]
        assert (tally.bad, tally.skipped) == (0, 1)  # what no list may hold needs no protection


class TestPacking:
    def tar(self, mode: str) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode) as packed:
            for name, text in (("a/readme.md", "not.example\n"), ("a/list.txt", "evil.example\n")):
                item = tarfile.TarInfo(name)
                item.size = len(text)
                packed.addfile(item, io.BytesIO(text.encode()))
            link = tarfile.TarInfo("a/link.txt")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            packed.addfile(link)
        return out.getvalue()

    @pytest.mark.parametrize("mode", ["w", "w:gz"])
    def test_chosen_files_of_an_archive(self, mode: str, tmp_path: Path) -> None:
        found, _ = read(source_of(only_files=["*/*.txt"]), self.tar(mode), tmp_path)
        assert found == ["domain evil.example"]

    def test_gzip_and_zip(self, tmp_path: Path) -> None:
        found, _ = read(source_of(), gzip.compress(b"evil.example\n"), tmp_path)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("csv.txt", "evil.example\n")
        again, _ = read(source_of(), out.getvalue(), tmp_path)
        assert found == again == ["domain evil.example"]

    @pytest.mark.parametrize("cut", [20, 100, 200])
    def test_cut_archive_is_refused(self, cut: int, tmp_path: Path) -> None:
        whole = gzip.compress(("\n".join(f"host{n}.evil{n * 7919}.example" for n in range(50))).encode(), mtime=0)
        with pytest.raises(SourceError, match="intact"):
            read(source_of(), whole[:cut], tmp_path)

    def test_more_than_may_come_out_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb"
        path.write_bytes(gzip.compress(bytes(2_000_001)))
        with open_members(path, max_unpacked=2_000_000) as members:
            stream = next(members).stream
            assert len(stream.read(1_000_000)) == 1_000_000
            with pytest.raises(SourceError, match="more than 2000000"):
                stream.read(1_100_000)

    def test_more_members_than_allowed_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
        with pytest.raises(SourceError, match="more than 2 files"):
            read(source_of(), self.tar("w"), tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=400), form=st.sampled_from(["plain", "hosts", "adblock", "csv", "stix", "misp"]))
def test_no_bytes_whatever_end_a_reader(data: bytes, form: str, tmp_path: Path) -> None:
    source = source_of(kind="mixed", format=form, **({"column": 1} if form == "csv" else {}))
    path = tmp_path / "x.json"
    path.write_bytes(data)
    try:
        tally = count_source(source, path, DOMAINS)
    except SourceError:  # something that begins like an archive
        return
    assert tally.used + tally.bad + tally.skipped <= len(data) + 1
