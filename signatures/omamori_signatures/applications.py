"""The catalogue of applications, ``applications.toml``: reviewed data, and the rules made from it.

    format = 1

    [[applications]]
    name = "line"
    title = "LINE"
    group = "sns"                       # what a customer's report sums up by
    sid = 1930000                       # first of a hundred ids; never changed, never reused
    domains = ["line.me"]               # names that only this application uses, everything below them included
    ja4 = ["t13d…"]                     # fingerprints of its TLS client
    protocols = ["rdp"]                 # what the engine recognises by itself
    patterns = ["wireguard"]            # what it does not, see `_BODIES`

An application is logged by default and blocked by the policy. While it is logged, a terminal that uses it is reported
once in ten minutes and rule: an office's chat would fill the log otherwise.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

from omamori_protocol.vocabulary import Action, Function, Severity

from .errors import SourceError
from .rules import Rule, parse_rule
from .toml_fields import NAME, Fields, read_toml

FILE_NAME = "applications.toml"
FORMAT = 1
SIDS_PER_APPLICATION = 100
SID_FIRST, SID_LAST = 1_930_000, 1_949_999
MAX_APPLICATIONS = 200
REVISION = 1
QUIET_S = 600

_DOMAIN = re.compile(r"(?=.{4,100}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+")
_JA4 = re.compile(r"[tqd][0-9sd]{2}[di][0-9]{4}[a-z0-9]{2}_[0-9a-f]{12}_[0-9a-f]{12}")
_PROTOCOLS = re.compile(r"bittorrent-dht|ftp|ldap|mqtt|nfs|rdp|rfb|sip|smb|ssh|telnet|tftp")
_OVER_UDP = {"bittorrent-dht", "tftp"}
_PATTERNS = re.compile(r"bittorrent-tcp|openvpn-udp|wireguard")
# (protocol, buffer, what a person calls it)
_BUFFERS = (
    ("dns", "dns.query", "DNS"),
    ("http", "http.host", "HTTP"),
    ("tls", "tls.sni", "TLS"),
    ("quic", "quic.sni", "QUIC"),
)
# Protocols that the engine does not know by name, by what opens their connections.
_BODIES = {
    "bittorrent-tcp": ("tcp", 'flow:established,to_server; content:"|13|BitTorrent protocol"; depth:20;'),
    # The client's first packet without TLS authentication: opcode 7, session, no acknowledgements, packet 0.
    "openvpn-udp": ("udp", 'dsize:14; content:"|38|"; depth:1; content:"|00 00 00 00 00|"; offset:9; depth:5;'),
    # Handshake initiation of WireGuard: type 1, three zero bytes, 148 bytes in all.
    "wireguard": ("udp", 'dsize:148; content:"|01 00 00 00|"; depth:4;'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Application:
    """One application; see the module's text."""

    name: str
    title: str
    group: str
    sid: int
    domains: tuple[str, ...]
    ja4: tuple[str, ...]
    protocols: tuple[str, ...]
    patterns: tuple[str, ...]


def read_applications(path: Path) -> tuple[Application, ...]:
    """Read and check ``applications.toml``.

    Raises:
        SourceError: It breaks a rule; the message says which.
    """
    return parse_applications(read_toml(path))


def parse_applications(body: dict[str, Any]) -> tuple[Application, ...]:
    """Check the parsed TOML.

    Raises:
        SourceError: A key is unknown or missing, a value is not allowed, a name or domain stands twice, ids overlap.
    """
    top = Fields(body, FILE_NAME)
    top.number("format", FORMAT, FORMAT)
    found = tuple(_application(item) for item in top.tables("applications", MAX_APPLICATIONS))
    top.finish()
    for what, values in (
        ("application", [item.name for item in found]),
        ("domain", [domain for item in found for domain in item.domains]),
        ("fingerprint", [ja4 for item in found for ja4 in item.ja4]),
    ):
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise SourceError(f"{what} twice: {', '.join(twice)[:120]}")
    sids = sorted((item.sid, item.name) for item in found)
    for (one, name), (other, its_name) in itertools.pairwise(sids):
        if other - one < SIDS_PER_APPLICATION:
            raise SourceError(f"ids of {name} and {its_name} overlap", hint=f"{SIDS_PER_APPLICATION} ids each")
    return found


def _application(body: object) -> Application:
    name = Fields(body, "application").matching("name", NAME)
    fields = Fields(body, f"application {name}")
    fields.matching("name", NAME)
    item = Application(
        name=name,
        title=fields.sentence("title"),
        group=fields.matching("group", NAME),
        sid=fields.number("sid", SID_FIRST, SID_LAST - SIDS_PER_APPLICATION + 1),
        domains=fields.names("domains", _DOMAIN, 16),
        ja4=fields.names("ja4", _JA4, 8),
        protocols=fields.names("protocols", _PROTOCOLS, 4),
        patterns=fields.names("patterns", _PATTERNS, 4),
    )
    fields.finish()
    if not (item.domains or item.ja4 or item.protocols or item.patterns):
        raise SourceError(f"application {name}: nothing to recognise it by")
    if not re.fullmatch(r'[^"\\;:|]{1,60}', item.title):
        raise SourceError(f"application {name}: a title of at most 60 plain characters")
    return item


def application_rules(item: Application, action: Action, severity: Severity) -> tuple[Rule, ...]:
    """Return the rules that recognise an application.

    Ids count from its `sid`: four for each domain in their order, fingerprints from 64 on, protocols from 80 on,
    patterns from 90 on; so an addition at the end of a list moves nothing.
    """
    made: list[tuple[int, str, str, str]] = []
    for place, domain in enumerate(item.domains):
        for offset, (protocol, buffer, title) in enumerate(_BUFFERS):
            # `dotprefix` puts a dot in front, so that the name itself and all below it match, and no look-alike does.
            body = f'{buffer}; to_lowercase; dotprefix; content:".{domain}"; endswith; fast_pattern;'
            made.append((4 * place + offset, protocol, f"{title} {domain}", body))
    for place, ja4 in enumerate(item.ja4):
        made.append((64 + place, "tls", "TLS client", f'ja4.hash; content:"{ja4}"; fast_pattern;'))
    for place, protocol in enumerate(item.protocols):
        transport = "udp" if protocol in _OVER_UDP else "tcp"
        made.append((80 + place, transport, f"protocol {protocol}", f"app-layer-protocol:{protocol};"))
    for place, pattern in enumerate(item.patterns):
        protocol, body = _BODIES[pattern]
        made.append((90 + place, protocol, f"pattern {pattern}", body))
    return tuple(_rule(item, action, severity, *parts) for parts in made)


def _rule(
    item: Application, action: Action, severity: Severity, offset: int, protocol: str, how: str, body: str
) -> Rule:
    words = (
        f"omamori_function {Function.APPLICATION.word}, omamori_severity {int(severity)}, "
        f"omamori_application {item.name}, omamori_group {item.group}"
    )
    word, quiet = "alert", f" threshold:type limit, track by_src, seconds {QUIET_S}, count 1;"
    if action is Action.BLOCKED:
        word, quiet = "drop:packet" if protocol == "dns" else "drop", ""
    text = (
        f'{word} {protocol} any any -> any any (msg:"OMAMORI Application {item.title} ({how})"; {body}{quiet} '
        f"metadata:{words}; sid:{item.sid + offset}; rev:{REVISION};)"
    )
    return parse_rule(text, f"rule for application {item.name}")
