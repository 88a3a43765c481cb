"""The command line: help, errors, exit codes, progress."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from omamori_firmware import cli
from omamori_firmware.errors import LockDriftError, SetupError
from omamori_firmware.progress import Reporter


@pytest.mark.parametrize("command", [[], ["build"], ["lock"], ["factory"]])
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"])
    assert caught.value.code == 0
    assert "omamori-image" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["build"], ["build", "--flavour", "debug"], ["fly"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_error_comes_with_its_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise SetupError("no [key]", hint="make one")

    monkeypatch.setattr(cli.Builder, "build", refuse)
    assert cli.main(["build", "--trust", str(tmp_path), "--secureboot-key", str(tmp_path / "k"), "--json"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "error: no [key]" in output.err
    assert "hint: make one" in output.err


def test_drift_is_an_error_that_names_the_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LockDriftError("root.lock", ["bash: locked 1, got 2"], hint="renew")

    monkeypatch.setattr(cli.Builder, "build", refuse)
    assert cli.main(["build", "--trust", str(tmp_path), "--secureboot-key", str(tmp_path / "k")]) == 1
    assert "bash: locked 1, got 2" in capsys.readouterr().err


def test_control_c_ends_with_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Builder, "build", interrupted)
    assert cli.main(["build", "--trust", str(tmp_path), "--secureboot-key", str(tmp_path / "k")]) == 130
    assert "interrupted" in capsys.readouterr().err


def report(*, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, highlight=False)
    with Reporter(total=2, console=console) as reporter:
        with reporter.stage("kernel") as stage:
            stage.cached = True
        with reporter.stage("disk") as stage:
            stage.note("writing")
    assert [(time.name, time.cached) for time in reporter.times] == [("kernel", True), ("disk", False)]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal() -> None:
    text = report(terminal=False)
    assert "\x1b" not in text
    assert text.splitlines()[0].split() == ["kernel", "cached"]


def test_a_terminal_gets_a_bar_and_is_left_clean() -> None:
    text = report(terminal=True)
    assert "\x1b[?25l" in text
    assert text.rstrip().endswith("\x1b[2K") or "\x1b[?25h" in text


def test_a_script_sees_nothing() -> None:
    console = Console(file=io.StringIO())
    with Reporter(total=1, quiet=True, console=console) as reporter, reporter.stage("x"):
        reporter.warn("careful")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""
