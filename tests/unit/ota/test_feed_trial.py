"""A candidate led through its rings by what the cloud says of it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from omamori_ota.candidate import Candidate
from omamori_ota.cli import main
from omamori_ota.errors import RejectedError, TransientError
from omamori_ota.feed_trial import (
    DEFAULT_POLICY,
    MAX_ANSWER_BYTES,
    FeedTrial,
    ask_cloud,
    parse_policy,
    parse_tally,
)
from omamori_ota.keys import KeyDirectory
from omamori_ota.packs import VerifiedPack
from omamori_ota.repository import Repository
from omamori_ota.rollout import Move, Outcome, Ring, RolloutPolicy, Tally

from .conftest import ManualClock

MakePack = Callable[..., VerifiedPack]
POLICY = RolloutPolicy(
    (Ring("canary", 10, 60, 2), Ring("everyone", 1000, 60, 2)), halt_rate=0.05, halt_reports=10, silence_s=600
)
POLICY_TEXT = """
halt_rate = 0.05
halt_reports = 10
silence_s = 600
[[ring]]
name = "canary"
permille = 10
bake_s = 60
minimum_reports = 2
[[ring]]
name = "everyone"
permille = 1000
bake_s = 60
minimum_reports = 2
"""


class Fleet:
    """What the boxes say; asked with serial and share."""

    def __init__(self) -> None:
        self.says = Tally(Counter())
        self.asked: list[tuple[int, int]] = []

    def __call__(self, serial: int, permille: int) -> Tally:
        self.asked.append((serial, permille))
        return self.says


@pytest.fixture
def repository(tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock, make_pack: MakePack) -> Repository:
    made = Repository(tmp_path / "repo", key_directory, clock)
    made.init()
    made.publish_feed(make_pack(serial=5), "demo")
    Candidate(made, "demo").publish(make_pack(serial=6), 10)
    return made


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def trial(repository: Repository, fleet: Fleet, tmp_path: Path, clock: ManualClock) -> FeedTrial:
    return FeedTrial(Candidate(repository, "demo"), POLICY, fleet, tmp_path / "notes" / "demo.json", clock)


def good(count: int) -> Tally:
    return Tally(Counter({Outcome.GOOD: count}))


def test_from_the_canaries_to_everyone(
    trial: FeedTrial, fleet: Fleet, clock: ManualClock, repository: Repository
) -> None:
    assert trial.step().decision.move is Move.WAIT
    fleet.says = good(3)
    clock.advance(seconds=59)
    assert trial.step().decision.move is Move.WAIT
    clock.advance(seconds=1)
    step = trial.step()
    assert (step.ring, step.decision.move) == ("canary", Move.ADVANCE)
    assert step.published is not None
    assert Candidate(repository, "demo").offer().permille == 1000
    assert trial.step().decision.move is Move.WAIT  # the ring's time begins anew
    clock.advance(seconds=60)
    assert trial.step().decision.move is Move.DONE
    (feed,) = repository.status().feeds
    assert feed.serial == 6
    with pytest.raises(RejectedError, match="no candidate"):
        trial.step()
    assert set(fleet.asked) == {(6, 10), (6, 1000)}


def test_a_bad_report_takes_it_back(trial: FeedTrial, fleet: Fleet, repository: Repository) -> None:
    fleet.says = Tally(Counter({Outcome.GOOD: 50, Outcome.ROLLED_BACK: 1}))
    step = trial.step()
    assert step.decision.move is Move.HALT
    assert "1 rolled back" in step.decision.reason
    (feed,) = repository.status().feeds
    assert feed.serial == 5


@pytest.mark.parametrize("spoilt", ["", "{", "[]", '{"serial": 6}', '{"serial": 5, "permille": 10, "since": 0}', None])
def test_lost_notes_cost_time_and_nothing_else(
    trial: FeedTrial, fleet: Fleet, clock: ManualClock, tmp_path: Path, spoilt: str | None
) -> None:
    fleet.says = good(3)
    trial.step()
    notes = tmp_path / "notes" / "demo.json"
    if spoilt is None:
        notes.unlink()
    else:
        notes.write_text(spoilt)
    clock.advance(seconds=60)
    assert trial.step().decision.move is Move.WAIT
    clock.advance(seconds=60)
    assert trial.step().decision.move is Move.ADVANCE


def test_an_unreachable_cloud_changes_nothing(repository: Repository, tmp_path: Path, clock: ManualClock) -> None:
    ask = ask_cloud("http://127.0.0.1:9", "demo", 900)
    trial = FeedTrial(Candidate(repository, "demo"), POLICY, ask, tmp_path / "notes.json", clock)
    with pytest.raises(TransientError, match="does not answer"):
        trial.step()
    assert Candidate(repository, "demo").offer().permille == 10


@pytest.mark.parametrize("url", ["ftp://x/", "file:///etc/passwd", "localhost:80", "http://"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(RejectedError, match="address"):
        ask_cloud(url, "demo", 900)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"outcomes": 5}',
        b'{"outcomes": {"splendid": 1}}',
        b'{"outcomes": {"good": -1}}',
        b'{"outcomes": {"good": true}}',
        b'{"outcomes": {"good": 1.5}}',
        b"[" * 100_000,
        b" " * (MAX_ANSWER_BYTES + 1),
    ],
)
def test_answers_that_make_no_sense(body: bytes) -> None:
    with pytest.raises(TransientError):
        parse_tally(body)


def test_policies() -> None:
    assert parse_policy(POLICY_TEXT) == POLICY
    assert DEFAULT_POLICY.rings[-1].permille == 1000
    for wrong in (
        "",
        "=",
        POLICY_TEXT + "colour = 1",
        POLICY_TEXT.replace("halt_rate = 0.05", "halt_rate = 1.0"),
        POLICY_TEXT.replace("permille = 1000", "permille = 999"),
        POLICY_TEXT.replace("bake_s = 60", 'bake_s = "60"'),
        POLICY_TEXT.replace("silence_s = 600", ""),
        POLICY_TEXT.replace("halt_reports = 10", "halt_reports = true"),
        'ring = "all"\n' + POLICY_TEXT.split("[[ring]]", maxsplit=1)[0],
    ):
        with pytest.raises(RejectedError, match="rollout policy"):
            parse_policy(wrong)


@pytest.fixture
def cloud() -> Iterator[tuple[str, dict[str, int]]]:
    """A cloud that answers with the outcomes one puts into it."""
    outcomes: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"outcomes": outcomes}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", outcomes
    server.shutdown()
    thread.join()
    server.server_close()


def test_by_the_command_line(
    repository: Repository,
    key_directory: KeyDirectory,
    tmp_path: Path,
    cloud: tuple[str, dict[str, int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = [str(key_directory.path), str(tmp_path / "repo"), "--channel", "demo"]
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY_TEXT.replace("bake_s = 60", "bake_s = 0"))
    url, outcomes = cloud
    outcomes.update(good=20)
    assert main(["candidate", "show", *place]) == 0
    assert capsys.readouterr().out == "channel=demo serial=6 reached=10/1000\n"
    assert main(["candidate", "step", *place, "--cloud", url, "--policy", str(policy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["move"] == "advance"
    outcomes.update(silent=2)
    step = ["candidate", "step", *place, "--cloud", url, "--policy", str(policy), "--watch", "--every", "0.1"]
    assert main(step) == 0
    assert "halt, 2 of 22 reports are bad (2 silent)" in capsys.readouterr().out
    assert main(["candidate", "show", *place]) == 1
    assert "no candidate" in capsys.readouterr().err
