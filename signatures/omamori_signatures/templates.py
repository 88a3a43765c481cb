"""The rules that match a list.

A list is a dataset of the engine, never thousands of rules. A domain list is compared twice with each name that a
protocol shows: by the registrable domain, which covers everything below it, and by the exact name for entries that
are host names. The second rule asks that the first one does not match, so one request raises one alert.

Ids count from the list's `sid` in the order below; the order is never changed, new forms are added at the end.
"""

from __future__ import annotations

from omamori_protocol.feed_manifest import ListKind
from omamori_protocol.vocabulary import Action

from .feed_source import ListSource
from .rules import Rule, parse_rule

REVISION = 1

# (protocol, buffer, what a person calls it). A blocked DNS query is dropped alone: forwarders ask everything from one
# port, and dropping the flow would cut all their other questions. `http` has both versions of HTTP.
_NAME_BUFFERS = (
    ("dns", "dns.query", "DNS query"),
    ("http", "http.host", "HTTP host"),
    ("tls", "tls.sni", "TLS server name"),
    ("quic", "quic.sni", "QUIC server name"),
)


def list_rules(item: ListSource) -> tuple[Rule, ...]:
    """Return the rules that match the list `item`; none for addresses, which the gate matches."""
    if item.kind is ListKind.DOMAIN:
        bodies = _domain_bodies(item)
    elif item.kind is ListKind.SHA256:
        # `tcp` is every protocol the engine takes files from; one rule, because each would hold its own copy.
        bodies = [("tcp", "Known malware", f"filesha256:{item.name}.sha256;")]
    else:
        bodies = []
    return tuple(_rule(item, item.sid + offset, *body) for offset, body in enumerate(bodies))


def _domain_bodies(item: ListSource) -> list[tuple[str, str, str]]:
    bodies = []
    for protocol, buffer, title in _NAME_BUFFERS:
        name = f"{buffer}; to_lowercase;"
        domain = f"{name} domain;"
        bodies.append((protocol, f"{title} below a listed domain", f"{domain} dataset:isset,{item.name};"))
        exact = f"{name} dataset:isset,{item.name}; {domain} dataset:isnotset,{item.name};"
        bodies.append((protocol, f"{title} that is listed", exact))
    return bodies


def _rule(item: ListSource, sid: int, protocol: str, title: str, body: str) -> Rule:
    action = "alert" if item.action is Action.LOGGED else "drop:packet" if protocol == "dns" else "drop"
    metadata = [f"omamori_function {item.function.word}", f"omamori_severity {int(item.severity)}"]
    if item.category is not None:
        metadata.append(f"omamori_category {item.category}")
    if item.direction is not None:
        metadata.append(f"omamori_direction {item.direction.word}")
    text = (
        f'{action} {protocol} any any -> any any (msg:"OMAMORI {title} ({item.name})"; {body} '
        f"metadata:{', '.join(metadata)}; sid:{sid}; rev:{REVISION};)"
    )
    return parse_rule(text, f"rule for list {item.name}")
