"""Feed packs for tests, good ones and every kind of bad one. Not the product's writer: it would refuse the bad ones."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable

from omamori_protocol.feed_manifest import MANIFEST_NAME, FeedManifest, ListKind, PackFile, PackList, PackRules
from omamori_protocol.vocabulary import Action, Function, Severity

RULE = b'drop dns any any -> any any (msg:"bad name"; dns.query; to_lowercase; dataset:isset,dangerous; sid:1000001;)\n'


@dataclasses.dataclass
class PackSource:
    """What a pack is made of; change it and call `manifest` or `build`."""

    serial: int = 1
    channel: str = "demo"
    engine_min: str = "8.0.0"
    domains: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: {"dangerous": ("malware.test",)})
    texts: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    digests: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    addresses: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: {"blocked": ("203.0.113.99",)})
    rules: bytes = RULE
    action: Action = Action.BLOCKED

    def files(self) -> dict[str, bytes]:
        lists = self.domains | self.texts | self.digests | self.addresses
        contents = {f"lists/{name}.txt": _lines(lines) for name, lines in lists.items()}
        return contents | {"rules/omamori.rules": self.rules}

    def manifest(self) -> FeedManifest:
        files = self.files()
        kinds = (
            (ListKind.DOMAIN, self.domains, Function.DANGEROUS_SITE),
            (ListKind.TEXT, self.texts, Function.DANGEROUS_SITE),
            (ListKind.SHA256, self.digests, Function.VIRUS),
            (ListKind.IP, self.addresses, Function.DANGEROUS_SITE),
        )
        return FeedManifest(
            serial=self.serial,
            created="2026-11-22T00:00:00Z",
            channel=self.channel,
            engine_min=self.engine_min,
            files=tuple(pack_file(path, data) for path, data in files.items()),
            lists=tuple(
                PackList(
                    name=name,
                    kind=kind,
                    path=f"lists/{name}.txt",
                    count=len(lines),
                    function=function,
                    severity=Severity.TWO,
                    action=self.action,
                )
                for kind, lists, function in kinds
                for name, lines in lists.items()
            ),
            rules=(PackRules(path="rules/omamori.rules", count=self.rules.count(b"sid:")),),
        )

    def build(self) -> bytes:
        return build_pack(self.manifest().to_json(), sorted(self.files().items()))


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def pack_file(path: str, data: bytes) -> PackFile:
    return PackFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def member(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """Return one archive member: header, content, padding."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    info.type = kind
    info.linkname = link
    header = info.tobuf(format=tarfile.USTAR_FORMAT)
    return header + data + bytes(-len(data) % 512)


def build_pack(manifest: bytes, files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a pack with exactly these members."""
    archive = member(MANIFEST_NAME, manifest) + b"".join(member(name, data) for name, data in files) + bytes(1024)
    return pack_archive(archive)


def pack_archive(archive: bytes) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as out:
        out.write(archive)
    return buffer.getvalue()
