"""Accidents that happened to published lists, replayed with the lists themselves: none may reach a box.

The lists stand outside the repository (`sim.real_data`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.dataplane.engine import obtain_engine_tree
from omamori_firmware.recipe import source_tree
from omamori_signatures.archive import open_members
from omamori_signatures.cases import read_cases, run_cases
from omamori_signatures.catalogue import read_catalogue
from omamori_signatures.engine import Engine
from omamori_signatures.errors import GuardError
from omamori_signatures.fetch import Fetcher, Outcome
from omamori_signatures.indicators import DomainRules
from omamori_signatures.popular import find_blocked, read_popular
from omamori_signatures.source_reader import count_source
from sim.feed_world import DATA, NOW, World, entries, table
from sim.real_data import real_data

PHISHING = "phishing-database/domains-ACTIVE-2026-03-2hourly.tar.zst"
AFTER = "2026-03-09T2334"


def shipped(name: str, **changes: Any) -> dict[str, Any]:
    """Return the shipped table of a source, with its bounds, reading a file in the place of its URL."""
    source = read_catalogue(DATA / "sources.toml").find(name)
    return table(
        name=name,
        kind=source.kind.value,
        format=source.format.value,
        max_bytes=source.max_bytes,
        entries=list(source.entries),
        shrink_percent=source.shrink_percent,
        growth_percent=source.growth_percent,
        bad_percent=source.bad_percent,
        minimum_score=source.minimum_score,
        file=f"{name}.txt",
        **({"lists": source.lists} if source.lists else {}),
        **changes,
    )


def versions(path: Path) -> dict[str, bytes]:
    """Return the versions of a list in an archive, by their time."""
    with open_members(path) as members:
        return {member.name.rpartition("/")[2].partition("__")[0]: member.stream.read() for member in members}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def step(world: World, data: bytes) -> tuple[Outcome, str]:
    (world.root / world.tables[0]["file"]).write_bytes(data)
    catalogue = world.catalogue
    (report,) = Fetcher(catalogue, world.store, None, lambda: NOW).fetch_all(catalogue.sources)
    return report.outcome, report.reason


def test_list_that_fell_to_a_twentieth_within_two_hours_is_refused(world: World) -> None:
    found = versions(real_data(PHISHING))
    fallen = found[AFTER]
    whole = found[max(time for time in found if time < AFTER)]
    world.tables = [shipped("phishing-database")]
    assert step(world, whole)[0] is Outcome.NEW
    outcome, reason = step(world, fallen)
    assert outcome is Outcome.REFUSED
    assert "4915 entries" in reason or "4917 entries" in reason or "entries, plausible" in reason
    assert world.store.current("phishing-database").read_bytes() == whole
    # Even without a bound on its size the fall itself is refused.
    world.tables[0]["entries"] = [0, 800_000]
    outcome, reason = step(world, fallen)
    assert (outcome, "shrank from" in reason) == (Outcome.REFUSED, True)


def test_list_that_is_filled_up_again_step_by_step_stays_out_until_it_is_whole(world: World) -> None:
    found = versions(real_data(PHISHING))
    whole = found[max(time for time in found if time < AFTER)]
    world.tables = [shipped("phishing-database")]
    assert step(world, whole)[0] is Outcome.NEW
    times = sorted(time for time in found if time >= AFTER)
    taken = [time for time in [*times[:-1:10], times[-1]] if step(world, found[time])[0] is Outcome.NEW]
    sizes = {time: found[time].count(b"\n") for time in taken}
    assert taken, "it was whole again in the end"
    assert min(sizes.values()) > whole.count(b"\n") * 0.75


def test_emptied_list_is_refused(world: World) -> None:
    whole = versions(real_data(PHISHING))["2026-03-01T2130"]
    world.tables = [shipped("phishing-database")]
    assert step(world, whole)[0] is Outcome.NEW
    for spoilt in (b"", b"# This list has moved.\n" * 10, b"\n" * 1000, whole[:100_000]):
        assert step(world, spoilt)[0] is Outcome.REFUSED
    assert world.store.current("phishing-database").read_bytes() == whole


def test_ordinary_days_of_real_lists_are_all_believed(world: World) -> None:
    days = versions(real_data("threatfox/threatfox-ips-daily-2026-07-22..08-22.tar.zst"))
    world.tables = [shipped("threatfox-ips")]
    outcomes = [step(world, days[day])[0] for day in sorted(days)[::4]]
    assert len(outcomes) == 8
    assert set(outcomes) == {Outcome.NEW}


@pytest.mark.root
def test_published_rules_that_do_not_load_and_detect_nothing_are_refused(world: World) -> None:
    """Of these rules 51 do not load, and the others could only match names of exactly 32 bytes."""
    engine = Engine.in_root(obtain_engine_tree(source_tree(), Cache(default_directory())))
    with open_members(real_data("urlhaus/urlhaus-filter-2025-07-19.tar.zst")) as members:
        data = next(m.stream.read() for m in members if m.name == "urlhaus-filter-suricata-sni-online.rules")
    world.tables = [table(name="sni", kind="rules", format="rules", file="sni.txt", sids=[100_000_000, 199_999_999])]
    outcome, reason = step(world, data)
    assert outcome is Outcome.REFUSED  # `sid` and `rev` run into one option
    assert "bad lines" in reason
    repaired = data.replace(b" rev:1;)", b"; rev:1; metadata:signature_severity Major, confidence High;)")
    assert step(world, repaired)[0] is Outcome.NEW
    with pytest.raises(GuardError, match=r"refuses \d+ of \d+ rules"):
        world.assemble(engine=engine)


@pytest.mark.parametrize(
    ("name", "file", "least", "changes"),
    [
        ("maltrail", "maltrail/maltrail-static-2026-08-22.tar.zst", 2_000, {"only_files": ["*static/malware/e*.txt"]}),
        ("urlhaus-filter", "urlhaus/urlhaus-filter-2025-07-19.tar.zst", 30_000, {"only_files": ["urlhaus-filter.txt"]}),
        ("feodo-tracker", "feodo/ipblocklist-2024-04-04.csv", 20, {"column": 1, "has_header": True}),
        ("spamhaus-drop", "spamhaus/2024-02-27/edrop.txt", 300, {}),
        ("ipsum", "ipsum/ipsum-2026-08-22.tar.zst", 14_000, {"only_files": ["ipsum.txt"]}),
        ("amnesty-investigations", "stix/amnesty-stix2.tar.zst", 4_000, {"only_files": ["*.stix2"]}),
        ("eset-malware-ioc", "misp/eset-malware-ioc-misp-json.tar.zst", 500, {"only_files": ["*.json"]}),
        ("malware-bazaar", "sha256/union-8repos-sha256.txt.zst", 74_000, {}),
        ("allow-warninglists", "allow/misp-warninglists-2026-08-20.tar.zst", 100_000, {}),
    ],
)  # fmt: skip
def test_real_copy_of_every_format_is_read(name: str, file: str, least: int, changes: dict[str, Any]) -> None:
    world = World(Path("/nowhere"), [shipped(name, **changes)])
    tally = count_source(world.catalogue.sources[0], real_data(file), DomainRules())
    assert tally.used >= least
    assert tally.bad <= max(10, tally.used * 0.05)


def test_no_popular_site_is_left_in_a_feed_of_real_lists(world: World) -> None:
    """Real lists name real sites: without the allow-list some of the 20 000 most visited ones would be blocked."""
    warnings = real_data("allow/misp-warninglists-2026-08-20.tar.zst")
    (world.root / "top.txt").write_bytes(warnings.read_bytes())
    names: list[str] = []
    phishing = versions(real_data(PHISHING))["2026-03-01T2130"]
    world.add(phishing, name="phishing", lists={"domain": "phishing"}, entries=[1, 800_000], max_bytes=40_000_000)
    domains = DomainRules()
    bare = world.assemble(1)
    with open_members(warnings) as members:
        for member in members:
            if "cloudflare-top20k" in member.name:
                names = [line.strip(b' ",\n').decode() for line in member.stream]
    popular = world.root / "popular.txt"
    popular.write_text("\n".join(names))
    listed = find_blocked(read_popular(popular, domains), bare.manifest, bare.files, domains)
    assert listed
    only = ["*cloudflare-top20k/list.json"]
    top = table(name="top", kind="allow", format="warninglist", file="top.txt", only_files=only, max_bytes=10_000_000)
    world.tables.append({**top, "entries": [1, 100_000]})
    made = world.assemble(2)
    assert not find_blocked(read_popular(popular, domains), made.manifest, made.files, domains)
    assert 0 < made.report["allowed"] < 200
    # What is taken out at the top gives back single hosts below it that it had covered.
    assert abs(len(entries(bare, "phishing")) - len(entries(made, "phishing"))) < 200


@pytest.mark.root
def test_ordinary_recorded_traffic_raises_nothing_that_blocks(world: World, tmp_path: Path) -> None:
    """Captures of ordinary protocols, played to the shipped rules, lists of names and applications."""
    engine = Engine.in_root(obtain_engine_tree(source_tree(), Cache(default_directory())))
    cases = tmp_path / "cases"
    chosen = (
        "dns-ptr",
        "dns-with-additionals",
        "quic",
        "mqtt",
        "ntp",
        "dhcp",
        "smtp",
        "ssh",
        "tls13",
        "http2",
        "ike",
        "snmp",
    )
    with open_members(real_data("pcaps/captures.tar.zst")) as members:
        for member in members:
            word = next((word for word in chosen if word in member.name), None)
            if word is None or (cases / word).exists() or not member.name.endswith(".pcap"):
                continue
            data = member.stream.read(2_000_001)
            if len(data) <= 2_000_000:
                (cases / word).mkdir(parents=True)
                (cases / word / "traffic.pcap").write_bytes(data)
                (cases / word / "case.toml").write_text(
                    f'format = 1\ntitle = "{word}"\ncapture = "traffic.pcap"\n[expected]\nsilent = true\n'
                )
    shutil.copytree(DATA / "demo/rules", world.root / "own")
    world.add("", name="own", kind="rules", format="rules", sids=[1_900_000, 1_900_999], file="own")
    world.add("evil.test\n", name="c2")
    made = world.assemble(engine=engine)
    found = read_cases(cases)
    assert len(found) >= 8
    (tmp_path / "work").mkdir()
    verdicts = run_cases(found, engine, made.manifest, made.files, tmp_path / "work")
    assert [item for item in verdicts if item.problems] == []
