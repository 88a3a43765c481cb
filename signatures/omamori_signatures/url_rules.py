"""The rule that matches a list of URLs: a listed host and a listed path in one request of plain HTTP (`urls`)."""

from __future__ import annotations

from omamori_protocol.vocabulary import Action

from .policy import PolicyList
from .rules import Rule, parse_rule

REVISION = 1
HOSTS, PATHS = "-hosts", "-paths"


def url_rules(item: PolicyList) -> tuple[Rule, ...]:
    """Return the rules of a list of URLs, which stands in the pack as two lists of text."""
    words = [f"omamori_function {item.function.word}", f"omamori_severity {int(item.severity)}"]
    if item.category is not None:
        words.append(f"omamori_category {item.category}")
    if item.direction is not None:
        words.append(f"omamori_direction {item.direction.word}")
    action = "drop" if item.action is Action.BLOCKED else "alert"
    text = (
        f'{action} http any any -> any any (msg:"OMAMORI Listed URL ({item.name})"; flow:established,to_server; '
        f"http.host; dataset:isset,{item.name}{HOSTS}; http.uri.raw; dataset:isset,{item.name}{PATHS}; "
        f"metadata:{', '.join(words)}; sid:{item.sid}; rev:{REVISION};)"
    )
    return (parse_rule(text, f"rule for list {item.name}"),)
