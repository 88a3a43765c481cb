"""A small world of sources for the tests: a catalogue and a policy in a directory, and what changes about them."""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

from omamori_signatures.applications import Application, read_applications
from omamori_signatures.assembly import Assembled, Ingredients, assemble
from omamori_signatures.catalogue import Catalogue, Source, parse_catalogue
from omamori_signatures.engine import Engine
from omamori_signatures.fetch import Fetcher, FetchReport
from omamori_signatures.history import History
from omamori_signatures.policy import Policy, read_policy
from omamori_signatures.source_store import SourceStore

NOW = "2030-01-01T00:00:00Z"
DATA = Path(__file__).resolve().parents[2] / "signatures"
LISTS = {"domain": "c2", "url": "malware-urls", "ip": "bad-addresses", "sha256": "malware-files"}


def table(**fields: Any) -> dict[str, Any]:
    """Return a table of the catalogue with what every one needs."""
    base: dict[str, Any] = {
        "name": "source",
        "kind": "domain",
        "format": "plain",
        "file": "source.txt",
        "licence": "test",
        "attribution": "test",
        "max_bytes": 1_000_000,
        "entries": [0, 100_000],
    }
    base.update(fields)
    if "url" in fields:
        base.pop("file")
    if base["kind"] not in {"rules", "category", "allow"}:
        base.setdefault(
            "lists", {"domain": "c2", "url": "malware-urls", "ip": "bad-addresses", "sha256": "malware-files"}
        )
    if base["kind"] == "rules":
        base.setdefault("sids", [2_000_000, 2_999_999])
    return base


def source_of(**fields: Any) -> Source:
    """Return one source."""
    return parse_catalogue({"format": 1, "sources": [table(**fields)]}, Path("/nowhere")).sources[0]


@dataclasses.dataclass
class World:
    """Files, catalogue, store and history below one directory."""

    root: Path
    tables: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, text: str | bytes, **fields: Any) -> None:
        """Add a source with a file of this content."""
        name = fields.setdefault("name", f"source-{len(self.tables)}")
        self.tables.append(table(**{"file": f"{name}.txt", **fields}))
        self.write(name, text)

    def write(self, name: str, text: str | bytes) -> None:
        """Change the content of a source's file."""
        data = text if isinstance(text, bytes) else textwrap.dedent(text).lstrip("\n").encode()
        (self.root / f"{name}.txt").write_bytes(data)

    @property
    def catalogue(self) -> Catalogue:
        return parse_catalogue({"format": 1, "sources": self.tables}, self.root)

    @property
    def store(self) -> SourceStore:
        return SourceStore(self.root / "store")

    @property
    def history(self) -> History:
        return History(self.root / "history")

    def fetch(self) -> list[FetchReport]:
        """Take over the files."""
        catalogue = self.catalogue
        return Fetcher(catalogue, self.store, None, lambda: NOW).fetch_all(catalogue.enabled())

    def assemble(
        self,
        serial: int = 1,
        *,
        engine: Engine | None = None,
        policy: Policy | None = None,
        applications: tuple[Application, ...] = (),
        created: str = NOW,
    ) -> Assembled:
        """Fetch and make a pack."""
        self.fetch()
        ingredients = Ingredients(
            catalogue=self.catalogue,
            policy=policy or read_policy(DATA / "policy.toml"),
            applications=applications,
            store=self.store,
            engine=engine,
        )
        history = self.history.write(serial, created)
        return assemble(ingredients, serial=serial, created=created, channel="demo", history=history)


def entries(made: Assembled, name: str) -> list[str]:
    """Return the entries of a list of a pack."""
    return made.files[f"lists/{name}.txt"].decode().splitlines()


def shipped_applications() -> tuple[Application, ...]:
    """Return the catalogue of applications as shipped."""
    return read_applications(DATA / "applications.toml")
