"""Why something is blocked, and a false alarm from the alert to the box without it, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from omamori_protocol.vocabulary import Function
from sim.feed_book import FeedOffice
from unit.cloud.makers import alert, heartbeat, state

from .browser import CONTRASTS, Browser
from .cloud_rig import FakeBox, Rig, running_rig, wait_for
from .test_page_browser import now_ms

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

BOX = "ZA35-000001"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> FeedOffice:
    made = FeedOffice(tmp_path_factory.mktemp("feed"))
    made.make(12)
    return made


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, office: FeedOffice) -> Iterator[Rig]:
    extra = f'[feed]\nbook = "{office.book}"\nallow_file = "{office.allow_file}"\n'
    with running_rig(tmp_path_factory.mktemp("rig"), extra=extra) as made:
        yield made


@pytest.fixture(scope="module")
def box(rig: Rig) -> FakeBox:
    made = rig.box(BOX)
    made.say("state", state().encode())
    made.say("hb", heartbeat().encode())
    made.say("evt", alert(seq=1, at_ms=now_ms() - 5000, destination="www.shop.example", severity=3).encode())
    made.say(
        "evt",
        alert(seq=2, at_ms=now_ms() - 4000, function=Function.IPS, rule_id=2000001, rule="ET TROJAN Beacon").encode(),
    )
    wait_for(lambda: len(rig.cloud.alerts()) == 2 and rig.cloud.box(BOX).get("engine"), "the seeds")
    return made


@pytest.fixture
def browser(rig: Rig, box: FakeBox, tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path / "profile", rig.cloud.url)
    yield made
    complaints = made.complaints()
    made.close()
    assert complaints == []


def test_a_false_alarm_from_the_alert_to_the_box_without_it(
    browser: Browser, box: FakeBox, office: FeedOffice, rig: Rig
) -> None:
    browser.open("/?function=dangerous-site")
    browser.one(".alert summary").send_keys(Keys.ENTER)
    browser.one(".why a").send_keys(Keys.ENTER)
    wait_for(lambda: "/explain?q=www.shop.example" in browser.driver.current_url, "the explanation")
    page = browser.text("main")
    for words in (
        "遮断しています",
        "危険サイト",
        "第12版",
        "maltrail",
        "MIT",
        "urlhaus",
        "www.shop.example につなごうと",
    ):
        assert words in page
    browser.one("textarea[name=note]").send_keys("取引先の発注サイトが開けません")
    browser.one("input[name=reporter]").send_keys("佐藤")
    browser.one("#report button").send_keys(Keys.ENTER)
    wait_for(lambda: "/reports/1" in browser.driver.current_url, "the report's page")
    page = browser.text("main")
    for words in (
        "連絡を受け付けました",
        "第1号",
        "確認待ち",
        "取引先の発注サイトが開けません",
        "佐藤",
        "192.168.10.11",
    ):
        assert words in page
    browser.one(".remedy summary").send_keys(Keys.ENTER)
    assert '"kind": "terminal-mac"' in browser.text(".remedy")
    browser.one("textarea[name=reason]").send_keys("公式サイトと確認")
    browser.one("button[value=accepted]").send_keys(Keys.ENTER)
    wait_for(lambda: "次の検知データで反映" in browser.text("main"), "the decision")
    assert office.allow_file.read_text().endswith("1\tdomain\twww.shop.example\n")
    office.make(13)
    browser.open("/reports/1")
    assert "機器の更新待ち" in browser.text(".report-head")
    assert "第13版から外れています" in browser.text(".steps")
    box.say("hb", heartbeat(feed_serial=13, seq=2).encode())
    wait_for(lambda: rig.cloud.box(BOX)["feed"]["serial"] == 13, "the box's heartbeat")
    browser.open("/reports")
    browser.one(".report-list a").send_keys(Keys.ENTER)
    wait_for(lambda: browser.driver.current_url.endswith("/reports/1"), "the report's page")
    assert "完了" in browser.text(".report-head")
    browser.open("/explain?q=www.shop.example&lang=en")
    assert "Not blocked (left out)" in browser.text(".verdict")
    assert "because of report no. 1" in browser.text(".matches")


def test_a_question_by_keyboard_and_what_is_no_indicator(browser: Browser) -> None:
    browser.open("/")
    browser.one(".menu a[href='/explain']").click()
    field = browser.one("#q")
    field.send_keys("9.8.7.6\n")
    wait_for(lambda: "9.8.0.0/16" in browser.text("main"), "the answer")
    browser.one("#q").clear()
    browser.one("#q").send_keys("nonsense\n")
    wait_for(lambda: "のどれかで入力してください" in browser.text("main"), "the hint")
    assert browser.all("#report") == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (320, "dark")])
def test_nothing_overflows_and_everything_is_legible(browser: Browser, width: int, scheme: str) -> None:
    browser.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    for path in (
        "/explain?q=9.8.7.6",
        "/explain?q=bank.example",
        "/explain?q=2000001&alert=1",
        "/reports",
        "/reports/1",
    ):
        for language in ("ja", "en"):
            browser.open(f"{path}{'&' if '?' in path else '?'}lang={language}")
            browser.script("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
            assert browser.script("return document.documentElement.scrollWidth") <= width, path
            assert browser.script(CONTRASTS) == [], path
