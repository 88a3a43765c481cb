"""From copies of sources to a pack: merging, the allow-list, rules of others, history, and the operator's questions."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest

from omamori_protocol.feed_manifest import ListKind
from omamori_protocol.vocabulary import Action
from omamori_signatures import cli, history, sorter
from omamori_signatures.errors import SourceError
from omamori_signatures.explain import Explainer, compare_serials
from omamori_signatures.pack_reader import check_content
from omamori_signatures.pack_writer import write_pack
from omamori_signatures.policy import read_policy
from sim.feed_world import DATA, World, entries

DIGEST = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class TestMerging:
    def test_every_kind_in_its_list_and_the_pack_holds_its_form(self, world: World) -> None:
        world.add(
            f"evil.example\nhttp://9.8.7.6:81/bin.sh\nhttp://evil.example.net/x?y=1\n9.8.7.6\n{DIGEST}\n", kind="mixed"
        )
        made = world.assemble()
        check_content(made.manifest, dict(made.files))
        assert entries(made, "c2") == ["evil.example"]
        assert entries(made, "bad-addresses") == ["9.8.7.6"]
        assert entries(made, "malware-files") == [DIGEST]
        assert entries(made, "malware-urls-hosts") == ["9.8.7.6", "evil.example.net"]
        assert entries(made, "malware-urls-paths") == ["/bin.sh", "/x?y=1"]
        kinds = {item.name: item.kind for item in made.manifest.lists}
        assert kinds["malware-urls-hosts"] is kinds["malware-urls-paths"] is ListKind.TEXT

    def test_empty_lists_are_declared_because_a_new_name_restarts_the_engine(self, world: World) -> None:
        made = world.assemble()
        policy = read_policy(DATA / "policy.toml")
        assert {item.name for item in made.manifest.lists} >= {"c2", "phishing", "sns", "malware-urls-hosts"}
        assert len(made.manifest.lists) == len(policy.lists) + 1
        assert all(item.count == 0 for item in made.manifest.lists)

    def test_names_below_a_listed_registrable_domain_are_folded_others_are_not(self, world: World) -> None:
        world.add("www.evil.example\nevil.example\na.b.evil.example\nevil-x.example\n", name="a")
        world.add("sub.host.shop.example.co.jp\nx.sub.host.shop.example.co.jp\n", name="b")
        made = world.assemble()
        assert entries(made, "c2") == [
            "evil-x.example", "evil.example", "sub.host.shop.example.co.jp", "x.sub.host.shop.example.co.jp",
        ]  # fmt: skip

    def test_indicator_stands_in_the_first_list_only(self, world: World) -> None:
        world.add("evil.example\nother.example\n", name="p", lists={"domain": "phishing"})
        world.add("evil.example\n", name="c", lists={"domain": "c2"})
        made = world.assemble()
        assert (entries(made, "c2"), entries(made, "phishing")) == (["evil.example"], ["other.example"])

    def test_threat_does_not_take_a_site_out_of_its_category(self, world: World) -> None:
        world.add("evil.example\n", name="c")
        world.add("", name="ut1", kind="category", format="ut1", categories={"games": "games"}, file="ut1")
        (world.root / "ut1/games").mkdir(parents=True)
        (world.root / "ut1/games/domains").write_text("evil.example\n")
        made = world.assemble()
        assert entries(made, "c2") == entries(made, "games") == ["evil.example"]

    def test_networks_are_folded_across_sources(self, world: World) -> None:
        world.add("9.8.0.0/16\n9.8.7.6\n2a06:e480::/29\n", kind="ip", name="a")
        world.add("9.8.7.0/24\n9.9.0.0/24\n2a06:e481::1\n9.8.0.0/16\n", kind="ip", name="b")
        assert entries(world.assemble(), "bad-addresses") == ["2a06:e480::/29", "9.8.0.0/16", "9.9.0.0/24"]

    def test_order_and_repetition_of_sources_change_nothing(self, world: World, tmp_path: Path) -> None:
        rng = random.Random(7)
        names = [f"{'www.' * (n % 3 == 0)}evil{n % 60}.example" for n in range(200)]
        packs = set()
        for turn in range(3):
            other = World(tmp_path / str(turn))
            other.root.mkdir()
            rng.shuffle(names)
            other.add("\n".join(names), name="a")
            other.add("\n".join(names[:50] * 3), name="b")
            made = other.assemble()
            packs.add(write_pack(made.manifest, made.files))
        assert len(packs) == 1

    def test_sorting_through_files_gives_the_same(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.add("\n".join(f"host{n * 7919 % 500}.evil{n % 90}.example" for n in range(500)))
        whole = entries(world.assemble(), "c2")
        monkeypatch.setattr(sorter.LineSorter.__init__, "__kwdefaults__", {"portion": 17})
        assert entries(world.assemble(), "c2") == whole == sorted(whole)

    def test_source_without_a_copy_stops_the_pack(self, world: World) -> None:
        world.add("evil.example\n", name="a")
        (world.root / "a.txt").unlink()
        with pytest.raises(SourceError, match="source a has no copy"):
            world.assemble()

    def test_source_for_an_unknown_list_stops_the_pack(self, world: World) -> None:
        world.add("evil.example\n", lists={"domain": "nowhere"})
        with pytest.raises(SourceError, match="no list 'nowhere'"):
            world.assemble()


class TestAllowList:
    def test_no_source_reaches_what_is_allowed(self, world: World) -> None:
        world.add("mail.bank.example\n9.9.9.9\n2620:fe::fe\n", name="allow", kind="allow")
        world.add(
            "bank.example\nmail.bank.example\nwww.bank.example\nevil.example\n9.9.9.0/30\n9.9.9.9\nhttp://bank.example/x\n"
            "http://evil.bank.example/x\n2620:fe::fe\n",
            kind="mixed",
        )
        made = world.assemble()
        # A host beside the allowed one stays listed: it covers itself only.
        assert entries(made, "c2") == ["evil.example", "www.bank.example"]
        assert entries(made, "bad-addresses") == ["9.9.9.0/30"]
        assert entries(made, "malware-urls-hosts") == []
        assert made.report["allowed"] == 6

    def test_hole_is_cut_into_a_network(self, world: World) -> None:
        world.add("9.9.9.2\n", name="allow", kind="allow")
        world.add("9.9.9.0/29\n", kind="ip")
        assert entries(world.assemble(), "bad-addresses") == ["9.9.9.0/31", "9.9.9.3", "9.9.9.4/30"]

    def test_network_inside_an_allowed_one_is_gone(self, world: World) -> None:
        world.add("9.9.0.0/16\n", name="allow", kind="allow")
        world.add("9.9.9.0/24\n9.9.9.1\n9.10.0.0/16\n", kind="ip")
        assert entries(world.assemble(), "bad-addresses") == ["9.10.0.0/16"]

    def test_even_the_operator_is_overruled(self, world: World) -> None:
        world.add("one.one.one.one\n", name="allow", kind="allow", overrides="everything")
        world.add("one.one\none.one.one.one\n", name="own", lists={"domain": "local-sites"})
        assert entries(world.assemble(), "local-sites") == []

    def test_popular_site_may_stand_in_a_category(self, world: World) -> None:
        world.add("sns.example\n", name="popular", kind="allow")
        world.add("ntp.example\n", name="essential", kind="allow", overrides="everything")
        world.add("", name="ut1", kind="category", format="ut1", categories={"sns": "sns"}, file="ut1")
        (world.root / "ut1/sns").mkdir(parents=True)
        (world.root / "ut1/sns/domains").write_text("sns.example\nntp.example\n")
        assert entries(world.assemble(), "sns") == ["ntp.example", "sns.example"]  # logged: nobody is cut off
        policy = read_policy(DATA / "policy.toml")
        blocking = tuple(
            dataclasses.replace(item, action=Action.BLOCKED) if item.name == "sns" else item for item in policy.lists
        )
        made = world.assemble(2, policy=dataclasses.replace(policy, lists=blocking))
        assert entries(made, "sns") == ["sns.example"]


RULE = (
    'alert {head} (msg:"ET TEST {sid}"; {body} reference:url,x.example; classtype:{classtype}; sid:{sid}; rev:2; '
    "metadata:created_at 2020_01_01, signature_severity {severity}, confidence {confidence};)"
)


def rule(sid: int, head: str = "dns $HOME_NET any -> any any", **more: str) -> str:
    words = {
        "body": 'dns.query; content:"evil.example";',
        "classtype": "trojan-activity",
        "severity": "Major",
        "confidence": "High",
    }
    return RULE.format(sid=sid, head=head, **{**words, **more})


class TestRules:
    def taken(self, world: World, *lines: str) -> dict[int, str]:
        world.add("\n".join(lines) + "\n", name="et", kind="rules", format="rules")
        made = world.assemble()
        self.report = next(item for item in made.report["sources"] if item["source"] == "et")
        data = made.files.get("rules/et.rules", b"").decode()
        check_content(made.manifest, dict(made.files))
        return {int(line.partition("sid:")[2].partition(";")[0]): line for line in data.splitlines()}

    def test_meaning_decides_on_function_stars_and_action(self, world: World) -> None:
        found = self.taken(
            world,
            rule(2000001),
            rule(2000002, confidence="Medium"),
            rule(2000003, confidence="Low"),
            rule(2000004, severity="Informational"),
            rule(
                2000005,
                "http $EXTERNAL_NET any -> $HOME_NET any",
                classtype="web-application-attack",
                body='flow:established,to_server; http.uri; content:"/x";',
            ),
            rule(
                2000006,
                "http $EXTERNAL_NET any -> $HOME_NET any",
                classtype="credential-theft",
                body='flow:established,to_client; file.data; content:"/x";',
            ),
        )
        metadata = {sid: line.partition("metadata:")[2].partition(";")[0] for sid, line in found.items()}
        assert metadata == {
            2000001: "omamori_function ips, omamori_severity 3, omamori_direction out",
            2000002: "omamori_function ips, omamori_severity 2, omamori_direction out",
            2000003: "omamori_function ips, omamori_severity 2, omamori_direction out",
            2000005: "omamori_function ips, omamori_severity 1, omamori_direction in",
            2000006: "omamori_function dangerous-site, omamori_severity 2, omamori_direction out",
        }
        actions = {sid: line.partition(" ")[0] for sid, line in found.items()}
        assert actions == {
            2000001: "drop:packet",
            2000002: "drop:packet",
            2000003: "alert",
            2000005: "drop",
            2000006: "drop",
        }
        assert self.report["reasons"]["policy: for statistics only"] == 1
        assert not any("reference:" in line or "created_at" in line for line in found.values())

    @pytest.mark.parametrize(
        "line",
        [
            rule(2000001).replace("alert", "pass", 1),
            rule(2000001, body="dataset:set,x,type string,save /etc/x;"),
            rule(2000001, body="lua:x.lua;"),
            rule(2000001, body="filemd5:/etc/shadow;"),
            rule(2000001, body='content:"a"; replace:"b";'),
            rule(2000001, body="bypass;"),
            rule(1000001),
            rule(9900001),
            rule(2000001, "dns any any <> any any"),
        ],
    )
    def test_what_a_rule_of_others_must_not_do(self, world: World, line: str) -> None:
        assert self.taken(world, line) == {}
        assert len(self.report["left_out"]) == 1

    def test_rule_that_sets_a_bit_for_others_comes_along_silently(self, world: World) -> None:
        setter = rule(2000001, body='flowbits:set,et.x; dns.query; content:"a";', severity="Informational")
        unused = rule(2000003, body='flowbits:set,et.unused; dns.query; content:"a";', severity="Informational")
        asker = rule(2000002, body='flowbits:isset,et.x; dns.query; content:"b";')
        found = self.taken(world, f"#{setter}", unused, asker)
        assert sorted(found) == [2000001, 2000002]
        assert found[2000001].startswith("alert")
        assert "flowbits:noalert;" in found[2000001]

    def test_rule_that_can_never_match_is_left_out(self, world: World) -> None:
        assert self.taken(world, rule(2000002, body='flowbits:isset,et.nobody; dns.query; content:"b";')) == {}

    def test_silent_rule_is_never_made_to_block(self, world: World) -> None:
        found = self.taken(world, rule(2000001, body='flowbits:set,et.x; flowbits:noalert; dns.query; content:"a";'))
        assert found[2000001].startswith("alert")

    def test_bad_lines_are_told_and_ids_twice_left_out(self, world: World) -> None:
        found = self.taken(world, rule(2000001), "alert nonsense", rule(2000001), "# a comment", rule(2000002)[:-3])
        assert list(found) == [2000001]
        assert [line["number"] for line in self.report["bad_lines"]] == [2, 5]
        assert self.report["reasons"]["the id stands twice"] == 1

    def test_own_rule_is_taken_as_written(self, world: World) -> None:
        own = (
            'drop http any any -> any any (msg:"OMAMORI x"; http.uri; content:"/x"; '
            "metadata:omamori_function ips, omamori_severity 1; sid:1900001; rev:1;)"
        )
        world.add(f"{own}\n", name="own", kind="rules", format="rules", sids=[1_900_000, 1_900_999])
        assert world.assemble().files["rules/own.rules"].decode() == f"{own}\n"


class TestHistory:
    def make(self, world: World) -> None:
        world.add("bank.example\n", name="allow", kind="allow")
        world.add("evil.example\nold.example\nbank.example\n", name="a")
        world.add("evil.example\n9.8.0.0/16\nhttp://evil.net.example/x\n", name="b", kind="mixed")
        world.add(rule(2000001) + "\n", name="et", kind="rules", format="rules")
        world.assemble(5, created="2030-01-01T00:00:00Z")
        world.write("a", "evil.example\nnew.example\nbank.example\n")
        world.assemble(6, created="2030-01-02T00:00:00Z")

    def test_why_since_when_and_from_which_source(self, world: World) -> None:
        self.make(world)
        explainer = Explainer(world.history, 6)
        found = explainer.explain("WWW.evil.example.")
        assert (found.verdict, found.indicator) == ("blocked", "www.evil.example")
        (match,) = found.matches
        assert (match.list, match.entry, match.since_serial, match.since) == (
            "c2",
            "evil.example",
            5,
            "2030-01-01T00:00:00Z",
        )
        assert [source.source for source in match.sources] == ["a", "b"]
        assert match.sources[0].origin == "a.txt"
        assert (match.function, match.severity, match.action) == ("dangerous-site", 3, "blocked")
        assert explainer.explain("new.example").matches[0].since_serial == 6
        assert explainer.explain("old.example").verdict == "not listed"
        assert explainer.explain("9.8.7.6").matches[0].entry == "9.8.0.0/16"
        assert explainer.explain("http://evil.net.example/x").matches[0].list == "malware-urls"
        allowed = explainer.explain("bank.example")
        assert allowed.verdict == "allowed"
        assert allowed.allowed[0].allow_list == "allow"
        told = explainer.explain("2000001")
        assert (told.verdict, told.rule and told.rule.source) == ("blocked", "et")
        assert explainer.explain("1.2.3.4").verdict == "not listed"

    @pytest.mark.parametrize("text", ["", "com", "a b", "x" * 300, "d" * 32])
    def test_what_is_no_indicator_is_an_error(self, world: World, text: str) -> None:
        self.make(world)
        with pytest.raises(SourceError):
            Explainer(world.history, 6).explain(text)

    def test_what_changed_between_two_serials(self, world: World) -> None:
        self.make(world)
        change = compare_serials(world.history, 5, 6)
        assert change["sources"] == {"a": "changed"}
        assert list(change["lists"]) == ["c2"]
        assert change["lists"]["c2"]["added_first"] == ["new.example"]
        assert change["lists"]["c2"]["removed_first"] == ["old.example"]
        assert change["rules"]["added"] == change["rules"]["removed"] == 0

    def test_samples_of_a_change_are_bounded(self, world: World) -> None:
        world.add("".join(f"old{n}.example\n" for n in range(500)), name="a")
        world.assemble(1)
        world.write("a", "".join(f"evil{n}.example\n" for n in range(500)))
        world.assemble(2)
        change = compare_serials(world.history, 1, 2)["lists"]["c2"]
        assert (change["added"], change["removed"]) == (500, 500)
        assert len(change["added_first"]) == len(change["removed_first"]) == 20

    def test_entry_that_was_away_is_new_again(self, world: World) -> None:
        world.add("evil.example\nb.example\n", name="a")
        world.assemble(1, created="2030-01-01T00:00:00Z")
        world.write("a", "b.example\n")
        world.assemble(2, created="2030-01-02T00:00:00Z")
        world.write("a", "evil.example\nb.example\n")
        world.assemble(3, created="2030-01-03T00:00:00Z")
        explainer = Explainer(world.history, 3)
        assert explainer.explain("evil.example").matches[0].since_serial == 3
        assert explainer.explain("b.example").matches[0].since_serial == 1

    def test_only_so_many_serials_are_kept(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "KEPT", 3)
        world.add("evil.example\n")
        for serial in range(1, 6):
            world.assemble(serial)
        assert world.history.serials() == [3, 4, 5]

    def test_pack_that_fails_leaves_no_history(self, world: World) -> None:
        world.add("evil.example\n", name="a")
        world.assemble(1)
        world.add("evil.example\n", name="b", lists={"domain": "nowhere"})
        with pytest.raises(SourceError):
            world.assemble(2)
        assert world.history.serials() == [1]

    def test_every_entry_of_a_long_list_is_found_and_no_other(self, world: World) -> None:
        names = {f"{'x' * (n % 40)}evil{n * 7919}.example" for n in range(3000)}
        world.add("\n".join(names))
        world.assemble(1)
        rng = random.Random(3)
        for name in rng.sample(sorted(names), 200):
            assert world.history.find(1, "c2", name) is not None
            assert world.history.find(1, "c2", f"a{name}") is None
        first, *_, last = sorted(names)
        for name in (first, last):
            assert world.history.find(1, "c2", name) is not None

    def test_command_line(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.make(world)
        words = ["--history", str(world.root / "history")]
        assert cli.main(["explain", "www.evil.example", *words]) == 0
        told = capsys.readouterr().out
        assert "blocked as dangerous-site ★★★: evil.example is in list c2" in told
        assert "from a (test; test), copy of" in told
        assert cli.main(["explain", "bank.example", *words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["verdict"] == "allowed"
        assert cli.main(["diff", "5", "6", *words]) == 0
        assert "c2: +1 -1\n  + new.example\n  - old.example\n" in capsys.readouterr().out
        assert cli.main(["explain", "com", *words]) == 1
        assert cli.main(["diff", "1", "6", *words]) == 1
