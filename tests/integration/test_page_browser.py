"""The page in a real browser: headless Chromium, driven as a person would use it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from omamori_protocol.reported import PartState
from omamori_protocol.vocabulary import Action, Direction, FeedState, Function, Presence, Severity
from unit.cloud.makers import alert, feed_event, heartbeat, ledger_event, reported, state, supervisor_state

from .browser import CONTRASTS, Browser
from .cloud_rig import FakeBox, Rig, running_rig, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

BOX, OTHER_BOX = "ZA35-000001", "ZA35-000002"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(tmp_path_factory.mktemp("rig")) as made:
        yield made


@pytest.fixture(scope="module")
def boxes(rig: Rig) -> tuple[FakeBox, FakeBox]:
    first = rig.box(BOX)
    second = rig.box(OTHER_BOX, will=state(session=b"sessionZ", presence=Presence.OFFLINE).encode())
    first.say("state", state().encode())
    first.say("hb", heartbeat().encode())
    second.say("state", state(session=b"sessionZ").encode())
    second.say("hb", heartbeat().encode())
    first.say("evt", alert(seq=1, at_ms=now_ms() - 5000).encode())
    first.say(
        "evt",
        alert(
            seq=2,
            at_ms=now_ms() - 4000,
            function=Function.VIRUS,
            direction=Direction.IN,
            terminal_ip="192.168.10.12",
            terminal_mac=bytes.fromhex("02005e100002"),
            destination="files.example",
            rule="EICAR",
        ).encode(),
    )
    second.say(
        "evt",
        alert(
            seq=3,
            at_ms=now_ms() - 3000,
            function=Function.CATEGORY,
            severity=Severity.ONE,
            action=Action.LOGGED,
            destination="play.games.test",
            category="games",
        ).encode(),
    )
    first.say("evt", feed_event(seq=4, at_ms=now_ms() - 2000).encode())
    wait_for(lambda: len(rig.cloud.alerts()) == 3, "the seeds")
    wait_for(lambda: rig.cloud.box(OTHER_BOX).get("engine") and rig.cloud.box(BOX).get("engine"), "the heartbeats")
    return first, second


@pytest.fixture
def browser(rig: Rig, boxes: tuple[FakeBox, FakeBox], tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path / "profile", rig.cloud.url)
    yield made
    complaints = made.complaints()
    made.close()
    assert complaints == []


def test_a_person_sees_boxes_and_alerts_in_japanese(browser: Browser) -> None:
    browser.open()
    assert browser.one("html").get_attribute("lang") == "ja"
    assert "すべて守られています" in browser.text("#status-title")
    card = browser.text(f"#box-{BOX}")
    for words in ("本社", "保護中", "オンライン", "1分以内", "2026.11.1", "A面で起動", "第12版", "検査中", "412 MB"):
        assert words in card
    lines = browser.text(".alerts")
    for words in ("★★", "ウイルス", "危険サイト", "業務外サイト", "192.168.10.12", "02:00:5e:10:00:02"):
        assert words in lines
    for words in ("files.example", "phishing.test", "ゲーム", "遮断", "記録", "外から内へ", "内から外へ"):
        assert words in lines
    assert "第12版に更新しました" in browser.text(".happenings")
    assert "保証するものではありません" in browser.text("footer")


def test_an_alert_opens_with_what_it_means_and_what_to_do(browser: Browser) -> None:
    browser.open("/?function=virus")
    assert "どうすればいい" not in browser.text(".alerts")
    summary = browser.one(".alert summary")
    summary.send_keys(Keys.ENTER)  # by keyboard alone
    body = browser.text(".alert-body")
    for words in ("files.example から 192.168.10.12 に届いたファイルに、ウイルスが見つかりました", "遮断しました"):
        assert words in body
    for words in ("どういう意味？", "どうすればいい？", "EICAR"):
        assert words in body


def test_the_language_switches_and_stays(browser: Browser) -> None:
    browser.open()
    browser.one(".languages a[lang=en]").click()
    assert browser.one("html").get_attribute("lang") == "en"
    assert "All protected" in browser.text("#status-title")
    browser.open()
    assert "Blocked" in browser.text(".alerts")
    browser.one(".languages a[lang=ja]").click()
    assert "遮断" in browser.text(".alerts")


def test_filters_work_as_a_form(browser: Browser) -> None:
    browser.open()
    Select(browser.one("select[name=function]")).select_by_visible_text("ウイルス")
    browser.one(".filters button").click()
    wait_for(lambda: "function=virus" in browser.driver.current_url, "the answer")
    assert browser.texts(".cell-peer > bdi") == ["files.example"]
    browser.one(".filters .button-plain").click()
    wait_for(lambda: len(browser.all(".alert")) == 3, "all alerts again")
    browser.one("input[name=terminal]").send_keys("02:00:5e:10:00:02", Keys.ENTER)
    wait_for(lambda: "terminal=" in browser.driver.current_url, "the answer")
    assert browser.texts(".cell-terminal > bdi") == ["192.168.10.12"]


def test_everything_works_without_scripts(browser: Browser) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.open("/?function=category")
    assert "play.games.test" in browser.text(".alerts")
    assert "自動更新中" not in browser.text()  # it does not claim what it cannot do
    browser.one(".alert summary").click()
    assert "どうすればいい？" in browser.text(".alert-body")
    browser.one(".filters .button-plain").click()
    assert "phishing.test" in browser.text(".alerts")


def test_a_new_alert_appears_without_reload_and_disturbs_nothing(
    browser: Browser, boxes: tuple[FakeBox, FakeBox]
) -> None:
    browser.open()
    browser.mark()
    browser.one(".alert summary").click()
    opened = browser.script("return document.querySelector('.alert details[open]').parentElement.id")
    browser.one("input[name=terminal]").send_keys("192.168.")
    boxes[0].say(
        "evt",
        alert(seq=50, at_ms=now_ms(), severity=Severity.THREE, destination="c2.test", function=Function.IPS).encode(),
    )
    wait_for(lambda: "c2.test" in browser.text(".alerts"), "the new alert", within_s=15)
    assert browser.is_marked()
    assert browser.texts(".alert .cell-peer > bdi")[0] == "c2.test"
    assert browser.script(f"return document.querySelector('#{opened} details').open")
    assert browser.one("input[name=terminal]").get_attribute("value") == "192.168."
    assert browser.script("return document.activeElement.name") == "terminal"
    assert "1件届きました" in browser.script("return document.getElementById('news').textContent")
    assert "★★★のお知らせが、この24時間に1件あります" in browser.text()


def test_a_box_that_loses_its_connection_turns_red_without_reload(
    browser: Browser, boxes: tuple[FakeBox, FakeBox]
) -> None:
    browser.open()
    browser.mark()
    assert "オンライン" in browser.text(f"#box-{OTHER_BOX}")
    boxes[1].vanish()
    wait_for(lambda: "連絡がとれません" in browser.text(f"#box-{OTHER_BOX}"), "the card", within_s=15)
    assert "1台に確認が必要です" in browser.text("#status-title")
    assert browser.is_marked()
    assert browser.script("return document.querySelector('.box').id") == f"box-{OTHER_BOX}"  # and comes first


def test_a_refused_feed_is_explained(browser: Browser, boxes: tuple[FakeBox, FakeBox]) -> None:
    boxes[0].say("state", state(feed_state=FeedState.REFUSED, feed_reason="snapshot: signature does not fit").encode())
    browser.open()
    wait_for(lambda: "新しい検知データを受け取りませんでした" in browser.text(f"#box-{BOX}"), "the card", within_s=15)
    assert "署名か中身が正しくありませんでした" in browser.text(f"#box-{BOX}")
    boxes[0].say("state", state().encode())


def test_the_page_of_a_box_tells_what_was_not_inspected_and_follows(
    browser: Browser, boxes: tuple[FakeBox, FakeBox]
) -> None:
    browser.open()
    browser.one(f"#box-{BOX} .box-more a").click()
    wait_for(lambda: browser.driver.current_url.endswith(f"/box/{BOX}"), "the box's page")
    assert "検査されずに通った通信の記録はありません" in browser.text("#ledger")
    assert "設定についての報告はまだありません" in browser.text()
    assert "見守り部品はありません" in browser.text("[data-part=supervisor]")
    browser.mark()
    boxes[0].say("state", state(supervisor=supervisor_state()).encode())
    boxes[0].say("hb", heartbeat(seq=2, millivolts=3300).encode())
    boxes[0].say("hb", heartbeat(seq=3, celsius=86).encode())
    wait_for(lambda: "86℃" in browser.text("[data-part=supervisor]"), "the temperature", within_s=15)
    supervisor = browser.text("[data-part=supervisor]")
    for words in ("機器を通っています", "3.30V", "2分14秒", "電源の短い抜き差し（5.0秒）"):
        assert words in supervisor
    boxes[0].say("evt", ledger_event(seq=70, at_ms=now_ms() - 30_000).encode())
    boxes[0].say("reported", reported(at_s=now_ms() // 1000).encode())
    wait_for(lambda: "検査の停止" in browser.text("#ledger"), "the ledger's entry", within_s=15)
    wait_for(lambda: "反映済み" in browser.text(".parts"), "the report", within_s=15)
    assert browser.is_marked()
    ledger = browser.text("#ledger")
    for words in ("検査されなかった通信", "この24時間", "この30日間", "12秒", "3,400", "2.5 MB"):
        assert words in ledger
    settings = browser.text(".parts")
    for words in ("検査できないときの動作", "拒否", "no radio on this board", "待ち", "waits for the broker"):
        assert words in settings
    assert "反映できなかった設定があります" in browser.text(f"#box-{BOX}")
    browser.one(".languages a[lang=en]").click()
    wait_for(lambda: "Traffic that was not inspected" in browser.text("#ledger"), "English")
    assert "Inspection stopped" in browser.text("#ledger")
    browser.one(".languages a[lang=ja]").click()
    boxes[0].say("reported", reported(parts=(), state=PartState.NONE, version=0, at_s=now_ms() // 1000).encode())
    wait_for(lambda: "出荷時の設定" in browser.text(), "the report that all is as delivered", within_s=15)


def test_hostile_names_do_nothing_in_a_real_browser(browser: Browser, boxes: tuple[FakeBox, FakeBox]) -> None:
    evil = "<img src=x onerror='window.broken=1'><script>window.broken=1</script>\u202egpj.exe"
    boxes[0].say("evt", alert(seq=60, at_ms=now_ms(), destination=evil, rule=evil, category=evil[:40]).encode())
    browser.open()
    wait_for(lambda: "gpj.exe" in browser.text(".alerts"), "the hostile alert", within_s=15)
    time.sleep(0.2)
    assert browser.script("return window.broken") is None
    assert browser.script("return document.querySelectorAll('main img, main script').length") == 0
    assert "<script>window.broken=1</script>" in browser.text(".alerts")


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"), (320, "light")]
)
def test_nothing_overflows_and_everything_is_legible(browser: Browser, width: int, scheme: str) -> None:
    browser.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    for address in ("/?lang=ja", "/?lang=en", f"/box/{BOX}?lang=ja", f"/box/{BOX}?lang=en"):
        browser.open(address)
        browser.script("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
        assert browser.script("return document.documentElement.scrollWidth") <= width
        assert browser.script(CONTRASTS) == []


def test_the_page_says_when_it_cannot_be_refreshed_and_recovers(browser: Browser, rig: Rig) -> None:
    """Last of all: it stops the cloud."""
    browser.open()
    browser.mark()
    assert "自動更新中" in browser.text("#pulse")
    rig.cloud.stop()
    wait_for(lambda: "更新が止まっています" in browser.text("#pulse"), "the warning", within_s=60)
    rig.cloud.start()
    wait_for(lambda: "自動更新中" in browser.text("#pulse"), "the recovery", within_s=60)
    assert browser.is_marked()
    browser.complaints()  # failed requests are what this test is about
