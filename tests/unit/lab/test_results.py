import json

from omamori_lab.results import Checklist, SceneResult, report


def result(checks: Checklist, error: str | None = None) -> SceneResult:
    return SceneResult("virus", "a virus", tuple(checks.checks), 1.5, error)


def test_everything_as_expected() -> None:
    checks = Checklist()
    assert checks.equal("ping", 10, 10)
    assert result(checks).ok
    assert result(checks).summary == "1 checks as expected"


def test_one_wrong_check_fails_the_scene_and_is_told() -> None:
    checks = Checklist()
    checks.equal("ping", 10, 10)
    assert not checks.equal("DNS", None, ["203.0.113.80"])
    assert not result(checks).ok
    assert result(checks).summary == "DNS: expected None, seen ['203.0.113.80']"


def test_a_scene_without_checks_has_proved_nothing() -> None:
    assert not result(Checklist()).ok


def test_an_error_fails_the_scene() -> None:
    checks = Checklist()
    checks.equal("ping", 10, 10)
    assert not result(checks, "the box ended\nconsole …").ok
    assert result(checks, "the box ended\nconsole …").summary == "the box ended"


def test_what_was_seen_is_bounded() -> None:
    checks = Checklist()
    checks.add("page", expected="short", seen="x" * 5000, ok=False)
    assert len(checks.checks[0].seen) == 500


def test_report_of_a_run() -> None:
    checks = Checklist()
    checks.equal("ping", 10, 10)
    body = json.loads(
        report([result(checks)], durations_s={"protecting": 40.123}, versions={"feed": "1"}, machine={"cores": "2"})
    )
    assert body["ok"] is True
    assert body["scenes"][0]["checks"] == [{"name": "ping", "expected": "10", "seen": "10", "ok": True}]
    assert body["durations_s"] == {"protecting": 40.12}


def test_a_run_without_scenes_is_not_right() -> None:
    assert json.loads(report([], durations_s={}, versions={}, machine={}))["ok"] is False
