"""The command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omamori_cloud.cli import main
from omamori_cloud.store.database import newest_revision

from .makers import BOX, Bench, alert, diagnostics, feed_event, heartbeat, state


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "cloud.toml"
    path.write_text(
        'state_dir = "."\n[broker]\nhost = "x"\nca = "x"\ncert = "x"\nkey = "x"\n[names]\nZA35-000001="本社"\n'
    )
    return str(path)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for command in ("serve", "migrate", "boxes", "alerts", "events"):
        assert command in text


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["boxes"], ["alerts", "--config"]])
def test_wrong_usage(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


def test_migrate_twice(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--config", config]) == 0
    assert capsys.readouterr().out == f"schema none -> {newest_revision()}\n"
    assert main(["migrate", "--config", config]) == 0
    assert capsys.readouterr().out == f"schema {newest_revision()}\n"


def test_reading_before_migrating_says_what_to_do(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boxes", "--config", config]) == 1
    assert (
        capsys.readouterr().err
        == f"error: database: schema none, needed {newest_revision()}\nhint: run: omamori-cloud migrate\n"
    )


def test_a_missing_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boxes", "--config", str(tmp_path / "absent")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_boxes_and_alerts_for_scripts(
    config: str, bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.say(state())
    bench.say(heartbeat())
    bench.say(alert(seq=1))
    bench.say(alert(seq=2), device="ZA35-000002")
    bench.say(feed_event(seq=3))
    assert main(["boxes", "--config", config, "--json"]) == 0
    boxes = json.loads(capsys.readouterr().out)["boxes"]
    assert [(box["device"], box["name"]) for box in boxes] == [(BOX, "本社"), ("ZA35-000002", None)]
    assert main(["alerts", "--config", config, "--json", "--device", BOX]) == 0
    assert [item["seq"] for item in json.loads(capsys.readouterr().out)["alerts"]] == [1]
    assert main(["alerts", "--config", config, "--json", "--since", "2099-01-01"]) == 0
    assert json.loads(capsys.readouterr().out)["alerts"] == []
    assert main(["events", "--config", config, "--json"]) == 0
    assert [item["seq"] for item in json.loads(capsys.readouterr().out)["events"]] == [3]


def test_diagnostics_of_a_box(config: str, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.say(heartbeat())
    assert main(["diagnostics", "--config", config, "--device", BOX]) == 2
    assert "has told nothing" in capsys.readouterr().err
    bench.say(diagnostics({"n": 1}))
    bench.say(diagnostics({"n": 2, "log": ["\x1b[31mred\x9b"]}, command_id=bytes([255] * 8)))
    assert main(["diagnostics", "--config", config, "--device", BOX]) == 0
    out = capsys.readouterr().out
    told = json.loads(out)
    assert (told["device"], told["command"], told["content"]["n"]) == (BOX, "ff" * 8, 2)
    assert "\x1b" not in out
    assert "\x9b" not in out


def test_lines_for_people_are_harmless(config: str, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.say(heartbeat())
    bench.say(alert(destination="a\u202eb\u009b31mc", rule="[red]x"))
    bench.say(feed_event(text="why"))
    for command in ("boxes", "alerts", "events"):
        assert main([command, "--config", config]) == 0
    text = capsys.readouterr().out
    assert "192.168.10.11 -> ab31mc" in text
    assert "[red]x" in text
    assert "12 active" in text


@pytest.mark.parametrize(
    ("option", "value"), [("--limit", "501"), ("--since", "soon"), ("--device", "x"), ("--terminal", "x")]
)
def test_a_senseless_question(
    config: str, bench: Bench, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["alerts", "--config", config, option, value]) == 2
    assert capsys.readouterr().err.startswith(f"error: {option[2:]}: ")


def test_serve_with_unusable_certificates_does_not_start(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", config, "--listen", "127.0.0.1:0"]) == 1
    assert "error: broker.ca: " in capsys.readouterr().err
