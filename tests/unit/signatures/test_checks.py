"""What a pack is held against before it is published, as far as no engine is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_protocol.vocabulary import Action
from omamori_signatures import cli
from omamori_signatures.assembly import Assembled
from omamori_signatures.budget import Cost, board_memory_mib, estimate, exceed
from omamori_signatures.cases import MAX_STEPS, judge, read_cases
from omamori_signatures.errors import CheckError, SourceError
from omamori_signatures.indicators import DomainRules
from omamori_signatures.pack_writer import write_pack
from omamori_signatures.packets import Recording, client_hello, dns_query, http_request
from omamori_signatures.policy import Budget
from omamori_signatures.popular import find_blocked, read_popular
from omamori_signatures.probes import samples
from omamori_signatures.publication_check import CheckPlan, check_pack
from sim.feed_world import DATA, World, shipped_applications

ROOT = Path(__file__).resolve().parents[3]
DOMAINS = DomainRules()
BUDGET = Budget(memory_percent=50, load_s=60, networks=1000, slowness=4)


@pytest.fixture
def made(tmp_path: Path) -> Assembled:
    world = World(tmp_path)
    world.add("evil.example\nmail.office.example.co.jp\n", name="c2")
    world.add("9.9.9.9\n", name="ip", kind="ip")
    return world.assemble(applications=shipped_applications())


class TestPopular:
    def blocked(self, made: Assembled, *names: str) -> tuple[str, ...]:
        return find_blocked(names, made.manifest, made.files, DOMAINS)

    def test_names_that_a_list_of_threats_reaches(self, made: Assembled) -> None:
        assert self.blocked(made, "www.evil.example") == ("www.evil.example would be blocked: evil.example is in c2",)
        assert len(self.blocked(made, "evil.example", "mail.office.example.co.jp")) == 2
        assert self.blocked(made, "notevil.example", "office.example.co.jp", "example.co.jp") == ()

    def test_list_with_ranks_comments_and_rubbish(self, tmp_path: Path) -> None:
        path = tmp_path / "top.csv"
        path.write_text("# top\n1,Example.COM\n2,com\nwww.example.org # x\n\n???\n")
        assert read_popular(path, DOMAINS) == {"example.com", "www.example.org"}

    def test_shipped_popular_sites_are_names(self) -> None:
        lines = (DATA / "allow/popular.txt").read_text().splitlines()
        names = [line for line in lines if line and not line.startswith("#")]
        assert len(names) == len(set(names))
        public = {"herokuapp.com", "netlify.app", "vercel.app", "web.app", "firebaseapp.com", "pages.dev"}
        passed_over = set(names) - read_popular(DATA / "allow/popular.txt", DOMAINS)
        # Public suffixes cannot be listed by anybody, so they need no protection; they stay for readers of the list.
        assert public & passed_over
        assert all(DOMAINS.is_suffix(name) for name in passed_over)

    def test_pack_that_blocks_one_is_not_published(self, made: Assembled, tmp_path: Path) -> None:
        path = tmp_path / "top.txt"
        path.write_text("evil.example\n")
        with pytest.raises(CheckError) as caught:
            check_pack(made.manifest, dict(made.files), CheckPlan(popular=(path,)))
        assert caught.value.findings


class TestBudget:
    def test_cost_grows_with_what_a_pack_holds(self, made: Assembled) -> None:
        cost = estimate(made.manifest)
        assert 160 < cost.steady_mib < cost.peak_mib < 250

    @pytest.mark.parametrize(
        ("cost", "findings"),
        [
            (Cost(steady_mib=1, peak_mib=512, load_s=15.0, networks=1000), 0),
            (Cost(steady_mib=1, peak_mib=513, load_s=15.0, networks=1000), 1),
            (Cost(steady_mib=1, peak_mib=513, load_s=15.1, networks=1001), 3),
        ],
    )
    def test_bounds(self, cost: Cost, findings: int) -> None:
        assert len(exceed(cost, BUDGET, 1024)) == findings

    def test_boards_say_how_much_memory_they_have(self, tmp_path: Path) -> None:
        for board in (ROOT / "hw/boards").iterdir():
            if (board / "board.toml").is_file():
                assert board_memory_mib(board) >= 256
        (tmp_path / "board.toml").write_text("format = 1\n")
        with pytest.raises(SourceError, match="memory_recommended_mib"):
            board_memory_mib(tmp_path)

    def test_pack_that_is_too_large_is_not_published(self, made: Assembled, tmp_path: Path) -> None:
        (tmp_path / "board.toml").write_text("[limits]\nmemory_recommended_mib = 128\n")
        with pytest.raises(CheckError, match="too large"):
            check_pack(made.manifest, dict(made.files), CheckPlan(board=tmp_path, budget=BUDGET))


CASE = 'format = 1\ntitle = "x"\n{steps}\n[expected]\n{expected}\n'
STEP = '[[steps]]\nprotocol = "dns"\n'


class TestCases:
    def read(self, root: Path, steps: str, expected: str) -> None:
        (root / "case").mkdir()
        (root / "case/case.toml").write_text(CASE.format(steps=steps, expected=expected))
        read_cases(root)

    @pytest.mark.parametrize(
        ("steps", "expected", "reason"),
        [
            ("", "silent = true", "capture or steps"),
            (STEP, "", "alerts or silence"),
            (STEP, "silent = true\nalerts = [{ sid = 1 }]", "alerts or silence"),
            ('capture = "gone.pcap"', "silent = true", "not there"),
            ('capture = "../x.pcap"', "silent = true", "capture"),
            ('[[steps]]\nprotocol = "smoke"\n', "silent = true", "protocol"),
            (STEP + 'name = "a b"\n', "silent = true", "name"),
            (STEP + 'data = "0g"\n', "silent = true", "data"),
            (STEP * (MAX_STEPS + 1), "silent = true", "at most"),
        ],
    )
    def test_case_that_breaks_a_rule_is_refused(self, tmp_path: Path, steps: str, expected: str, reason: str) -> None:
        with pytest.raises(SourceError, match=reason):
            self.read(tmp_path, steps, expected)

    def test_judgement(self, tmp_path: Path) -> None:
        self.read(tmp_path, STEP, 'blocked = true\nalerts = [{ sid = 7 }, { message = "Listed" }]')
        (case,) = read_cases(tmp_path)

        def alert(sid: int, message: str, action: str = "blocked") -> dict[str, dict[str, object]]:
            return {"alert": {"signature_id": sid, "signature": message, "action": action}}

        assert judge(case, [alert(7, "x"), alert(8, "Listed name")]).problems == ()
        assert len(judge(case, []).problems) == 2
        assert judge(case, [alert(7, "Listed", "allowed")]).problems == ("not blocked: Listed",)

    def test_every_shipped_case_is_read_and_one_asks_for_silence(self) -> None:
        cases = read_cases(DATA / "cases")
        assert len(cases) >= 10
        assert any(case.is_silent for case in cases)

    def test_recordings_are_the_same_every_time(self, tmp_path: Path) -> None:
        def make(path: Path) -> bytes:
            recording = Recording()
            recording.connection("10.0.0.1", "198.51.100.1", 443, client_hello("a.example"), b"x" * 3000)
            recording.datagram("fd00::1", "fd00::2", 53, dns_query("a.example"))
            recording.connection("10.0.0.1", "198.51.100.1", 80, http_request("a.example"))
            return recording.save(path).read_bytes()

        assert make(tmp_path / "a") == make(tmp_path / "b")


def test_samples_are_spread_over_a_list() -> None:
    data = "".join(f"{number:03d}\n" for number in range(300)).encode()
    assert list(samples(data, 300)) == ["000", "100", "200"]
    assert list(samples(b"a\nb\n", 2)) == ["a", "b"]
    assert list(samples(b"", 0)) == []


def test_check_without_an_engine_and_cases_that_need_one(
    made: Assembled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "pack.tar.gz"
    pack.write_bytes(write_pack(made.manifest, made.files))
    board = str(ROOT / "hw/boards/x86_64-uefi")
    assert cli.main(["check", str(pack), "--popular", str(DATA / "allow/popular.txt"), "--board", board]) == 0
    assert "form, popular sites, budget" in capsys.readouterr().out
    assert cli.main(["check", str(pack), "--cases", str(DATA / "cases")]) == 1
    assert "need an engine" in capsys.readouterr().err


def test_policy_never_blocks_by_category_in_the_shipped_pack(made: Assembled) -> None:
    assert {item.action for item in made.manifest.lists if item.category} == {Action.LOGGED}
