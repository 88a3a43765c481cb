"""What a box tells of its supervisor and its power, as people and scripts see it; and why it was away."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_cloud.cli import main
from omamori_cloud.facts import BoxFacts, OutageFacts, SupervisorFacts
from omamori_cloud.ingest import IngestStatus
from omamori_cloud.liveness import OutageReason
from omamori_cloud.page.config import PageConfig
from omamori_cloud.page.outage_view import view_outage
from omamori_cloud.page.supervisor_view import FRESH_MS, power_name, view_supervisor
from omamori_cloud.wording import ENGLISH, JAPANESE, Wording
from omamori_protocol.vocabulary import PowerKind, RunEnd, Severity, UninspectedReason

from .makers import BOX, NOW_MS, OTHER_BOX, Bench, heartbeat, ledger_event, power_event, state, supervisor_state
from .watched import Watched
from .web_client import WebClient

LANGUAGES = pytest.mark.parametrize("words", [JAPANESE, ENGLISH], ids=["ja", "en"])
TOLD = supervisor_state()


@pytest.fixture
def client(bench: Bench) -> Iterator[WebClient]:
    status = IngestStatus()
    status.set("")
    made = WebClient(bench.app(PageConfig(names={BOX: "本社"}), status))
    yield made
    made.close()


class TestReasonOfAnAbsence:
    """The supervisor's word instead of a guess."""

    def come_back(self, bench: Bench, **values: Any) -> tuple[OutageReason, dict[str, Any]]:
        watched = Watched(bench)
        watched.birth(boot=1)
        watched.wait(60, beats=(BOX,))
        watched.wait(50)
        watched.birth(boot=2, uptime_s=20, **values)
        watched.wait(10, beats=(BOX,))
        (row,) = watched.outages()
        return OutageReason(row.reason), dict(row.evidence)

    def test_the_plug_was_pulled(self, bench: Bench) -> None:
        values = {"power_before": PowerKind.SHORT_PULL, "power_before_ms": 5012}
        reason, evidence = self.come_back(bench, last_end=RunEnd.ABRUPT, **values)
        assert reason is OutageReason.POWER
        assert (evidence["power"], evidence["power_ms"]) == ("short-pull", 5012)

    def test_too_little_voltage(self, bench: Bench) -> None:
        values = {"power_before": PowerKind.BROWN_OUT, "power_before_ms": 0}
        reason, evidence = self.come_back(bench, last_end=RunEnd.UNKNOWN, **values)
        assert (reason, evidence["power"]) == (OutageReason.POWER, "brown-out")
        assert "power_ms" not in evidence

    def test_the_power_stayed(self, bench: Bench) -> None:
        reason, _ = self.come_back(bench, last_end=RunEnd.ABRUPT, power_before=PowerKind.NONE, power_before_ms=0)
        assert reason is OutageReason.CRASH

    def test_an_orderly_restart_stays_one(self, bench: Bench) -> None:
        reason, _ = self.come_back(bench, last_end=RunEnd.ORDERLY, power_before=PowerKind.NONE, power_before_ms=0)
        assert reason is OutageReason.MAINTENANCE

    def test_a_line_that_went_later_is_not_the_plug_of_last_week(self, bench: Bench) -> None:
        watched = Watched(bench)
        values = {"power_before": PowerKind.SHORT_PULL, "power_before_ms": 5012, "uptime_s": 600_000}
        watched.birth(boot=1, **values)
        watched.wait(120)
        watched.birth(boot=1, away_s=120, **values)
        watched.wait(10, beats=(BOX,))
        (row,) = watched.outages()
        assert OutageReason(row.reason) is OutageReason.LINE
        assert "power" not in row.evidence


FACTS = SupervisorFacts(
    answers=True,
    chip="1.4.0",
    through=True,
    moves=7,
    past_s=134,
    resets=0,
    power_kind=PowerKind.SHORT_PULL,
    power_serial=4,
    power_ms=5012,
    celsius=41,
    celsius_ms=NOW_MS - 60_000,
    millivolts=3300,
    millivolts_ms=NOW_MS,
)


def figures(words: Wording, **changes: Any) -> dict[str, tuple[str, str]]:
    facts = dataclasses.replace(FACTS, **changes)
    box = BoxFacts(device=BOX, first_seen_ms=1, last_contact_ms=NOW_MS, supervisor=facts)
    view = view_supervisor(box, words=words)
    assert view is not None
    return {figure.label: (figure.value, figure.tone) for figure in view.figures}


class TestView:
    def test_in_plain_japanese(self) -> None:
        assert figures(JAPANESE) == {
            "温度": ("41℃", ""),
            "内部の電圧": ("3.30V", ""),
            "通信の通り道": ("機器を通っています", "ok"),
            "機器を通らなかった時間": ("2分14秒", ""),
            "通り道の切り替え": ("7回", ""),
            "見守り部品による再起動": ("0回", ""),
            "最後の電源のできごと": ("電源の短い抜き差し（5.0秒）", ""),
            "見守り部品のバージョン": ("1.4.0", ""),
        }

    @LANGUAGES
    def test_what_is_not_known_is_said_to_be(self, words: Wording) -> None:
        nothing = dict.fromkeys([item.name for item in dataclasses.fields(FACTS) if item.name != "answers"])
        assert {value for value, _ in figures(words, **nothing).values()} == {words.box.unknown}

    @LANGUAGES
    def test_old_figures_say_nothing_of_now(self, words: Wording) -> None:
        fresh = figures(words, celsius_ms=NOW_MS - FRESH_MS)[words.supervisor.temperature]
        old = figures(words, celsius_ms=NOW_MS - FRESH_MS - 1)[words.supervisor.temperature]
        silent = figures(words, answers=False)[words.supervisor.rail]
        assert fresh[0] != words.box.unknown
        assert old[0] == silent[0] == words.box.unknown

    @pytest.mark.parametrize(("celsius", "tone"), [(84, ""), (85, "danger")])
    def test_hot(self, celsius: int, tone: str) -> None:
        assert figures(ENGLISH, celsius=celsius)["Temperature"] == (f"{celsius} °C", tone)

    @pytest.mark.parametrize(("millivolts", "tone"), [(3000, ""), (2999, "danger")])
    def test_low(self, millivolts: int, tone: str) -> None:
        assert figures(ENGLISH, millivolts=millivolts)["Voltage inside"] == (f"{millivolts / 1000:.2f} V", tone)

    def test_past_the_box(self) -> None:
        assert figures(ENGLISH, through=False)["The wire leads"] == ("past the box", "notice")

    @pytest.mark.parametrize(
        ("kind", "length_ms", "name"),
        [
            (PowerKind.DIP, 120, "Dip of the power (0.1 s)"),
            (PowerKind.SHORT_PULL, 29_999, "Plug out for a short time (29 s)"),
            (PowerKind.LONG_PULL, 3_600_000, "Long power cut (1 h 0 min)"),
            (PowerKind.LONG_PULL, 2**32 - 1, "Long power cut (49 days 17 h)"),
            (PowerKind.BROWN_OUT, 0, "Too little voltage"),
            (PowerKind.COLD, None, "Power after a long time without"),
        ],
    )
    def test_the_length_of_a_power_event(self, kind: PowerKind, length_ms: int | None, name: str) -> None:
        assert power_name(kind, length_ms, ENGLISH) == name

    def test_an_absence_with_and_without_the_supervisors_word(self) -> None:
        outage = OutageFacts(
            id=1, device=BOX, start_ms=NOW_MS - 90_000, known_ms=NOW_MS, end_ms=NOW_MS, reason=OutageReason.POWER
        )
        told = dataclasses.replace(outage, evidence={"power": "brown-out"})
        hostile = dataclasses.replace(outage, evidence={"power": "<b>", "power_ms": "x"})
        names = [view_outage(one, now_ms=NOW_MS, words=JAPANESE).name for one in (outage, told, hostile)]
        assert names == ["停電", "電圧の低下", "停電"]


def test_the_page_of_a_box_and_the_first_one(bench: Bench, client: WebClient) -> None:
    bench.say(state(supervisor=TOLD))
    bench.say(heartbeat(celsius=41))
    bench.say(power_event())
    bench.say(power_event(seq=2, power_kind=PowerKind.BROWN_OUT, power_ms=0, severity=Severity.TWO))
    bench.say(ledger_event(uninspected_reason=UninspectedReason.RELAY, packets=0, size_bytes=0))
    page = client.get(f"/box/{BOX}").text
    for text in ("41℃", "機器を通っています", "電源の短い抜き差し（5.0秒）", "本体を通らない接続"):
        assert text in page
    first = client.get("/").text
    assert "電源の短い抜き差し（5.0秒）" in first
    assert JAPANESE.supervisor.powers[PowerKind.BROWN_OUT].meaning in first
    assert "Plug out for a short time (5.0 s)" in client.get("/?lang=en").text
    page = client.get(f"/box/{BOX}").text
    for text in ("41 °C", "through the box", "Past the box"):
        assert text in page


def test_a_page_without_a_supervisor_says_so(bench: Bench, client: WebClient) -> None:
    bench.say(state())
    assert JAPANESE.supervisor.none in client.get(f"/box/{BOX}").text


def test_for_scripts(bench: Bench, client: WebClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.say(state(supervisor=TOLD))
    bench.say(heartbeat(celsius=41))
    bench.say(power_event())
    bench.say(state(), device=OTHER_BOX)
    boxes = client.get("/api/v1/boxes").json()["boxes"]
    assert [box["supervisor"] for box in boxes] == [
        {
            "answers": True,
            "version": "1.4.0",
            "temperature": {"celsius": 41, "at": "2026-09-21T14:13:20.000Z"},
            "rail": {"millivolts": None, "at": None},
            "wire": {"through": True, "moves": 7, "past_s": 134, "lease_ms": 150},
            "resets": 0,
            "restarts": 1,
            "power": {"kind": "short-pull", "number": 4, "length_ms": 5012},
        },
        None,
    ]
    (event,) = client.get("/api/v1/events").json()["events"]
    assert (event["kind"], event["power"]) == ("power", {"kind": "short-pull", "number": 4, "length_ms": 5012})
    assert main(["boxes", "--json", "--config", str(bench.configuration(tmp_path))]) == 0
    assert [box["supervisor"] for box in json.loads(capsys.readouterr().out)["boxes"]] == [
        box["supervisor"] for box in boxes
    ]
