"""The catalogue of sources, the policy and the applications as shipped, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omamori_protocol.feed_manifest import MAX_LISTS
from omamori_protocol.vocabulary import Action, Function, Severity
from omamori_signatures.applications import application_rules, parse_applications
from omamori_signatures.catalogue import Kind, parse_catalogue, read_catalogue
from omamori_signatures.errors import SourceError
from omamori_signatures.policy import PolicyKind, parse_policy, read_policy
from omamori_signatures.templates import list_rules
from omamori_signatures.toml_fields import read_toml
from omamori_signatures.url_rules import url_rules
from sim.feed_world import DATA, shipped_applications, table


class TestShippedData:
    def test_every_source_goes_into_lists_of_the_policy(self) -> None:
        policy = read_policy(DATA / "policy.toml")
        for source in read_catalogue(DATA / "sources.toml").sources:
            for kind, name in source.lists.items():
                assert policy.find(name).kind.value == kind, source.name
            for name in source.categories.values():
                assert policy.find(name).function is Function.CATEGORY

    def test_every_local_file_of_the_catalogue_is_there(self) -> None:
        catalogue = read_catalogue(DATA / "sources.toml")
        assert all((DATA / source.file).exists() for source in catalogue.sources if source.file)

    def test_every_kind_of_source_is_used(self) -> None:
        assert {source.kind for source in read_catalogue(DATA / "sources.toml").sources} == set(Kind)

    def test_every_source_from_elsewhere_names_licence_and_author(self) -> None:
        for source in read_catalogue(DATA / "sources.toml").sources:
            assert source.licence
            assert source.attribution

    def test_categories_and_applications_are_only_logged(self) -> None:
        policy = read_policy(DATA / "policy.toml")
        assert policy.application_action is Action.LOGGED
        for item in policy.lists:
            assert item.action is (Action.BLOCKED if item.is_threat else Action.LOGGED), item.name

    def test_a_pack_has_room_for_all_lists(self) -> None:
        lists = read_policy(DATA / "policy.toml").lists
        assert sum(2 if item.kind is PolicyKind.URL else 1 for item in lists) <= MAX_LISTS

    def test_ids_of_generated_rules_never_meet(self) -> None:
        policy = read_policy(DATA / "policy.toml")
        rules = [rule for item in policy.lists if item.kind is PolicyKind.URL for rule in url_rules(item)]
        for item in policy.lists:
            if item.kind is not PolicyKind.URL:
                kind = {"domain": "domain", "ip": "ip", "sha256": "sha256"}[item.kind.value]
                rules += list_rules(item.as_list(item.name, kind))  # type: ignore[arg-type]  # a StrEnum's value
        for application in shipped_applications():
            rules += application_rules(application, Action.LOGGED, Severity.ONE)
        sids = [rule.sid for rule in rules]
        assert len(sids) == len(set(sids))
        assert all(1_910_000 <= sid <= 1_999_999 for sid in sids)

    def test_at_least_forty_applications_in_the_groups_that_are_asked_for(self) -> None:
        applications = shipped_applications()
        assert len(applications) >= 40
        assert {"sns", "file-sharing", "games", "remote-desktop"} <= {item.group for item in applications}
        assert any(item.ja4 for item in applications)
        assert any(item.protocols for item in applications)

    def test_blocked_application_is_not_throttled(self) -> None:
        (line, *_) = shipped_applications()
        logged = application_rules(line, Action.LOGGED, Severity.ONE)
        blocked = application_rules(line, Action.BLOCKED, Severity.ONE)
        assert all("threshold:" in rule.text and rule.action == "alert" for rule in logged)
        assert not any("threshold:" in rule.text or rule.action == "alert" for rule in blocked)
        assert {rule.action for rule in blocked if " dns " in rule.text} == {"drop:packet"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"url": "http://feeds.example/x"}, "https"),
        ({"url": "https://user:secret@feeds.example/x"}, "no user"),
        ({"url": "ftp://feeds.example/x"}, "https"),
        ({"url": "https://feeds.example:99999/x"}, "not a URL"),
        ({"file": "../secret.txt"}, "below"),
        ({"file": "/etc/passwd"}, "below"),
        ({"kind": "rules", "format": "plain"}, "rules"),
        ({"format": "csv"}, "column"),
        ({"column": 2}, "column"),
        ({"kind": "category", "lists": {}}, "categories"),
        ({"kind": "allow", "lists": {"domain": "c2"}}, "lists"),
        ({"lists": {"name": "c2"}}, "lists"),
        ({"entries": [5, 4]}, "entries"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": 10**12}, "max_bytes"),
        ({"surprise": 1}, "unknown surprise"),
        ({"where": [1]}, "where"),
        ({"enabled": "yes"}, "enabled"),
        (
            {"kind": "rules", "format": "rules", "url": "https://a.example/r", "sids": [1, 5_000_000], "lists": {}},
            "ours",
        ),
    ],
)
def test_source_that_breaks_a_rule_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        parse_catalogue({"format": 1, "sources": [table(**fields)]}, Path("/nowhere"))


def test_http_is_for_this_machine_only() -> None:
    assert parse_catalogue({"format": 1, "sources": [table(url="http://127.0.0.1:8080/x")]}, Path("/x")).sources


def test_name_or_ids_twice_are_refused() -> None:
    with pytest.raises(SourceError, match="twice"):
        parse_catalogue({"format": 1, "sources": [table(), table()]}, Path("/x"))
    rules = [table(name=name, kind="rules", format="rules") for name in ("a", "b")]
    with pytest.raises(SourceError, match="overlap"):
        parse_catalogue({"format": 1, "sources": rules}, Path("/x"))


def test_more_sources_than_allowed_are_refused() -> None:
    with pytest.raises(SourceError, match="at most 200"):
        parse_catalogue({"format": 1, "sources": [table(name=f"s{n}") for n in range(201)]}, Path("/x"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"action": "logged", "kind": "ip", "sid": None}, "gate"),
        ({"kind": "ip"}, "sid"),
        ({"function": "category"}, "category"),
        ({"severity": 4}, "severity"),
        ({"function": "weather"}, "function"),
        ({"name": "x" * 35}, "34"),
    ],
)
def test_list_of_the_policy_that_breaks_a_rule_is_refused(change: dict[str, Any], reason: str) -> None:
    body = read_toml(DATA / "policy.toml")
    body["lists"][1] = {key: value for key, value in {**body["lists"][1], **change}.items() if value is not None}
    with pytest.raises(SourceError, match=reason):
        parse_policy(body)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"domains": []}, "nothing to recognise"),
        ({"domains": ["line.me", "line.me"]}, "domains"),
        ({"domains": ["-bad"]}, "domains"),
        ({"ja4": ["t13d_nonsense"]}, "ja4"),
        ({"title": 'a"; sid:1; "'}, "plain"),
        ({"sid": 1_900_000}, "sid"),
        ({"protocols": ["http"]}, "protocols"),
    ],
)
def test_application_that_breaks_a_rule_is_refused(fields: dict[str, Any], reason: str) -> None:
    base = {"name": "line", "title": "LINE", "group": "sns", "sid": 1_930_000, "domains": ["line.me"]}
    with pytest.raises(SourceError, match=reason):
        parse_applications({"format": 1, "applications": [{**base, **fields}]})


def test_domain_of_two_applications_is_refused() -> None:
    base = {"name": "line", "title": "LINE", "group": "sns", "sid": 1_930_000, "domains": ["line.me"]}
    with pytest.raises(SourceError, match="domain twice"):
        parse_applications({"format": 1, "applications": [base, {**base, "name": "other", "sid": 1_930_100}]})
