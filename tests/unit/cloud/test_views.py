"""Facts made ready to be read."""

from __future__ import annotations

from typing import Any

import pytest

from omamori_cloud.facts import BoxFacts, EventFacts, RefusalFacts
from omamori_cloud.page.alert_view import view_alert, view_happening, view_refusal
from omamori_cloud.page.box_view import view_box
from omamori_cloud.page.overview import headline
from omamori_cloud.wording import ENGLISH, JAPANESE, Wording
from omamori_protocol.vocabulary import (
    Action,
    Direction,
    EngineState,
    EventKind,
    FeedState,
    Function,
    Presence,
    Severity,
    Slot,
)

from .makers import BOX, NOW_MS


def box(**changes: Any) -> BoxFacts:
    values: dict[str, Any] = {
        "device": BOX,
        "first_seen_ms": 0,
        "last_contact_ms": NOW_MS - 1000,
        "presence": Presence.ONLINE,
        "presence_ms": NOW_MS - 1000,
        "model": "ZA-SA3500N",
        "firmware": "2026.11.1",
        "slot": Slot.B,
        "feed_serial": 12,
        "feed_state": FeedState.ACTIVE,
        "engine": EngineState.INSPECTING,
        "uptime_s": 3661,
        "uninspected_s": 9,
        "memory_available_kib": 421_888,
    }
    return BoxFacts(**{**values, **changes})


def card(facts: BoxFacts, words: Wording = JAPANESE, name: str | None = None) -> Any:
    return view_box(facts, name=name, now_ms=NOW_MS, offline_after_s=180, words=words)


def figures(view: Any) -> dict[str, str]:
    return {figure.label: f"{figure.value}|{figure.note}|{figure.tone}" for figure in view.figures}


def event(**changes: Any) -> EventFacts:
    values: dict[str, Any] = {
        "id": 1,
        "device": BOX,
        "boot": 1,
        "seq": 1,
        "kind": EventKind.ALERT,
        "at_ms": NOW_MS - 1000,
        "occurred_ms": NOW_MS - 1000,
        "received_ms": NOW_MS,
        "severity": Severity.TWO,
    }
    return EventFacts(**{**values, **changes})


def line(words: Wording = JAPANESE, **changes: Any) -> Any:
    return view_alert(event(**changes), names={BOX: "本社"}, now_ms=NOW_MS, words=words)


def test_a_well_box_in_japanese() -> None:
    view = card(box(), name="本社")
    assert (view.name, view.status, view.presence, view.contact) == ("本社", "保護中", "オンライン", "1分以内")
    assert view.findings == ()
    assert figures(view) == {
        "ファームウェア": "2026.11.1|B面で起動|",
        "検知データ": "第12版|使用中|ok",
        "検査エンジン": "検査中||ok",
        "未検査の時間": "9秒||",
        "メモリの空き": "412 MB||",
        "起動からの時間": "1時間1分||",
    }


def test_a_box_without_a_name_goes_by_its_serial() -> None:
    view = card(box())
    assert (view.name, view.named) == (BOX, False)


def test_a_refused_feed_is_explained_in_plain_words() -> None:
    view = card(box(feed_state=FeedState.REFUSED, feed_reason="timestamp.json expired"))
    (finding,) = view.findings
    assert finding.title == "新しい検知データを受け取りませんでした"
    assert finding.reason.startswith("有効期限が切れていました")
    assert finding.technical == "timestamp.json expired"
    assert "守り続けています" in finding.advice
    assert view.status == "要確認"


def test_an_offline_box_shows_no_green_figure() -> None:
    view = card(box(last_contact_ms=NOW_MS - 3 * 3_600_000))
    assert (view.status, view.contact) == ("オフライン", "3時間前")
    assert "ok" not in {figure.tone for figure in view.figures}


def test_a_box_that_was_never_heard() -> None:
    view = card(BoxFacts(device=BOX, first_seen_ms=NOW_MS))
    assert (view.status, view.presence, view.contact) == ("連絡待ち", "連絡待ち", "まだありません")
    assert figures(view)["検査エンジン"] == "不明||"


def test_a_development_image_says_so() -> None:
    assert card(box(flavour="dev")).development
    assert not card(box(flavour="release")).development


def test_headline() -> None:
    good, bad = card(box()), card(box(engine=EngineState.DOWN))
    refused = card(box(feed_state=FeedState.REFUSED))

    def say(*boxes: Any, trouble: bool = False) -> tuple[str, str]:
        result = headline(boxes, ingest_trouble=trouble, words=JAPANESE)
        return result.level, result.title

    assert say() == ("empty", "機器の登録を待っています")
    assert say(good) == ("ok", "すべて守られています")
    assert say(good, refused) == ("notice", "1台に確認が必要です")
    assert say(bad, refused, good) == ("danger", "2台に確認が必要です")
    # What is not known is not claimed.
    assert say(good, trouble=True) == ("notice", "機器からの知らせを受け取れていません")
    assert say(trouble=True) == ("notice", "機器からの知らせを受け取れていません")


def test_an_alert_tells_its_story() -> None:
    view = line(
        function=Function.DANGEROUS_SITE,
        direction=Direction.OUT,
        action=Action.BLOCKED,
        terminal_ip="192.168.10.11",
        terminal_mac=bytes.fromhex("02005e100001"),
        destination="phishing.test",
        remote_ip="203.0.113.80",
        remote_port=443,
        protocol="tls",
        category="games",
        rule="A rule",
        rule_id=7,
        count=3,
    )
    assert view.sentence == "192.168.10.11 が、危険な相手 phishing.test につなごうとしました。"
    assert view.outcome == "この通信は遮断しました。"
    assert (view.stars, view.function_name, view.action_label) == ("★★", "危険サイト", "遮断")
    assert (view.terminal_ip, view.terminal_mac) == ("192.168.10.11", "02:00:5e:10:00:01")
    assert (view.peer, view.peer_address, view.direction) == ("phishing.test", "203.0.113.80:443 TLS", "内から外へ")
    assert (view.category, view.rule, view.rule_id, view.count) == ("ゲーム", "A rule", "7", "3回")
    assert (view.box, view.time.words) == ("本社", "今日 23:13:19")


def test_an_attack_from_outside_names_the_attacker() -> None:
    view = line(
        words=ENGLISH,
        function=Function.IPS,
        direction=Direction.IN,
        action=Action.BLOCKED,
        terminal_ip="192.168.10.20",
        remote_ip="2001:db8::66",
        remote_port=80,
    )
    assert view.inward
    assert view.sentence == "2001:db8::66 on the internet attacked a weakness of 192.168.10.20."
    assert view.peer_address == "[2001:db8::66]:80"


def test_an_alert_that_says_almost_nothing_is_still_readable() -> None:
    view = line()
    assert view.sentence == "端末 不明 と 相手先 不明 の間の通信についてのお知らせです。"
    assert (view.function, view.function_name, view.terminal_mac) == ("other", "その他", "MAC 不明")
    assert (view.direction, view.action_label, view.count, view.category) == ("", "", "", "")


def test_an_unknown_category_is_shown_as_it_is() -> None:
    assert line(category="weapons").category == "weapons"


def test_a_wrong_clock_is_said() -> None:
    assert line().received is None
    assert line(at_ms=0).received is not None


@pytest.mark.parametrize("field", ["destination", "terminal_ip", "remote_ip", "protocol", "rule", "category"])
def test_no_field_of_an_alert_carries_a_reordering_character(field: str) -> None:
    view = line(
        **{"function": Function.IPS, "direction": Direction.OUT, "remote_port": 1, field: "a\u202eb\u2066c\u200b"}
    )
    assert not set("\u202e\u2066\u200b") & set(repr_texts(view))


def repr_texts(view: Any) -> str:
    return "".join(str(value) for value in vars(view).values())


def test_happenings_in_plain_words() -> None:
    def tell(**changes: Any) -> Any:
        return view_happening(event(**changes), names={}, now_ms=NOW_MS, words=JAPANESE)

    active = tell(kind=EventKind.FEED, feed_state=FeedState.ACTIVE, feed_serial=13)
    assert (active.title, active.tone, active.reason) == ("検知データ 第13版に更新しました", "ok", "")
    refused = tell(kind=EventKind.FEED, feed_state=FeedState.REFUSED, feed_serial=14, text="older than 13")
    assert refused.title == "新しい検知データを受け取りませんでした"
    assert refused.reason.startswith("今より古い版でした")
    assert refused.technical == "older than 13"
    boot = tell(kind=EventKind.SYSTEM, severity=Severity.ONE, text="boot 7")
    assert (boot.title, boot.technical) == ("機器が起動しました", "")
    again = tell(kind=EventKind.FEED, feed_state=FeedState.ACTIVE, feed_serial=13, text="in order again")
    assert again.title == "検知データの更新が正常に戻りました"
    engine = tell(kind=EventKind.SYSTEM, text="engine down: traffic passes without inspection")
    assert engine.title == "検査が止まりました（通信は流れています）"
    assert tell(kind=EventKind.SYSTEM, text="agent started: firmware 1 dev, slot A").title == "機器が動き始めました"
    lost = tell(kind=EventKind.SYSTEM, text="spool was full; events lost")
    assert (lost.tone, lost.technical) == ("notice", "spool was full; events lost")
    assert tell(kind=EventKind.SYSTEM, text="unheard of").title == "unheard of"
    assert tell(kind=EventKind.SYSTEM).title == "機器からの連絡"


def test_a_refusal_is_harmless() -> None:
    view = view_refusal(
        RefusalFacts(device="", received_ms=NOW_MS, reason="oversize", detail="x\u202ey"), now_ms=NOW_MS, words=JAPANESE
    )
    assert (view.device, view.reason, view.detail) == ("不明", "大きすぎる", "xy")
