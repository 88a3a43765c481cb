"""Reports of false alarms: kept, decided on, handed to the compiler, followed to the box. Every bound, and one more."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_cloud.errors import BookUnavailableError, QueryError, ReportError
from omamori_cloud.feed_shelf import FeedShelf, look_up_standing
from omamori_cloud.reports import Decision, NewReport, Progress, ReportState, ask, one_line, suspect
from omamori_cloud.store import reports as module
from omamori_cloud.store.queries import AlertQuery
from omamori_cloud.store.reports import ReportStore
from omamori_protocol.accepted_reports import HEADER
from omamori_protocol.feed_book import Kind, Verdict
from omamori_protocol.vocabulary import Function
from sim.feed_book import FeedOffice

from .makers import BOTH, BOX, NOW_MS, OTHER_BOX, Bench, alert, heartbeat, state

ENGINES = BOTH


def new(indicator: str = "shop.example", **changes: object) -> NewReport:
    values: dict[str, object] = {
        "kind": Kind.DOMAIN,
        "indicator": indicator,
        "note": "n",
        "reporter": "佐藤",
        **changes,
    }
    return NewReport(**values)  # type: ignore[arg-type]


def accept(indicator: str = "shop.example") -> Decision:
    return Decision(state=ReportState.ACCEPTED, by="op", reason="", kind=Kind.DOMAIN, indicator=indicator)


REFUSE = Decision(state=ReportState.REFUSED, by="op", reason="it is bad")


class TestStore:
    def test_report_is_kept_and_the_same_one_is_counted(self, bench: Bench) -> None:
        first = bench.reports.file(new(device=BOX, terminal_ip="192.168.10.11", alert_id=7), NOW_MS)
        assert bench.reports.file(new(device=BOX, note="again"), NOW_MS + 1) == first
        other = bench.reports.file(new(device=OTHER_BOX), NOW_MS + 2)
        assert other == first + 1
        kept = bench.reports.report(first)
        assert kept is not None
        assert (kept.number, kept.times, kept.note, kept.state, kept.alert_id) == (first, 2, "n", ReportState.OPEN, 7)
        assert [item.number for item in bench.reports.reports()] == [other, first]
        assert [item.number for item in bench.reports.reports(before=other)] == [first]
        assert bench.reports.reports(ReportState.ACCEPTED) == ()
        assert bench.reports.counts() == {ReportState.OPEN: 2, ReportState.ACCEPTED: 0, ReportState.REFUSED: 0}
        assert bench.reports.report(99) is None

    def test_decisions_reach_the_file_and_can_be_taken_back(self, bench: Bench) -> None:
        one, two = bench.reports.file(new(), NOW_MS), bench.reports.file(new("other.example"), NOW_MS)
        bench.reports.decide(one, accept("www.shop.example"), NOW_MS + 5)
        assert bench.allow_file.read_text() == f"{HEADER}\n{one}\tdomain\twww.shop.example\n"
        bench.reports.decide(two, REFUSE, NOW_MS + 6)
        kept = bench.reports.report(one)
        assert kept is not None
        assert (kept.decided_ms, kept.decided_by, kept.accepted_indicator) == (NOW_MS + 5, "op", "www.shop.example")
        bench.reports.decide(one, REFUSE, NOW_MS + 7)
        assert bench.allow_file.read_text() == f"{HEADER}\n"
        # One that was decided is no longer "the same" as a new one.
        assert bench.reports.file(new(), NOW_MS) == two + 1

    def test_open_reports_are_bounded(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_OPEN", 3)
        for number in range(3):
            bench.reports.file(new(f"x{number}.example"), NOW_MS)
        with pytest.raises(ReportError, match="3 reports are open"):
            bench.reports.file(new("one.more.example"), NOW_MS)
        assert bench.reports.file(new("x1.example"), NOW_MS) == 2  # what is known is still counted
        bench.reports.decide(1, REFUSE, NOW_MS)
        assert bench.reports.file(new("one.more.example"), NOW_MS) == 4

    def test_accepted_reports_are_bounded(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_ACCEPTED", 1)
        one, two = bench.reports.file(new(), NOW_MS), bench.reports.file(new("other.example"), NOW_MS)
        bench.reports.decide(one, accept(), NOW_MS)
        with pytest.raises(ReportError, match="1 reports are accepted"):
            bench.reports.decide(two, accept("other.example"), NOW_MS)
        bench.reports.decide(one, accept("www.shop.example"), NOW_MS)  # a correction is none more

    def test_refused_ones_are_forgotten_and_numbers_never_come_again(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_REFUSED", 2)
        for number in range(4):
            bench.reports.decide(bench.reports.file(new(f"x{number}.example"), NOW_MS), REFUSE, NOW_MS)
        assert [item.number for item in bench.reports.reports()] == [4, 3]
        bench.reports.decide(bench.reports.file(new("y.example"), NOW_MS), accept("y.example"), NOW_MS)
        assert bench.reports.reports()[0].number == 5

    def test_unknown_report(self, bench: Bench) -> None:
        with pytest.raises(ReportError, match="no report 7"):
            bench.reports.decide(7, REFUSE, NOW_MS)

    def test_file_that_cannot_be_written_leaves_the_decision_and_is_made_up_for(self, bench: Bench) -> None:
        number = bench.reports.file(new(), NOW_MS)
        bench.allow_file.mkdir()
        with pytest.raises(OSError):
            bench.reports.decide(number, accept(), NOW_MS)
        assert bench.reports.counts()[ReportState.ACCEPTED] == 1
        bench.allow_file.rmdir()
        bench.reports.hand_over()
        assert f"{number}\tdomain\tshop.example" in bench.allow_file.read_text()
        before = bench.allow_file.stat().st_mtime_ns
        bench.reports.hand_over()
        assert bench.allow_file.stat().st_mtime_ns == before  # nothing new, nothing written

    def test_without_a_file_nothing_is_handed_over(self, bench: Bench) -> None:
        store = ReportStore(bench.engine)
        store.decide(store.file(new(), NOW_MS), accept(), NOW_MS)
        assert not bench.allow_file.exists()


class TestStanding:
    def standing(self, bench: Bench, office: FeedOffice, number: int) -> tuple[Progress, int, int, int]:
        report = bench.reports.report(number)
        assert report is not None
        found = look_up_standing(report, FeedShelf(office.book), bench.reader.boxes())
        return found.progress, found.serial, found.updated, found.boxes

    def test_from_the_report_to_the_box(self, bench: Bench, tmp_path: Path) -> None:
        office = FeedOffice(tmp_path / "feed")
        store = ReportStore(bench.engine, allow_file=office.allow_file)
        for device in (BOX, OTHER_BOX):
            bench.say(state(feed_serial=12), device=device)
            bench.say(heartbeat(feed_serial=12), device=device)
        number, everyone = store.file(new(device=BOX), NOW_MS), store.file(new(), NOW_MS)
        assert self.standing(bench, office, number)[0] is Progress.OPEN
        store.decide(number, accept(), NOW_MS)
        assert self.standing(bench, office, number)[0] is Progress.NEXT_FEED  # without a book
        store.decide(number, REFUSE, NOW_MS)
        office.make(12)
        assert FeedShelf(office.book).explain(ask("www.shop.example")).verdict is Verdict.BLOCKED
        assert self.standing(bench, office, number)[0] is Progress.REFUSED
        for item in (number, everyone):
            store.decide(item, accept(), NOW_MS)
        assert self.standing(bench, office, number)[0] is Progress.NEXT_FEED
        office.make(13)
        told = FeedShelf(office.book).explain(ask("www.shop.example"))
        assert told.verdict is Verdict.ALLOWED
        assert [(item.report, item.since_serial) for item in told.allowed] == [(number, 13)]
        assert self.standing(bench, office, number) == (Progress.BOXES, 13, 0, 1)
        bench.now_ms += 1000
        bench.say(heartbeat(feed_serial=13, seq=2), device=BOX)
        assert self.standing(bench, office, number) == (Progress.DONE, 13, 1, 1)

    def test_what_its_sources_dropped_meanwhile_is_done_as_well(self, bench: Bench, tmp_path: Path) -> None:
        office = FeedOffice(tmp_path / "feed")
        number = bench.reports.file(new("gone.example"), NOW_MS)
        bench.reports.decide(number, accept("gone.example"), NOW_MS)
        office.make(14)
        bench.say(heartbeat(feed_serial=14))
        assert self.standing(bench, office, number) == (Progress.DONE, 14, 1, 1)


def test_shelf_says_what_is_wrong(tmp_path: Path) -> None:
    question = ask("x.example")
    with pytest.raises(BookUnavailableError, match="no feed book is configured"):
        FeedShelf(None).explain(question)
    shelf = FeedShelf(tmp_path / "feed.book")
    with pytest.raises(BookUnavailableError, match="not there yet"):
        shelf.facts()
    (tmp_path / "feed.book").write_bytes(b"rubbish" * 1000)
    with pytest.raises(BookUnavailableError, match="cannot be read"):
        shelf.facts()
    assert shelf.find(question) is None


def test_what_an_alert_is_about(bench: Bench) -> None:
    for event in (
        alert(function=Function.IPS, rule_id=2000001, at_ms=NOW_MS),
        alert(function=Function.DANGEROUS_SITE, destination="phishing.test", at_ms=NOW_MS - 1),
        alert(function=Function.DANGEROUS_SITE, destination=None, remote_ip="9.8.7.6", rule_id=None, at_ms=NOW_MS - 2),
        alert(function=None, destination=None, remote_ip=None, rule_id=None, at_ms=NOW_MS - 3),
    ):
        bench.say(event)
    found = [suspect(item) for item in bench.reader.alerts(AlertQuery()).alerts]
    assert found == ["2000001", "phishing.test", "9.8.7.6", ""]


def test_questions_and_texts() -> None:
    assert ask("日本語.jp").indicator == "xn--wgv71a119e.jp"
    with pytest.raises(QueryError):
        ask("\u2028")
    assert one_line("  a\r\nb\t c ", 4) == "a b "
