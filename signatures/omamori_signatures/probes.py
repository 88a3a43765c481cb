"""Probes: of every list of a pack, some entries are played to the engine, and each must raise the list's alert.

A feed may load without a word and match nothing; that happened to published ones. Entries are taken evenly over a
list, so that a part that is broken is likely to be met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from omamori_protocol.feed_manifest import FeedManifest, ListKind, PackList

from .cases import RESOLVER, SERVER
from .engine import Engine
from .packets import Recording, client_hello, dns_query, http_answer, http_request
from .url_rules import HOSTS, PATHS

PER_LIST = 3


def samples(data: bytes, count: int, wanted: int = PER_LIST) -> Iterator[str]:
    """Yield up to `wanted` lines, evenly taken."""
    if not count:
        return
    lines = data.split(b"\n")
    for number in range(min(wanted, count)):
        yield lines[number * count // min(wanted, count)].decode()


def probe(engine: Engine, manifest: FeedManifest, files: Mapping[str, bytes], directory: Path) -> tuple[str, ...]:
    """Play entries of every list of names and URLs; return which of them raised no alert of their list.

    Args:
        engine: Loads the pack.
        manifest: Of the pack.
        files: Of the pack.
        directory: For the recording.

    Raises:
        EngineError: It refuses the pack, or could not be started.
    """
    recording = Recording()
    clients: dict[str, tuple[str, str]] = {}

    def client(name: str, what: str) -> str:
        number = len(clients)
        address = f"10.{78 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"
        clients[address] = (name, what)
        return address

    for item in manifest.lists:
        if item.kind is ListKind.DOMAIN:
            for entry in samples(files[item.path], item.count):
                recording.datagram(client(item.name, f"DNS {entry}"), RESOLVER, 53, dns_query(entry))
                hello = client_hello(entry)
                recording.connection(client(item.name, f"TLS {entry}"), SERVER, 443, hello)
                request = http_request(entry)
                recording.connection(client(item.name, f"HTTP {entry}"), SERVER, 80, request, http_answer())
    for name, host, path in _urls(manifest, files):
        request = http_request(host, path)
        recording.connection(client(name, f"URL {host}{path}"), SERVER, 80, request, http_answer())
    if not clients:
        return ()
    found: dict[str, set[str]] = {}
    for event in engine.replay(manifest, files, recording.save(directory / "probes.pcap")):
        for end in (event["src_ip"], event["dest_ip"]):
            found.setdefault(end, set()).add(event["alert"]["signature"])
    return tuple(
        f"list {name} does not act: {what} raised no alert of it"
        for address, (name, what) in clients.items()
        if not any(f"({name})" in signature for signature in found.get(address, ()))
    )


def _urls(manifest: FeedManifest, files: Mapping[str, bytes]) -> Iterator[tuple[str, str, str]]:
    lists = {item.name: item for item in manifest.lists if item.kind is ListKind.TEXT}
    for name, hosts in lists.items():
        paths: PackList | None = lists.get(name.removesuffix(HOSTS) + PATHS)
        if name.endswith(HOSTS) and paths is not None:
            pairs = zip(samples(files[hosts.path], hosts.count), samples(files[paths.path], paths.count), strict=False)
            for host, path in pairs:
                yield name.removesuffix(HOSTS), host, path
