"""Rules: which frame is accepted, and the ones made for lists."""

from __future__ import annotations

import re
from typing import Any

import pytest

from omamori_protocol.feed_manifest import ListKind
from omamori_protocol.vocabulary import Action, Direction, Function, Severity
from omamori_signatures.errors import SourceError
from omamori_signatures.feed_source import SIDS_PER_LIST, ListSource
from omamori_signatures.rules import MAX_RULE_BYTES, parse_rule, read_rules
from omamori_signatures.templates import list_rules

from .conftest import RULE


def listed(**changes: Any) -> ListSource:
    values: dict[str, Any] = {
        "name": "dangerous", "kind": ListKind.DOMAIN, "file": "lists/dangerous.txt",
        "function": Function.DANGEROUS_SITE, "severity": Severity.TWO, "action": Action.BLOCKED, "category": None,
        "direction": Direction.OUT, "sid": 1910000, "licence": "x", "origin": "x",
        "allow_documentation_addresses": False,
    }  # fmt: skip
    return ListSource(**values | changes)


def test_rule_is_read() -> None:
    (rule,) = read_rules(f"# comment\n\n{RULE}\n".encode(), "own.rules", sids=(1900000, 1900009))
    assert (rule.sid, rule.action, rule.text) == (1900001, "drop", RULE)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("drop http", "reject http", "not a rule"),
        ("drop http", "pass http", "not a rule"),
        ("->", "<>", "not a rule"),
        (" (msg", " msg", "not a rule"),
        ("rev:1;)", "rev:1)", "not a rule"),
        ('"/x;y"', '"/x;y', "a quote or semicolon is missing"),
        ("sid:1900001;", "", "exactly one sid"),
        ("sid:1900001;", "sid:1900001; sid:1900002;", "exactly one sid"),
        ("rev:1;", "priority:1;", "exactly one rev"),
        ("sid:1900001", "sid:x", "positive numbers"),
        ("sid:1900001", "sid:0", "positive numbers"),
        ("sid:1900001", "sid:1900010", "outside 1900000..1900009"),
        ("msg:", "message:", "exactly one msg"),
        ("omamori_function ips", "omamori_function magic", "omamori_function"),
        ("omamori_severity 1", "omamori_severity 4", "omamori_severity"),
        (", omamori_severity 1", "", "omamori_severity"),
        ("omamori_direction in", "omamori_direction up", "omamori_direction"),
        ("omamori_direction in", "omamori_category games", "omamori_category"),
        ("omamori_function ips", "omamori_function category", "omamori_category"),
        ("metadata:", "meta:", "exactly one metadata"),
    ],
)
def test_rule_that_breaks_the_frame_is_refused_with_its_line(old: str, new: str, reason: str) -> None:
    assert old in RULE
    with pytest.raises(SourceError, match=re.escape(reason)) as caught:
        read_rules(f"# comment\n{RULE.replace(old, new)}\n".encode(), "own.rules", sids=(1900000, 1900009))
    assert str(caught.value).startswith("own.rules, line 2: ")


def test_id_that_stands_twice_is_refused() -> None:
    with pytest.raises(SourceError, match="line 2: id 1900001 stands twice"):
        read_rules(f"{RULE}\n{RULE}\n".encode(), "own.rules")


def test_rule_at_the_bound_is_read_and_one_byte_more_is_not() -> None:
    padding = "x" * (MAX_RULE_BYTES - len(RULE))
    parse_rule(RULE.replace("/x;y", "/x;y" + padding), "here")
    with pytest.raises(SourceError, match="longer than"):
        parse_rule(RULE.replace("/x;y", "/x;y" + padding + "x"), "here")


def test_number_of_rules_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omamori_signatures.rules.MAX_RULES", 2)
    rules = [RULE.replace("1900001", str(1900001 + number)) for number in range(3)]
    assert len(read_rules("\n".join(rules[:2]).encode(), "own.rules")) == 2
    with pytest.raises(SourceError, match="more than 2"):
        read_rules("\n".join(rules).encode(), "own.rules")


def test_ids_of_a_list_never_change() -> None:
    found = [(rule.sid, rule.text.split(" ")[1], "isnotset" in rule.text) for rule in list_rules(listed())]
    assert found == [
        (1910000, "dns", False),
        (1910001, "dns", True),
        (1910002, "http", False),
        (1910003, "http", True),
        (1910004, "tls", False),
        (1910005, "tls", True),
        (1910006, "quic", False),
        (1910007, "quic", True),
    ]
    assert len(found) <= SIDS_PER_LIST


def test_blocked_lists_drop_and_a_dns_query_alone() -> None:
    actions = {rule.text.split(" ")[1]: rule.action for rule in list_rules(listed())}
    assert actions == {"dns": "drop:packet", "http": "drop", "tls": "drop", "quic": "drop"}


def test_logged_lists_never_drop() -> None:
    category = listed(function=Function.CATEGORY, category="games", action=Action.LOGGED, severity=Severity.ONE)
    for rule in list_rules(category):
        assert rule.action == "alert"
        assert (
            "omamori_function category, omamori_severity 1, omamori_category games, omamori_direction out" in rule.text
        )


def test_hash_list_is_one_rule_and_addresses_are_none() -> None:
    (rule,) = list_rules(listed(kind=ListKind.SHA256, function=Function.VIRUS, direction=None, name="malware"))
    assert "filesha256:malware.sha256;" in rule.text
    assert "omamori_direction" not in rule.text
    assert list_rules(listed(kind=ListKind.IP, sid=0)) == ()
