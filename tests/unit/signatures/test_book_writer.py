"""The feed book says the same as the history, and what customers reported is left out of the next pack."""

from __future__ import annotations

import dataclasses
import json
import random
import sqlite3
from pathlib import Path

import pytest

from omamori_protocol.accepted_reports import AcceptedReport, render_reports
from omamori_protocol.errors import MalformedError, UnknownVersionError
from omamori_protocol.feed_book import FeedBook, Kind, Verdict
from omamori_signatures import cli
from omamori_signatures.book_writer import write_book
from omamori_signatures.errors import SourceError
from omamori_signatures.explain import Explainer, ask
from omamori_signatures.indicators import DomainRules
from sim.feed_world import World, entries

from .test_assembly import DIGEST, rule

LISTED = f"""\
evil.example
deep.host.shop.example.co.jp
http://evil.net.example/x?y=1
http://8.8.7.6/bin.sh
9.8.0.0/16
2a06:e480::/29
{DIGEST}
bank.example
"""
QUESTIONS = (
    "WWW.evil.example.", "evil.example", "deep.host.shop.example.co.jp", "x.deep.host.shop.example.co.jp",
    "shop.example.co.jp", "http://evil.net.example/x?y=1", "http://evil.net.example/", "https://www.evil.example/a",
    "http://8.8.7.6/bin.sh", "9.8.7.6", "9.8.7.0/24", "http://9.8.7.6/x", "2a06:e481::1", DIGEST.upper(),
    "bank.example", "www.bank.example", "2000001", "2000009", "1.2.3.4", "nothing.example",
)  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.add("bank.example\n", name="allow", kind="allow")
    made.add(LISTED, name="a", kind="mixed")
    made.add("evil.example\n9.8.7.6\n", name="b", kind="mixed")
    made.add(rule(2000001) + "\n", name="et", kind="rules", format="rules")
    return made


def reported(world: World, *reports: AcceptedReport) -> None:
    made = render_reports(reports)
    if any(item["name"] == "reports" for item in world.tables):
        world.write("reports", made)
    else:
        world.add(made, name="reports", kind="allow", format="reports", overrides="all")


def book_of(world: World, serial: int) -> FeedBook:
    path = world.root / "feed.book"
    size = write_book(world.history, serial, path)
    assert size == path.stat().st_size
    assert list(world.root.glob(".feed.book*")) == []
    return FeedBook(path)


class TestBook:
    def test_book_and_history_say_the_same(self, world: World) -> None:
        world.assemble(5, created="2030-01-01T00:00:00Z")
        world.write("a", LISTED + "new.example\n")
        world.assemble(6, created="2030-01-02T00:00:00Z")
        book, explainer, domains = book_of(world, 6), Explainer(world.history, 6), DomainRules()
        verdicts = set()
        for text in (*QUESTIONS, "new.example"):
            told = book.explain(ask(text, domains))
            assert dataclasses.asdict(told) == dataclasses.asdict(explainer.explain(text)), text
            verdicts.add(told.verdict)
        assert verdicts == {Verdict.BLOCKED, Verdict.ALLOWED, Verdict.NOT_LISTED}
        (match,) = book.explain(ask("new.example", domains)).matches
        assert (match.since_serial, match.since) == (6, "2030-01-02T00:00:00Z")
        (match,) = book.explain(ask("www.evil.example", domains)).matches
        assert (match.since_serial, match.entry, match.function, match.severity) == (
            5,
            "evil.example",
            "dangerous-site",
            3,
        )
        assert [(item.source, item.licence) for item in match.sources] == [("a", "test"), ("b", "test")]
        told_rule = book.explain(ask("2000001", domains)).rule
        assert told_rule is not None
        assert (told_rule.function, told_rule.severity, told_rule.since_serial) == ("ips", 3, 5)
        facts = book.facts()
        assert (facts.serial, facts.channel, facts.created) == (6, "demo", "2030-01-02T00:00:00Z")
        assert facts.entries == 8  # without what is allowed and what is folded, with the new one

    def test_every_entry_of_a_long_list_is_found_and_no_other(self, world: World) -> None:
        names = sorted({f"{'www.' * (n % 2)}evil{n * 7919}.example" for n in range(3000)})
        world.add("\n".join(names), name="long")
        world.assemble(1)
        book, domains = book_of(world, 1), DomainRules()
        for name in random.Random(3).sample(names, 200):
            assert book.explain(ask(name, domains)).verdict is Verdict.BLOCKED
            is_host = name.startswith("www.")
            below = book.explain(ask(f"a.{name}", domains)).verdict
            assert below is (Verdict.NOT_LISTED if is_host else Verdict.BLOCKED)

    def test_public_suffix_is_no_question(self, world: World) -> None:
        world.assemble(1)
        for text in ("com", "co.jp"):
            with pytest.raises(SourceError):
                ask(text, DomainRules())

    def test_unknown_serial_leaves_the_book_as_it_was(self, world: World) -> None:
        world.assemble(1)
        book = book_of(world, 1)
        before = book.path.read_bytes()
        with pytest.raises(SourceError):
            write_book(world.history, 9, book.path)
        assert book.path.read_bytes() == before

    def test_same_history_gives_the_same_bytes(self, world: World) -> None:
        world.assemble(1)
        one = book_of(world, 1).path.read_bytes()
        assert book_of(world, 1).path.read_bytes() == one

    @pytest.mark.parametrize("harm", ["empty", "text", "cut", "other"])
    def test_what_is_no_book(self, world: World, harm: str) -> None:
        world.assemble(1)
        book = book_of(world, 1)
        data = book.path.read_bytes()
        spoilt = {"empty": b"", "text": b"no book" * 999, "cut": data[:9000], "other": data[:68] + b"XXXX" + data[72:]}
        book.path.write_bytes(spoilt[harm])
        with pytest.raises(MalformedError):
            book.explain(ask("evil.example", DomainRules()))

    def test_book_of_a_newer_program(self, world: World) -> None:
        world.assemble(1)
        book = book_of(world, 1)
        with sqlite3.connect(book.path) as connection:
            connection.execute("UPDATE book SET value = 2 WHERE name = 'format'")
        connection.close()
        with pytest.raises(UnknownVersionError):
            book.facts()

    def test_book_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            FeedBook(tmp_path / "none").facts()

    def test_command_line(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        world.assemble(5)
        history, book = str(world.root / "history"), str(world.root / "feed.book")
        assert cli.main(["book", "--history", history, "--out", book]) == 0
        assert "book of serial 5" in capsys.readouterr().out
        assert cli.main(["explain", "www.evil.example", "--book", book, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert cli.main(["explain", "www.evil.example", "--history", history, "--json"]) == 0
        assert told == json.loads(capsys.readouterr().out)
        assert cli.main(["explain", "2000001", "--book", book]) == 0
        assert "rule of et as ips ★★★" in capsys.readouterr().out
        assert cli.main(["explain", "x", "--book", book]) == 1
        assert cli.main(["explain", "x.example", "--book", f"{book}.none"]) == 1
        assert cli.main(["explain", "x.example", "--book", book, "--serial", "5"]) == 1


class TestReports:
    def test_what_was_reported_is_left_out_of_the_next_pack(self, world: World) -> None:
        first = world.assemble(5, created="2030-01-01T00:00:00Z")
        assert entries(first, "c2") == ["deep.host.shop.example.co.jp", "evil.example"]
        reported(
            world,
            AcceptedReport(number=17, kind=Kind.DOMAIN, indicator="www.evil.example"),
            AcceptedReport(number=18, kind=Kind.URL, indicator="evil.net.example/x?y=1"),
            AcceptedReport(number=19, kind=Kind.SHA256, indicator=DIGEST),
            AcceptedReport(number=20, kind=Kind.RULE, indicator="2000001"),
            AcceptedReport(number=21, kind=Kind.IP, indicator="9.8.7.6"),
        )
        made = world.assemble(6, created="2030-01-02T00:00:00Z")
        assert entries(made, "c2") == ["deep.host.shop.example.co.jp"]
        assert entries(made, "malware-urls-paths") == ["/bin.sh"]
        assert entries(made, "malware-files") == []
        assert "rules/et.rules" not in made.files
        assert "9.8.0.0/16" not in entries(made, "bad-addresses")
        world.assemble(7, created="2030-01-03T00:00:00Z")
        book, domains = book_of(world, 7), DomainRules()
        reports = {
            "www.evil.example": 17,
            "http://evil.net.example/x?y=1": 18,
            DIGEST: 19,
            "2000001": 20,
            "9.8.7.6": 21,
        }
        for text, number in reports.items():
            told = book.explain(ask(text, domains))
            assert told.verdict is Verdict.ALLOWED, text
            (found,) = [item for item in told.allowed if item.report]
            assert (found.report, found.since_serial, found.since) == (number, 6, "2030-01-02T00:00:00Z")
            assert dataclasses.asdict(told) == dataclasses.asdict(Explainer(world.history, 7).explain(text))

    def test_report_takes_out_of_what_is_only_logged(self, world: World) -> None:
        world.add("", name="ut1", kind="category", format="ut1", categories={"games": "games"}, file="ut1")
        (world.root / "ut1/games").mkdir(parents=True)
        (world.root / "ut1/games/domains").write_text("school.example\nplay.example\n")
        reported(world, AcceptedReport(number=3, kind=Kind.DOMAIN, indicator="school.example"))
        assert entries(world.assemble(), "games") == ["play.example"]

    def test_rule_whose_bit_another_needs_comes_along_silently(self, world: World) -> None:
        setter = rule(2000011, body='flowbits:set,et.x; dns.query; content:"a";')
        asker = rule(2000012, body='flowbits:isset,et.x; dns.query; content:"b";')
        world.write("et", f"{setter}\n{asker}\n")
        reported(world, AcceptedReport(number=4, kind=Kind.RULE, indicator="2000011"))
        found = world.assemble().files["rules/et.rules"].decode()
        assert "sid:2000011" in found
        assert "sid:2000012" in found
        assert found.partition("\n")[0].startswith("alert")
        assert "noalert" in found.partition("\n")[0]

    def test_report_that_is_taken_back_is_listed_again_since_now(self, world: World) -> None:
        reported(world, AcceptedReport(number=17, kind=Kind.DOMAIN, indicator="evil.example"))
        world.assemble(5)
        reported(world)
        world.assemble(6, created="2030-01-02T00:00:00Z")
        (match,) = Explainer(world.history, 6).explain("evil.example").matches
        assert match.since_serial == 6

    def test_bad_lines_are_counted_and_cost_nothing_else(self, world: World) -> None:
        lines = b"# omamori accepted reports, format 1\n1\tdomain\tgood.example\nx\tdomain\ty.example\n2\tdomain\tcom\n"
        world.add(lines, name="reports", kind="allow", format="reports", overrides="all")
        made = world.assemble()
        (report,) = [item for item in made.report["sources"] if item["source"] == "reports"]
        assert (report["used"], report["bad"]) == (1, 1)

    def test_history_written_before_times_were_kept_is_read(self, world: World) -> None:
        world.assemble(5, created="2030-01-01T00:00:00Z")
        for name, columns in (("allowed.tsv", 5), ("rules.tsv", 4)):
            path = world.root / "history/5" / name
            rows = [line.split("\t")[:columns] for line in path.read_text().splitlines()]
            path.write_text("".join("\t".join(row) + "\n" for row in rows))
        assert book_of(world, 5).explain(ask("bank.example", DomainRules())).verdict is Verdict.ALLOWED
        world.assemble(6, created="2030-01-02T00:00:00Z")
        (found,) = book_of(world, 6).explain(ask("bank.example", DomainRules())).allowed
        assert (found.since_serial, found.since) == (5, "2030-01-01T00:00:00Z")
        told = book_of(world, 6).explain(ask("2000001", DomainRules())).rule
        assert told is not None
        assert told.since_serial == 5


def test_own_lists_can_be_explained_too(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history, book = tmp_path / "history", tmp_path / "feed.book"
    words = ["build", str(source), "--channel", "demo", "--out", str(tmp_path / "p")]
    kept = ["--history", str(history), "--book", str(book)]
    assert cli.main([*words, "--serial", "1", "--created", "2030-01-01T00:00:00Z", *kept]) == 0
    (source / "lists/dangerous.txt").write_text("phishing.test\nnew.test\n")
    assert cli.main([*words, "--serial", "2", "--created", "2030-01-02T00:00:00Z", *kept]) == 0
    capsys.readouterr()
    since = {}
    for name in ("www.phishing.test", "new.test", "203.0.113.99", "malware.test", "1900001"):
        assert cli.main(["explain", name, "--book", str(book), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        since[name] = [item["since_serial"] for item in told["matches"]] or [(told["rule"] or {}).get("since_serial")]
    assert since == {
        "www.phishing.test": [1], "new.test": [2], "203.0.113.99": [1], "malware.test": [None], "1900001": [1],
    }  # fmt: skip
    assert cli.main([*words, "--serial", "3", "--book", str(book)]) == 1
