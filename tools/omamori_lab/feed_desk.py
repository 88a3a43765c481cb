"""The operator's feed desk in the lab: builds packs, publishes them, and serves spoilt repositories on purpose.

What boxes see is a link; it points to the operator's repository or, for a scene, to a spoilt copy of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import addresses
from .configs import PUBLISHER_CLIENT
from .namespace import Namespace
from .products import call, client_tls, program
from .run import run
from .settings import CHANNEL, LabSettings

_TIMEOUT_S = 60.0
_DANGEROUS_LIST = Path("lists/dangerous.txt")
_MAX_LOG_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class Publication:
    """A feed that was published; `at_s` is Unix time of the moment the repository named it."""

    serial: int
    at_s: float


class FeedDesk:
    """Makes and publishes feeds.

    Args:
        settings: Of the lab.
        outside: Namespace from which the broker is reachable.
        resolver: Its resolv.conf.
    """

    def __init__(self, settings: LabSettings, outside: Namespace, resolver: Path) -> None:
        self._keys = settings.keys
        self._run = settings.run
        self._outside = outside
        self._resolver = resolver
        self._source = self._run / "feed-source"
        self._demo = settings.feed_source
        self._tls = self._run / "tls-publisher"
        self.book = self._run / "feed.book"
        self.repository = self._run / "repository"
        self.served = self._run / "served"
        self.serial = 0
        self._published: Path | None = None
        self._tried: Path | None = None
        self._policy = self._run / "rings.toml"
        self._log = self._run / "nginx" / "nginx.access.log"

    def open(self) -> None:
        """Make the repository and publish the first feed."""
        shutil.copytree(self._demo, self._source)
        client_tls(self._keys, self._tls, PUBLISHER_CLIENT)
        call("omamori-ota", "repository", "init", self._keys, self.repository)
        self.served.symlink_to(self.repository.name)
        self.publish(announce=False)

    def add_dangerous(self, domain: str) -> None:
        """Add a domain to the source of the next feed."""
        path = self._source / _DANGEROUS_LIST
        path.write_text(path.read_text() + f"{domain}\n")

    def remove_dangerous(self, domain: str) -> None:
        """Remove a domain from the source of the next feed."""
        path = self._source / _DANGEROUS_LIST
        path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if line != domain))

    def build(self) -> Path:
        """Build the next pack and return its file."""
        self.serial += 1
        pack = self._run / f"pack-{self.serial}.tar.gz"
        words: list[str | Path] = [self._source, "--serial", str(self.serial), "--channel", CHANNEL, "--out", pack]
        call("omamori-feed", "build", *words, "--history", self._run / "feed-history", "--book", self.book)
        return pack

    def publish(self, *, announce: bool = True, expires: str | None = None) -> Publication:
        """Build and publish the next feed.

        Args:
            announce: Tell the boxes through the broker.
            expires: Lifetime of what is signed, for example ``timestamp=2s``.
        """
        before = self._published
        pack = self.build()
        increment = self._increment(before, pack) if before is not None else None
        return self.publish_pack(pack, self.repository, announce=announce, expires=expires, increment=increment)

    def _increment(self, before: Path, pack: Path) -> Path:
        out = pack.with_name(f"{pack.name}.increment")
        call("omamori-feed", "increment", before, pack, "--out", out)
        return out

    def publish_pack(
        self,
        pack: Path,
        repository: Path,
        *,
        announce: bool,
        expires: str | None = None,
        increment: Path | None = None,
    ) -> Publication:
        """Publish a pack into a repository, with the increment that leads to it if there is one."""
        words: list[str | Path] = ["publish", "feed", self._keys, repository, pack, "--channel", CHANNEL]
        words += ["--expires", expires] if expires else []
        words += ["--increment", increment] if increment else []
        self._ota(*words, announce=announce)
        if repository == self.repository:
            self._published = pack
        return Publication(self.serial, (repository / "metadata" / "timestamp.json").stat().st_mtime)

    def set_policy(self, text: str) -> None:
        """Say which rings candidates go through (TOML, see `omamori_ota.feed_trial`)."""
        self._policy.write_text(text)

    def publish_candidate(self) -> Publication:
        """Build the next feed, offer it to the first ring and tell the boxes."""
        before = self._published
        pack = self.build()
        words: list[str | Path] = [self._keys, self.repository, pack, "--policy", self._policy]
        words += ["--increment", self._increment(before, pack)] if before is not None else []
        self._candidate("publish", *words)
        self._tried = pack
        return Publication(self.serial, (self.repository / "metadata" / "timestamp.json").stat().st_mtime)

    def candidate_step(self, portal: str) -> dict[str, Any]:
        """Ask the portal how the candidate does, and do what the rules say; return what was found and done.

        The question leaves from here, because the page is on the developer's loopback. The broker is in the internet's
        namespace, so boxes are told from there: of the candidate, or of what to go back to.
        """
        words: list[str | Path] = ["candidate", "step", self._keys, self.repository, "--channel", CHANNEL]
        words += ["--policy", self._policy, "--cloud", portal.rstrip("/"), "--json"]
        told: dict[str, Any] = json.loads(call("omamori-ota", *words))
        self.announce()
        return told

    def promote_candidate(self) -> None:
        """Give the candidate to everyone now."""
        self._candidate("promote", self._keys, self.repository)
        self._published = self._tried

    def requests_mark(self) -> int:
        """Return a place in the log of what boxes asked the repository for."""
        return self._log.stat().st_size if self._log.is_file() else 0

    def requests(self, mark: int, form: str) -> int:
        """Return how many requests since a place fit a regular expression."""
        with self._log.open("rb") as log:
            log.seek(mark)
            lines = log.read(_MAX_LOG_BYTES).decode(errors="replace").splitlines()
        return sum(re.search(form, line) is not None for line in lines)

    def _candidate(self, command: str, *words: str | Path) -> None:
        self._ota("candidate", command, *words, "--channel", CHANNEL, announce=True)

    def announce(self, repository: Path | None = None) -> None:
        """Announce what a repository holds (the operator's by default)."""
        self._ota("announce", "feed", self._keys, repository or self.repository, "--channel", CHANNEL, announce=True)

    def refresh(self) -> None:
        """Renew the short-lived signatures."""
        call("omamori-ota", "refresh", self._keys, self.repository)

    def copy(self, name: str) -> Path:
        """Return a copy of the repository as it is now."""
        copy = self._run / f"repository-{name}"
        shutil.copytree(self.repository, copy)
        return copy

    @contextlib.contextmanager
    def serving(self, repository: Path) -> Iterator[None]:
        """Serve another repository instead of the present one for a while; may be nested."""
        present = self.served.readlink()
        self._serve(Path(repository.name))
        try:
            yield
        finally:
            self._serve(present)

    def _serve(self, target: Path) -> None:
        link = self.served.with_name("served.new")
        link.symlink_to(target)
        link.replace(self.served)

    def _ota(self, *words: str | Path, announce: bool) -> None:
        command: list[str | Path] = [program("omamori-ota"), *words]
        if announce:
            broker = f"mqtts://{addresses.SERVICES.domains[0]}:{addresses.BROKER_PORT}"
            command += ["--announce", broker, "--tls-dir", self._tls]
        run(self._outside.command(command, resolver=self._resolver), timeout_s=_TIMEOUT_S)


def spoil_target(repository: Path) -> None:
    """Change one byte of every pack and every increment of a repository copy: no way leads to a good one."""
    for path in (repository / "targets" / "feed" / CHANNEL).iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x01
        path.write_bytes(data)


def spoil_metadata(repository: Path) -> Path:
    """Change the signed part of a repository copy's timestamp so that its signature is wrong; return the file."""
    path = repository / "metadata" / "timestamp.json"
    text = path.read_text()
    year = time.gmtime().tm_year
    changed = text.replace(f'"{year}-', f'"{year + 1}-').replace(f'"{year + 1}-', f'"{year + 2}-')
    path.write_text(changed)
    return path
