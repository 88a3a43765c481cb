"""Packs for the benches: any rules, any lists, and the rules that ask those lists.

The compiler would refuse some of them; a box takes them as it takes every pack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from omamori_protocol.feed_manifest import FeedManifest, ListKind, PackFile, PackList, PackRules
from omamori_protocol.vocabulary import Action, Function, Severity
from omamori_signatures.pack_writer import write_pack

from .rule_set import RuleSet

_BUFFERS = (("dns", "dns.query"), ("http", "http.host"), ("tls", "tls.sni"), ("quic", "quic.sni"))


def write_feed_pack(
    path: Path, serial: int, rules: RuleSet, lists: Mapping[str, tuple[ListKind, Sequence[bytes]]], *, extra: str = ""
) -> int:
    """Write a pack of these rules and lists; return its bytes."""
    files = {f"lists/{name}.txt": b"".join(line + b"\n" for line in lines) for name, (_kind, lines) in lists.items()}
    matching = "".join(_list_rules(name, kind, number) for number, (name, (kind, _lines)) in enumerate(lists.items()))
    files["rules/bench.rules"] = rules.text + matching.encode() + extra.encode()
    manifest = FeedManifest(
        serial=serial,
        created="2026-11-22T00:00:00Z",
        channel="bench",
        engine_min="8.0.0",
        files=tuple(PackFile(path=name, size=len(data), sha256=_sha256(data)) for name, data in files.items()),
        lists=tuple(
            PackList(
                name=name,
                kind=kind,
                path=f"lists/{name}.txt",
                count=len(lines),
                function=Function.VIRUS if kind is ListKind.SHA256 else Function.DANGEROUS_SITE,
                severity=Severity.TWO,
                action=Action.BLOCKED,
            )
            for name, (kind, lines) in lists.items()
        ),
        # The engine leaves out some rules of public sets; how many is not the activation's business here.
        rules=(PackRules(path="rules/bench.rules", count=0),),
    )
    data = write_pack(manifest, files)
    path.write_bytes(data)
    return len(data)


def _list_rules(name: str, kind: ListKind, number: int) -> str:
    sid = 1_900_000 + 20 * number
    if kind is ListKind.SHA256:
        return f'drop tcp any any -> any any (msg:"digest"; filesha256:{name}.sha256; sid:{sid};)\n'
    if kind is not ListKind.DOMAIN:
        return ""
    text = ""
    for offset, (protocol, buffer) in enumerate(_BUFFERS):
        head = f'{"drop:packet" if protocol == "dns" else "drop"} {protocol} any any -> any any (msg:"name"; '
        exact, domain = f"{buffer}; to_lowercase; dataset:", f"{buffer}; to_lowercase; domain; dataset:"
        text += f"{head}{domain}isset,{name}; sid:{sid + 2 * offset};)\n"
        text += f"{head}{exact}isset,{name}; {domain}isnotset,{name}; sid:{sid + 2 * offset + 1};)\n"
    return text


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
