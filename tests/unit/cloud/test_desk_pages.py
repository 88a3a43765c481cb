"""The pages about feeds over HTTP, in process: answers, forms, forged forms, hostile content, bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from omamori_cloud import cli
from omamori_cloud.ingest import IngestStatus
from omamori_cloud.page.config import PageConfig
from omamori_cloud.page.forms import MAX_FORM_BYTES
from omamori_cloud.reports import MAX_NAME, MAX_NOTE, ReportState
from omamori_protocol.vocabulary import Function
from sim.feed_book import DIGEST, FeedOffice

from .makers import BOX, Bench, alert, heartbeat, state
from .test_page import Outline
from .web_client import WebClient

EVIL = "<script>alert(1)</script>\u202e"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> FeedOffice:
    made = FeedOffice(tmp_path_factory.mktemp("feed"))
    made.make(12)
    return made


@pytest.fixture
def client(bench: Bench, office: FeedOffice) -> Iterator[WebClient]:
    made = WebClient(bench.app(PageConfig(names={BOX: "本社"}), IngestStatus(), office.book))
    yield made
    made.close()


def file_report(client: WebClient, **fields: str) -> httpx.Response:
    client.get("/explain")
    return client.post("/reports", {"indicator": "shop.example", **fields})


class TestExplain:
    def test_page_says_why_since_when_and_from_where(self, client: WebClient, bench: Bench) -> None:
        bench.say(heartbeat(feed_serial=12))
        page = client.get("/explain?q=www.shop.example").text
        Outline(page)
        for words in (
            "遮断しています", "www.shop.example", "shop.example", "危険サイト", "★★★", "第12版", "9月20日", "maltrail",
            "MIT", "urlhaus", "CC0-1.0", "Maltrail, https://example.org", "1台のうち1台", "これは誤検知です",
        ):  # fmt: skip
            assert words in page, words
        page = client.get("/explain?q=www.shop.example&lang=en").text
        for words in ("Blocked", "Since", "feed 12", "This is a false alarm"):
            assert words in page, words

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("bank.example", "allow-popular"),
            ("nothing.example", "載っていません"),
            ("9.8.7.6", "9.8.0.0/16"),
            (DIGEST, "ファイルの指紋"),
            ("2000001", "ET TROJAN Beacon"),
            ("http://files.example/a/b.exe", "files.example/a/b.exe"),
            ("com", "のどれかで入力してください"),
            ("x" * 5000, "のどれかで入力してください"),
        ],
    )
    def test_every_kind_of_question(self, client: WebClient, text: str, words: str) -> None:
        page = client.get("/explain", {}).text if not text else client.get(f"/explain?q={text}").text
        Outline(page)
        assert words in page

    def test_hostile_questions_and_alerts_are_shown_harmlessly(self, client: WebClient, bench: Bench) -> None:
        bench.say(alert(destination=EVIL, rule=EVIL, category=None))
        overview = client.get("/").text
        assert "<script>alert" not in overview
        assert "/explain?q=%3Cscript%3E" in overview
        page = client.get("/explain?q=%3Cscript%3Ealert(1)%3C/script%3E%E2%80%AE&alert=1").text
        Outline(page)
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page

    def test_without_a_book_it_says_so_and_takes_reports(self, bench: Bench) -> None:
        client = WebClient(bench.app(PageConfig(), IngestStatus()))
        page = client.get("/explain?q=shop.example").text
        assert "検知データの内容がまだ届いていません" in page
        assert "これは誤検知です" in page
        answer = client.get("/api/v1/explain?indicator=shop.example")
        assert (answer.status_code, answer.json()["error"]) == (503, "no feed book is configured")
        client.close()

    def test_scripts_get_the_same(self, client: WebClient) -> None:
        told = client.get("/api/v1/explain?indicator=www.shop.example").json()
        assert (told["verdict"], told["serial"], told["feed"]["channel"]) == ("blocked", 12, "demo")
        (match,) = told["matches"]
        assert (match["list"], match["since_serial"], match["sources"][0]["licence"]) == ("c2", 12, "MIT")

    @pytest.mark.parametrize(
        "query", ["", "indicator=", "indicator=com", "indicator=a&indicator=b", "x=1", "indicator=" + "x" * 3000]
    )
    def test_senseless_question_of_a_script(self, client: WebClient, query: str) -> None:
        assert client.get(f"/api/v1/explain?{query}").status_code == 400


class TestReports:
    def test_from_an_alert_to_a_decision(self, client: WebClient, bench: Bench) -> None:
        bench.say(state())
        bench.say(alert(destination="www.shop.example"))
        overview = client.get("/").text
        assert "/explain?q=www.shop.example&amp;alert=1" in overview
        page = client.get("/explain?q=www.shop.example&alert=1").text
        assert "192.168.10.11 が、危険な相手 www.shop.example につなごうとしました" in page
        answer = client.post(
            "/reports", {"indicator": "www.shop.example", "note": "注文できない", "reporter": "佐藤", "alert": "1"}
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/reports/1?filed=1")
        page = client.get("/reports/1?filed=1").text
        Outline(page)
        for words in (
            "受け付けました",
            "第1号",
            "確認待ち",
            "注文できない",
            "佐藤",
            "本社",
            "192.168.10.11 02:00:5e:10:00:01",
        ):
            assert words in page, words
        assert "&#34;kind&#34;: &#34;terminal-mac&#34;, &#34;value&#34;: &#34;02:00:5e:10:00:01&#34;" in page
        assert "omamori-ota desired publish KEYS --device ZA35-000001" in page
        answer = client.post(
            "/reports/1", {"decision": "accepted", "indicator": "shop.example", "by": "担当", "reason": "公式"}
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/reports/1")
        page = client.get("/reports/1").text
        for words in ("次の検知データで反映", "受け入れ", "担当", "公式"):
            assert words in page, words
        assert "1\tdomain\tshop.example" in bench.allow_file.read_text()
        listing = client.get("/reports").text
        Outline(listing)
        assert "次の検知データで反映" in listing
        assert "連絡はありません" in client.get("/reports?state=open").text
        told = client.get("/api/v1/reports?state=accepted").json()["reports"]
        assert [(item["number"], item["progress"], item["left_out"]["indicator"]) for item in told] == [
            (1, "next-feed", "shop.example")
        ]

    def test_remedy_fits_what_is_reported(self, client: WebClient, bench: Bench) -> None:
        bench.say(alert(function=Function.IPS, rule_id=2000001))
        bench.say(alert(destination=None, remote_ip="9.8.7.6"))
        for number, indicator in ((1, "2000001"), (2, "9.8.7.6"), (1, "nothing.example")):
            file_report(client, indicator=indicator, alert=str(number))
        assert "&#34;kind&#34;: &#34;rule&#34;, &#34;value&#34;: &#34;2000001&#34;" in client.get("/reports/1").text
        assert (
            "&#34;kind&#34;: &#34;destination&#34;, &#34;value&#34;: &#34;9.8.7.6&#34;" in client.get("/reports/2").text
        )
        assert "検査しません。必要な間だけ" in client.get("/reports/3").text
        file_report(client, indicator="other.example")
        assert "対象の機器が分かりません" in client.get("/reports/4").text

    def test_refusal_needs_a_reason(self, client: WebClient, bench: Bench) -> None:
        file_report(client)
        answer = client.post("/reports/1", {"decision": "refused", "reason": "  "})
        assert answer.status_code == 400
        assert "理由を入力してください" in answer.text
        assert client.post("/reports/1", {"decision": "refused", "reason": "本当に危険"}).status_code == 303
        page = client.get("/reports/1").text
        assert "見送り" in page
        assert "本当に危険" in page

    def test_hostile_reports_are_shown_harmlessly(self, client: WebClient) -> None:
        file_report(client, note=EVIL, reporter=EVIL)
        for path in ("/reports", "/reports/1"):
            page = client.get(path).text
            Outline(page)
            assert "<script>alert" not in page
            assert "\u202e" not in page
        assert json.loads(client.get("/api/v1/reports").text)["reports"][0]["note"] == EVIL

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"note": "x" * MAX_NOTE, "reporter": "y" * MAX_NAME}, 303),
            ({"note": "x" * (MAX_NOTE + 1)}, 413),
            ({"reporter": "y" * (MAX_NAME + 1)}, 413),
            ({"indicator": ""}, 400),
            ({"indicator": "com"}, 400),
            ({"indicator": "x.example/" + "y" * 1500}, 400),
            ({"indicator": f"{'a.' * 100}example/{'y' * 1024}"}, 400),
            ({"alert": "99"}, 303),
            ({"alert": "9" * 30}, 303),
        ],
    )
    def test_form_is_bounded(self, client: WebClient, bench: Bench, fields: dict[str, str], status: int) -> None:
        assert file_report(client, **fields).status_code == status
        assert bench.reports.counts()[ReportState.OPEN] == (status == 303)

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({}, 400),
            ({"decision": "open"}, 400),
            ({"decision": "accepted"}, 400),
            ({"decision": "accepted", "indicator": "com"}, 400),
            ({"decision": "accepted", "indicator": "a.example", "by": "x" * (MAX_NAME + 1)}, 413),
            ({"decision": "refused", "reason": "x" * (MAX_NOTE + 1)}, 413),
        ],
    )
    def test_senseless_decision(self, client: WebClient, bench: Bench, fields: dict[str, str], status: int) -> None:
        file_report(client)
        assert client.post("/reports/1", fields).status_code == status
        assert bench.reports.counts()[ReportState.OPEN] == 1

    @pytest.mark.parametrize(
        "path", ["/reports/2", f"/reports/{2**31}", f"/reports/{10**30}", "/reports/0", "/reports/x"]
    )
    def test_unknown_report(self, client: WebClient, path: str) -> None:
        client.get("/explain")
        assert client.get(path).status_code == 404
        assert client.post(path, {"decision": "refused", "reason": "x"}).status_code in (404, 405)

    def test_list_goes_on(self, client: WebClient) -> None:
        client.get("/explain")
        for number in range(31):
            client.post("/reports", {"indicator": f"x{number}.example"})
        first = client.get("/reports?lang=en").text
        assert "Older reports" in first
        assert "/reports?before=2" in first
        rest = client.get("/reports?before=2").text
        assert "x0.example" in rest
        assert "最新に戻る" not in rest  # English was chosen before
        for query in ("state=x", "before=x", "before=0", f"before={2**31}", "before=-1"):
            assert client.get(f"/reports?{query}").status_code == 200  # people are forgiven
            assert client.get(f"/api/v1/reports?{query}").status_code == 400


class TestForgery:
    def test_form_without_the_secret_is_refused(self, client: WebClient, bench: Bench) -> None:
        client.get("/explain")
        answer = client.post("/reports", {"indicator": "shop.example"}, token=False)
        assert answer.status_code == 403
        assert "もう一度、この画面から送ってください" in answer.text
        assert client.post("/reports", {"indicator": "shop.example", "token": "0" * 32}, token=False).status_code == 403
        assert bench.reports.counts()[ReportState.OPEN] == 0

    def test_form_without_the_cookie_is_refused(self, client: WebClient) -> None:
        assert client.post("/reports", {"indicator": "shop.example", "token": ""}, token=False).status_code == 403
        assert client.post("/reports", {"indicator": "shop.example", "token": "0" * 32}, token=False).status_code == 403

    @pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
    def test_form_of_another_site_is_refused(self, client: WebClient, site: str) -> None:
        client.get("/explain")
        headers = {"Sec-Fetch-Site": site}
        assert client.post("/reports", {"indicator": "shop.example"}, headers).status_code == 403
        assert (
            client.post("/reports", {"indicator": "shop.example"}, {"Sec-Fetch-Site": "same-origin"}).status_code == 303
        )

    def test_cookie_is_not_for_other_sites(self, client: WebClient) -> None:
        cookie = client.get("/explain").headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie

    @pytest.mark.parametrize(
        ("body", "content_type", "status"),
        [
            (b"x" * (MAX_FORM_BYTES + 1), "application/x-www-form-urlencoded", 413),
            (b"{}", "application/json", 415),
            (b"--x", "multipart/form-data; boundary=x", 415),
            (b"a=1&a=2", "application/x-www-form-urlencoded", 400),
            ("&".join(f"a{n}=1" for n in range(13)).encode(), "application/x-www-form-urlencoded", 400),
            (b"indicator=%ff%fe", "application/x-www-form-urlencoded", 400),
            (b"\xff=1", "application/x-www-form-urlencoded", 400),
            (b"nonsense", "application/x-www-form-urlencoded", 400),
            (b"", "application/x-www-form-urlencoded", 403),
        ],
    )
    def test_what_is_no_form(self, client: WebClient, body: bytes, content_type: str, status: int) -> None:
        client.get("/explain")
        assert client.post("/reports", body, {"content-type": content_type}).status_code == status


class TestCommandLine:
    def config(self, bench: Bench, office: FeedOffice) -> str:
        path = bench.allow_file.parent / "cloud.toml"
        path.write_text(
            f'[broker]\nhost = "x"\nca = "c"\ncert = "c"\nkey = "k"\n[database]\nurl = "{bench.url}"\n'
            f'[feed]\nbook = "{office.book}"\nallow_file = "{bench.allow_file}"\n'
        )
        return str(path)

    def test_it_does_what_the_pages_do(
        self, bench: Bench, office: FeedOffice, client: WebClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        config = self.config(bench, office)

        def run(*words: str) -> tuple[int, str]:
            code = cli.main([*words, "--config", config])
            return code, capsys.readouterr().out

        assert run("explain", "www.shop.example")[1].splitlines()[1].split("\t")[:2] == ["blocked", "dangerous-site"]
        told: Any = json.loads(run("explain", "www.shop.example", "--json")[1])
        assert told["verdict"] == "blocked"
        assert run("explain", "2000001")[1].endswith("ET TROJAN Beacon\n")
        assert run("explain", "com")[0] == 2
        file_report(client)
        assert "shop.example\topen" in run("reports", "list")[1]
        assert run("reports", "refuse", "1")[0] == 2
        assert run("reports", "accept", "9")[0] == 2
        assert run("reports", "accept", "1", "--as", "www.shop.example", "--by", "op") == (0, "report 1: accepted\n")
        assert "1\tdomain\twww.shop.example" in bench.allow_file.read_text()
        assert (
            json.loads(run("reports", "list", "--json", "--state", "accepted")[1])["reports"][0]["progress"]
            == "next-feed"
        )
        out = tmp_path / "export.tsv"
        assert run("reports", "export", "--out", str(out)) == (0, f"{out}: 1 accepted reports\n")
        assert out.read_text() == bench.allow_file.read_text()
        assert run("reports", "export", "--out", "/nowhere/x")[0] == 1
        assert run("reports", "refuse", "1", "--reason", "no")[0] == 0
        assert run("reports", "list", "--state", "x")[0] == 2
