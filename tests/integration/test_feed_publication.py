"""A compiled feed in front of the real engine: every list acts, every shipped case holds, spoilt feeds are found out.

The feed is a small one with the shipped policy, applications, rules and cases. What a real feed of a million entries
costs is measured, not tested (docs/feeds.md).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.dataplane.engine import obtain_engine_tree
from omamori_firmware.recipe import source_tree
from omamori_signatures.assembly import Assembled
from omamori_signatures.cases import read_cases, run_cases
from omamori_signatures.engine import Engine
from omamori_signatures.errors import CheckError, GuardError
from omamori_signatures.packets import Recording, http_answer, http_request
from omamori_signatures.policy import read_policy
from omamori_signatures.prefilters import MAX_SHARED, find_expensive
from omamori_signatures.probes import probe
from omamori_signatures.publication_check import CheckPlan, check_pack
from omamori_signatures.rules import Rule, parse_rule
from omamori_signatures.sieve import sieve
from sim.feed_world import DATA, World, shipped_applications

pytestmark = pytest.mark.root
ROOT = Path(__file__).resolve().parents[2]
CASES = read_cases(DATA / "cases")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.in_root(obtain_engine_tree(source_tree(), Cache(default_directory())))


def small_world(root: Path) -> World:
    world = World(root)
    world.add("evil.test\nhost.sub.evil.example.co.jp\n", name="c2")
    world.add("phish.test\n", name="phishing", lists={"domain": "phishing"})
    world.add("mal.test\n", name="malware", lists={"domain": "malware-sites"})
    world.add("http://9.8.7.6:81/bin.sh\nhttp://url.test/x?y=1%20z#top\n", kind="url", name="urls")
    world.add((DATA / "own/files.txt").read_bytes(), kind="hash", name="files")
    for name in ("games", "social_networks"):
        (root / "ut1" / name).mkdir(parents=True)
        (root / "ut1" / name / "domains").write_text(f"{name.replace('_', '-')}.test\n")
    categories = {"games": "games", "social_networks": "sns"}
    world.add("", name="ut1", kind="category", format="ut1", categories=categories, file="ut1")
    shutil.copytree(DATA / "demo/rules", root / "own")
    world.add("", name="own", kind="rules", format="rules", sids=[1_900_000, 1_900_999], file="own")
    return world


@pytest.fixture(scope="module")
def made(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Assembled:
    return small_world(tmp_path_factory.mktemp("world")).assemble(engine=engine, applications=shipped_applications())


def test_shipped_checks_hold(engine: Engine, made: Assembled) -> None:
    plan = CheckPlan(
        engine=engine,
        popular=(DATA / "allow/popular.txt",),
        board=ROOT / "hw/boards/x86_64-uefi",
        budget=read_policy(DATA / "policy.toml").budget,
        cases=DATA / "cases",
        probes=True,
    )
    report = check_pack(made.manifest, dict(made.files), plan)
    assert report.case_count == len(CASES)
    assert set(report.done) == {"form", "popular sites", "budget", "engine", "probes", "cases"}


def test_list_that_does_not_act_is_found_out(engine: Engine, made: Assembled, tmp_path: Path) -> None:
    rules = made.files["rules/lists.rules"].replace(b"dataset:isset,c2;", b"dataset:isset,local-sites;")
    files = {**made.files, "rules/lists.rules": rules}
    assert {item.split()[1] for item in probe(engine, made.manifest, files, tmp_path)} == {"c2"}
    verdicts = run_cases(CASES, engine, made.manifest, files, tmp_path)
    assert {item.case for item in verdicts if item.problems} == {"listed-name-c2"}


def test_listed_url_is_stopped_and_its_neighbours_are_not(engine: Engine, made: Assembled, tmp_path: Path) -> None:
    wanted = {
        ("9.8.7.6", "/bin.sh"): True,
        ("9.8.7.6:81", "/bin.sh"): True,
        ("URL.test", "/x?y=1%20z"): True,
        ("url.test", "/x?y=1"): False,
        ("url.test", "/"): False,
        ("other.test", "/bin.sh"): False,
        ("9.8.7.60", "/bin.sh"): False,
    }
    recording = Recording()
    for number, (host, path) in enumerate(wanted):
        recording.connection(f"10.1.1.{number}", "198.51.100.10", 80, http_request(host, path), http_answer())
    events = engine.replay(made.manifest, made.files, recording.save(tmp_path / "urls.pcap"))
    stopped = {
        event["src_ip"] for event in events if event["alert"]["signature"] == "OMAMORI Listed URL (malware-urls)"
    }
    assert stopped == {f"10.1.1.{number}" for number, is_listed in enumerate(wanted.values()) if is_listed}
    assert all(event["alert"]["action"] == "blocked" for event in events)


def test_rules_that_the_engine_refuses_are_named_and_left_out(engine: Engine) -> None:
    good = 'alert dns any any -> any any (msg:"x"; dns.query; content:"a{0}"; sid:{0}; rev:1;)'
    rules = [Rule(sid=sid, action="alert", text=good.format(sid)) for sid in range(2_000_001, 2_000_006)]
    rules[1] = Rule(sid=2_000_002, action="alert", text=rules[1].text.replace("dns.query", "dns.nothing"))
    rules[3] = Rule(sid=2_000_004, action="alert", text=rules[3].text.replace("content:", "bsize:3; content:"))
    taken, refused = sieve(engine, tuple(rules))
    assert [rule.sid for rule in taken] == [2_000_001, 2_000_003, 2_000_005]
    assert [item.sid for item in refused] == [2_000_002, 2_000_004]
    assert "dns.nothing" in refused[0].reason
    assert "bsize" in refused[1].reason


def test_rules_that_every_box_would_pay_for_are_named_and_left_out(engine: Engine) -> None:
    # As a list of hosts was once published for another engine: here the engine looks for `Host` first, in all of them.
    lines = [
        f'alert tcp any any -> any 80 (msg:"x"; content:"GET"; http_method; content:"evil{sid}.example"; '
        f'content:"Host"; http_header; metadata:omamori_function ips, omamori_severity 1; sid:{sid}; rev:1;)'
        for sid in range(2_000_001, 2_000_002 + MAX_SHARED)
    ]
    lines += [
        f'alert udp any any -> any any (msg:"x"; content:"{content}"; '
        f"metadata:omamori_function ips, omamori_severity 1; sid:{sid}; rev:1;)"
        for sid, content in ((2_000_900, "|00 00 00|"), (2_000_901, "xyz"))
    ]
    rules = tuple(parse_rule(line, "here") for line in lines)
    taken, refused = sieve(engine, rules)
    assert [rule.sid for rule in taken] == [2_000_901]
    assert {item.reason for item in refused} == {
        f"too expensive: the fast pattern of more than {MAX_SHARED} rules", "too expensive: a fast pattern of padding",
    }  # fmt: skip


def test_rules_of_ours_are_not_among_them(made: Assembled, engine: Engine) -> None:
    assert find_expensive(engine.pack_prefilters(made.manifest, made.files)) == {}


def test_source_of_whose_rules_too_many_are_refused_is_not_believed(engine: Engine, tmp_path: Path) -> None:
    world = World(tmp_path)
    line = (
        'alert tls $HOME_NET any -> $EXTERNAL_NET any (msg:"x"; tls.sni; bsize:32; content:"{0}"; '
        "classtype:trojan-activity; sid:{1}; rev:1; metadata:signature_severity Major, confidence High;)"
    )
    names = ["a" * 32] * 40 + ["a-name-that-is-longer-than-thirty-two-bytes.example"]
    text = "\n".join(line.format(name, 2_000_001 + number) for number, name in enumerate(names))
    world.add(text, name="et", kind="rules", format="rules", rejected_percent=1)
    with pytest.raises(GuardError, match="refuses 1 of 41 rules"):
        world.assemble(engine=engine)
    world.tables[0]["rejected_percent"] = 3
    made = world.assemble(engine=engine)
    assert {item.path: item.count for item in made.manifest.rules}["rules/et.rules"] == 40
    (report,) = [item for item in made.report["sources"] if item["source"] == "et"]
    assert "bsize" in report["left_out"][0]["reason"]


def test_popular_site_in_a_finished_pack_stops_it(made: Assembled, tmp_path: Path) -> None:
    popular = tmp_path / "popular.txt"
    popular.write_text("1,office.example\n2,login.evil.test\n")
    with pytest.raises(CheckError) as caught:
        check_pack(made.manifest, dict(made.files), CheckPlan(popular=(popular,)))
    assert caught.value.findings == ("login.evil.test would be blocked: evil.test is in c2",)


def test_blocked_application_is_cut_off(engine: Engine, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.add("evil.test\n", name="c2")
    policy = read_policy(DATA / "policy.toml")
    blocking = type(policy)(**{**policy.__dict__, "application_action": policy.find("c2").action})
    made = world.assemble(engine=engine, policy=blocking, applications=shipped_applications())
    cases = tuple(case for case in CASES if case.name == "applications-by-name")
    (verdict,) = run_cases(cases, engine, made.manifest, made.files, tmp_path)
    assert verdict.problems
    assert all(problem.startswith("not allowed: OMAMORI Application") for problem in verdict.problems)
