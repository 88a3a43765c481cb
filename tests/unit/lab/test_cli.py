from pathlib import Path

import pytest

from omamori_lab import cli


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("run", "list", "clean"))


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run", "--page-port", "x"], ["run", "--flavour", "vanilla"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_unknown_scene_is_an_error_with_a_hint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["run", "--scenes", "dragons", "--state", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines() == ["error: no such scene: dragons", "hint: see: omamori-lab list"]


def test_a_tpm_that_the_lab_does_not_have_is_said_before_anything_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert cli.main(["run", "--tpm", "--board", "aarch64-uefi", "--state", str(tmp_path / "lab")]) == 1
    assert "leave out --tpm" in capsys.readouterr().err
    assert not (tmp_path / "lab").exists()


def test_scenes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert "feed-refused" in capsys.readouterr().out


def test_without_root_the_lab_says_what_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(["run", "--state", str(tmp_path / "lab")]) == 1
    assert "needs root" in capsys.readouterr().err
    assert not (tmp_path / "lab").exists()
