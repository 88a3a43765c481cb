"""The page over HTTP, in process: languages, filters, headers, hostile content, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from omamori_cloud.ingest import IngestStatus
from omamori_cloud.intake import Refusal, RefusalReason
from omamori_cloud.page.config import PageConfig
from omamori_cloud.page.security import host_name
from omamori_protocol.vocabulary import Direction, FeedState, Function, Leaving, RunEnd, Severity

from .makers import BOX, NOW_MS, OTHER_BOX, Bench, alert, feed_event, heartbeat, state
from .watched import Watched
from .web_client import WebClient


@pytest.fixture
def status() -> IngestStatus:
    made = IngestStatus()
    made.set("")
    return made


@pytest.fixture
def client(bench: Bench, status: IngestStatus) -> Iterator[WebClient]:
    config = PageConfig(names={BOX: "本社"}, hosts=frozenset({"testserver", "localhost"}))
    made = WebClient(bench.app(config, status))
    yield made
    made.close()


def box_up(bench: Bench, device: str = BOX) -> None:
    bench.say(state(), device=device)
    bench.say(heartbeat(), device=device)


class Outline(HTMLParser):
    """Collects tags with their attributes, and complains about what is not closed."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID and "/" not in dict(attrs):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


def test_an_empty_page_says_what_to_do(client: WebClient) -> None:
    page = client.get("/").text
    assert "機器の登録を待っています" in page
    assert "お知らせはありません" in page


def test_a_box_and_its_alerts(client: WebClient, bench: Bench) -> None:
    box_up(bench)
    bench.say(alert(count=3))
    page = client.get("/").text
    for text in ("すべて守られています", "本社", BOX, "保護中", "2026.11.1", "A面で起動", "第12版", "412 MB", "9秒"):
        assert text in page
    for text in (
        "★★",
        "危険サイト",
        "192.168.10.11",
        "02:00:5e:10:00:01",
        "phishing.test",
        "内から外へ",
        "遮断",
        "3回",
    ):
        assert text in page
    for text in ("代わりになるものではありません", "保証するものではありません"):
        assert text in page


def test_feed_refusals_are_told_twice_on_the_card_and_in_the_history(client: WebClient, bench: Bench) -> None:
    box_up(bench)
    bench.now_ms += 1
    bench.say(state(feed_state=FeedState.REFUSED, feed_reason="snapshot expired"))
    bench.say(feed_event(feed_state=FeedState.REFUSED, feed_serial=11, text="serial 11 is older than 12"))
    page = client.get("/").text
    assert "有効期限が切れていました" in page
    assert "今より古い版でした" in page
    assert "1台に確認が必要です" in page


def test_english_by_switch_is_remembered(client: WebClient) -> None:
    first = client.get("/")
    assert '<html lang="ja">' in first.text
    assert "set-cookie" not in first.headers
    switched = client.get("/?lang=en")
    assert '<html lang="en">' in switched.text
    cookie = switched.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Waiting for a box" in client.get("/").text
    assert "Waiting for a box" in client.get("/live").text
    assert '<html lang="ja">' in client.get("/?lang=ja").text


def test_an_unknown_language_changes_nothing(client: WebClient) -> None:
    answer = client.get("/?lang=xx")
    assert '<html lang="ja">' in answer.text
    assert "set-cookie" not in answer.headers


def test_the_language_switch_keeps_the_filters(client: WebClient) -> None:
    page = client.get("/?function=virus&terminal=192.168.10.11").text
    assert 'href="/?function=virus&amp;terminal=192.168.10.11&amp;lang=en"' in page


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("", {"a.test", "b.test", "c.test"}),
        ("function=virus", {"a.test"}),
        ("severity=2", {"a.test", "b.test"}),
        ("severity=3", {"a.test"}),
        ("terminal=192.168.10.13", {"c.test"}),
        ("terminal=02:00:00:00:00:0A", {"b.test"}),
        ("terminal=%20192.168.10.13%20", {"c.test"}),
        (f"device={OTHER_BOX}", {"c.test"}),
        ("function=virus&terminal=192.168.10.13", set()),
        # What makes no sense is not used.
        ("severity=9", {"a.test", "b.test", "c.test"}),
        ("function=nonsense", {"a.test", "b.test", "c.test"}),
        ("device=../..", {"a.test", "b.test", "c.test"}),
        ("before=x", {"a.test", "b.test", "c.test"}),
        ("terminal=nonsense", {"a.test", "b.test", "c.test"}),
        ("terminal=" + "9" * 500, {"a.test", "b.test", "c.test"}),
    ],
)
def test_filters(client: WebClient, bench: Bench, query: str, seen: set[str]) -> None:
    bench.say(alert(destination="a.test", function=Function.VIRUS, severity=Severity.THREE))
    bench.say(alert(destination="b.test", terminal_mac=bytes.fromhex("02000000000a")))
    bench.say(alert(destination="c.test", severity=Severity.ONE, terminal_ip="192.168.10.13"), device=OTHER_BOX)
    page = client.get(f"/?{query}").text
    assert {name for name in ("a.test", "b.test", "c.test") if name in page} == seen
    assert ('aria-invalid="true"' in page) == (("nonsense" in query and "terminal" in query) or "999" in query)


def test_the_form_keeps_what_was_chosen(client: WebClient, bench: Bench) -> None:
    box_up(bench)
    page = client.get(f"/?severity=3&function=ips&terminal=fd00:10::13&device={BOX}").text
    assert '<option value="3" selected>' in page
    assert '<option value="ips" selected>' in page
    assert f'<option value="{BOX}" selected>' in page
    assert 'value="fd00:10::13"' in page
    assert "条件に合うお知らせはありません" in page


def test_older_alerts_are_one_link_away_and_back(client: WebClient, bench: Bench) -> None:
    for number in range(60):
        bench.say(alert(seq=number, at_ms=NOW_MS - number * 1000, destination=f"n{number:02d}.test"))
    first = client.get("/?severity=2").text
    assert first.count('<li id="alert-') == 50
    assert "n49.test" in first
    assert "n50.test" not in first
    link = re.search(r'href="(/\?severity=2&amp;before=[^"#]+)', first)
    assert link
    second = client.get(link[1].replace("&amp;", "&")).text
    assert second.count('<li id="alert-') == 10
    assert "n50.test" in second
    assert 'href="/?severity=2#alerts"' in second


@pytest.mark.parametrize("language", ["ja", "en"])
def test_hostile_texts_stay_texts(client: WebClient, bench: Bench, language: str) -> None:
    evil = "</bdi></summary><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;{{7*7}}\u202etxt.exe\u2066"
    clean = client.get(f"/?lang={language}").text
    bench.say(state(firmware="<b>1</b>\u202e", model="<i>m</i>", feed_reason=evil, feed_state=FeedState.REFUSED))
    bench.say(
        alert(
            destination=evil,
            rule=evil,
            category="<u>c</u>",
            terminal_ip="<s>1</s>",
            protocol="<p>",
            remote_ip="<q>",
            direction=Direction.IN,
        )
    )
    bench.say(feed_event(feed_state=FeedState.REFUSED, text=evil))
    bench.writer.store([Refusal(device=BOX, reason=RefusalReason.MALFORMED, detail=evil, received_ms=NOW_MS)])
    page = client.get("/").text
    outline = Outline(page)
    tags = {tag for tag, _ in outline.tags}
    assert not tags & {"b", "i", "u", "s", "p>", "q", "iframe"}
    assert sum(tag == "script" for tag, _ in outline.tags) == 1
    assert all(tag != "img" or str(attributes["src"]).startswith("/static/") for tag, attributes in outline.tags)
    assert not any(name.startswith("on") or name == "style" for _, attributes in outline.tags for name in attributes)
    assert "\u202e" not in page
    assert "\u2066" not in page
    assert "49" not in re.findall(r"&amp;(\d+)", page)
    assert "&lt;script&gt;alert(1)" in page
    Outline(clean)


def test_hostile_parameters_stay_texts(client: WebClient) -> None:
    page = client.get('/?terminal="><script>alert(1)</script>&lang=en').text
    assert "<script>alert(1)" not in page
    Outline(page)


def test_every_answer_carries_the_security_headers(client: WebClient) -> None:
    for path in ("/", "/live", "/api/v1/boxes", "/healthz", "/static/omamori.css", "/nowhere", "/api/v1/nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
    assert client.get("/").headers["cache-control"] == "no-store"


def test_the_page_names_no_other_server(client: WebClient, bench: Bench) -> None:
    box_up(bench)
    bench.say(alert())
    for path in ("/", "/static/omamori.css", "/static/live.js"):
        text = client.get(path).text
        assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]", text)
    for tag, attributes in Outline(client.get("/").text).tags:
        for name in ("href", "src", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("/", "#")), (tag, value)


def test_static_files_change_their_address_with_their_content(client: WebClient) -> None:
    page = client.get("/").text
    for name in ("omamori.css", "live.js", "charm.svg"):
        match = re.search(rf'"(/static/{re.escape(name)}\?v=[0-9a-f]{{12}})"', page)
        assert match
        assert client.get(match[1]).status_code == 200


@pytest.mark.parametrize("path", ["/static/../web.py", "/static/..%2fweb.py", "/static/%2e%2e/web.py", "/static/"])
def test_nothing_but_static_files_is_served(client: WebClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_live_part_is_sent_only_when_it_changed(client: WebClient, bench: Bench) -> None:
    box_up(bench)
    first = client.get("/live")
    tag = first.headers["etag"]
    again = client.get("/live", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    bench.say(alert(destination="new.test"))
    changed = client.get("/live", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert "new.test" in changed.text
    assert "<html" not in changed.text


def test_the_live_part_follows_the_filters(client: WebClient, bench: Bench) -> None:
    bench.say(alert(destination="a.test", function=Function.VIRUS))
    page = client.get("/?function=ips").text
    assert 'data-url="/live?function=ips"' in page
    assert "a.test" not in client.get("/live?function=ips").text


def test_ids_are_unique(client: WebClient, bench: Bench) -> None:
    box_up(bench)
    box_up(bench, OTHER_BOX)
    for number in range(3):
        bench.say(alert(seq=number))
        bench.say(feed_event(seq=100 + number))
    ids = [attributes["id"] for _, attributes in Outline(client.get("/").text).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_form_field_has_a_label(client: WebClient) -> None:
    page = client.get("/").text
    fields = len(re.findall(r"<(?:select|input) ", page))
    assert fields == 4
    assert len(re.findall(r"<label[^>]*>[^<]+\s*<(?:select|input) ", page)) == fields


def test_more_boxes_than_cards(client: WebClient, bench: Bench) -> None:
    for number in range(61):
        bench.say(heartbeat(), device=f"ZA35-{number:06d}")
    page = client.get("/").text
    assert page.count('<li class="box ') == 60
    assert "ほかに1台あります" in page


def test_a_box_that_needs_attention_comes_first(client: WebClient, bench: Bench) -> None:
    box_up(bench)
    box_up(bench, OTHER_BOX)
    bench.now_ms += 1
    bench.say(state(feed_state=FeedState.STALE), device=OTHER_BOX)
    assert re.findall(r'id="box-([A-Z0-9-]+)"', client.get("/").text) == [OTHER_BOX, BOX]


def test_the_page_does_not_claim_protection_while_nothing_comes_in(
    client: WebClient, bench: Bench, status: IngestStatus
) -> None:
    box_up(bench)
    status.set("the broker cannot be reached")
    page = client.get("/").text
    assert "すべて守られています" not in page
    assert "機器からの知らせを受け取れていません" in page
    assert client.get("/healthz").json()["ingest"] == "disconnected"


def test_an_urgent_alert_is_announced_at_the_top(client: WebClient, bench: Bench) -> None:
    bench.say(alert(severity=Severity.THREE))
    assert "★★★のお知らせが、この24時間に1件あります" in client.get("/").text
    bench.now_ms += 86_400_000
    assert "★★★のお知らせが" not in client.get("/").text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "testserver.evil.example:80"])
def test_a_foreign_host_name_gets_nothing(client: WebClient, host: str) -> None:
    answer = client.get("/api/v1/alerts", headers={"Host": host})
    assert answer.status_code == 421
    assert "alerts" not in answer.text


@pytest.mark.parametrize(
    ("header", "name"),
    [("Localhost:8080", "localhost"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1")],
)
def test_host_names_without_their_port(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(client: WebClient, method: str) -> None:
    for path in ("/", "/live", "/api/v1/boxes", "/api/v1/alerts"):
        assert client.request(method, path).status_code == 405


def test_head_is_answered(client: WebClient) -> None:
    assert client.head("/").status_code == 200


def test_a_page_that_does_not_exist(client: WebClient) -> None:
    answer = client.get("/nowhere?lang=en")
    assert answer.status_code == 404
    assert "There is no such page" in answer.text
    Outline(answer.text)


def test_a_store_that_does_not_answer(client: WebClient, bench: Bench) -> None:
    with bench.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("DROP TABLE events")
        connection.exec_driver_sql("DROP TABLE refusals")
    page = client.get("/")
    assert page.status_code == 503
    assert "記録を読み出せません" in page.text
    assert client.get("/api/v1/alerts").status_code == 503
    assert client.get("/api/v1/alerts").json()["error"]
    assert client.get("/healthz").status_code == 503


# The API for scripts.


def get(client: WebClient, path: str) -> Any:
    answer: httpx.Response = client.get(path)
    assert answer.status_code == 200
    return answer.json()


def test_boxes_for_scripts(client: WebClient, bench: Bench) -> None:
    box_up(bench)
    (box,) = get(client, "/api/v1/boxes")["boxes"]
    assert (box["device"], box["name"], box["online"], box["level"], box["findings"]) == (BOX, "本社", True, "ok", [])
    assert box["feed"] == {"serial": 12, "state": "active", "reason": None}
    assert (box["slot"], box["engine"], box["firmware"]) == ("A", "inspecting", "2026.11.1")
    assert box["last_contact"] == "2026-09-21T14:13:20.000Z"


def test_alerts_for_scripts(client: WebClient, bench: Bench) -> None:
    bench.say(alert(seq=2**62))
    answer = get(client, "/api/v1/alerts")
    (found,) = answer["alerts"]
    assert found["terminal"] == {"ip": "192.168.10.11", "mac": "02:00:5e:10:00:01"}
    assert (found["function"], found["direction"], found["action"]) == ("dangerous-site", "out", "blocked")
    assert (found["seq"], found["severity"], found["destination"]) == (2**62, 2, "phishing.test")
    assert answer["next"] is None


def test_pages_for_scripts(client: WebClient, bench: Bench) -> None:
    for number in range(3):
        bench.say(alert(seq=number, at_ms=NOW_MS - number))
    first = get(client, "/api/v1/alerts?limit=2")
    second = get(client, f"/api/v1/alerts?limit=2&before={first['next']}")
    assert [item["seq"] for item in first["alerts"] + second["alerts"]] == [0, 1, 2]
    assert second["next"] is None


def test_since_for_scripts(client: WebClient, bench: Bench) -> None:
    bench.say(alert(seq=1, at_ms=NOW_MS - 3_600_000))
    bench.say(alert(seq=2, at_ms=NOW_MS))
    for since in ("10m", "2026-09-21T14:10:00Z", "2026-09-21T23:10:00%2B09:00"):
        assert [item["seq"] for item in get(client, f"/api/v1/alerts?since={since}")["alerts"]] == [2]


def test_events_for_scripts(client: WebClient, bench: Bench) -> None:
    bench.say(feed_event(feed_state=FeedState.REFUSED, feed_serial=11, text="older"))
    bench.say(alert())
    (event,) = get(client, "/api/v1/events")["events"]
    assert (event["kind"], event["feed"], event["text"]) == ("feed", {"serial": 11, "state": "refused"}, "older")


@pytest.mark.parametrize(
    "query",
    [
        "limit=501",
        "limit=0",
        "limit=-1",
        "limit=1e3",
        "severity=4",
        "severity=x",
        "function=nonsense",
        "device=x",
        "terminal=x",
        "since=yesterday",
        "before=x",
        "unknown=1",
        "limit=1&limit=2",
    ],
)
def test_a_senseless_question_of_a_script_is_an_error(client: WebClient, query: str) -> None:
    answer = client.get(f"/api/v1/alerts?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(query.split("=", maxsplit=1)[0])


def test_health_check(client: WebClient) -> None:
    assert get(client, "/healthz") == {"status": "ok", "ingest": "connected", "trouble": None, "schema": "0009"}


def test_a_box_in_trouble_says_its_code_and_what_to_do(client: WebClient, bench: Bench) -> None:
    box_up(bench)
    bench.say(state(trouble=7121))
    page = client.get(f"/box/{BOX}").text
    assert "WANとLANのケーブルが逆です" in page
    assert "番号 7121" in page
    assert "WAN and LAN are swapped" in client.get(f"/box/{BOX}?lang=en").text
    bench.say(state(trouble=9998))
    assert "Code 9998" in client.get(f"/box/{BOX}?lang=en").text


def test_absences_of_a_box_and_our_own_outages_are_on_the_pages(client: WebClient, bench: Bench) -> None:
    watched = Watched(bench)
    watched.birth(boot=1)
    assert "連絡が途切れたことはありません" in client.get(f"/box/{BOX}").text
    watched.wait(60, beats=(BOX,))
    watched.birth(boot=2, uptime_s=10, last_end=RunEnd.ABRUPT)
    watched.wait(5)
    page = client.get(f"/box/{BOX}").text
    assert "停電" in page
    assert "戻ったときの起動からの時間: 10秒" in page
    assert "こちら側の状態" not in client.get("/").text
    watched.status.set("the broker <b>refuses</b> us")
    watched.wait(20)
    page = client.get("/").text
    assert "こちら側の状態" in page
    assert "&lt;b&gt;refuses" in page


def test_an_absence_that_lasts_says_why_on_the_card(client: WebClient, bench: Bench) -> None:
    watched = Watched(bench)
    session = watched.birth(boot=1)
    watched.will(session, boot=1, leaving=Leaving.OFF, quiet_s=0)
    watched.wait(60)
    assert "電源オフ" in client.get("/").text
