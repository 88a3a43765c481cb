"""The catalogue of sources, ``sources.toml``: reviewed data, one table a source.

    format = 1

    [[sources]]
    name = "urlhaus"
    kind = "url"                  # rules, domain, ip, url, hash, category, mixed, allow
    format = "csv"                # plain, hosts, adblock, csv, ut1, stix, misp, misp-feed, warninglist, rules, reports
    url = "https://…"             # or file = "…", relative to the catalogue's directory; misp-feed: its directory
    licence = "CC0-1.0"
    attribution = "abuse.ch URLhaus, https://urlhaus.abuse.ch"
    max_bytes = 20_000_000        # of the download
    entries = [1_000, 500_000]    # a plausible number of indicators (rules: of active rules)
    shrink_percent = 20           # what it may lose or gain from one copy to the next
    growth_percent = 60
    engine_min = "8.0.0"
    enabled = true
    lists = { url = "malware-urls", domain = "malware-sites" }     # where its indicators go, see policy.toml
    categories = { games = "games" }      # kind category: the source's category → our list
    column = 2                            # format csv; `where` selects rows by another column
    where = [3, ["online"]]
    has_header = true
    minimum_score = 3                     # format plain: a second column with a number
    skip_files = ["drop.rules"]           # kind rules: what of an archive is left out
    only_files = ["*/lists/*.txt"]        # what of an archive is read (shell patterns on the whole path)
    sids = [2_000_000, 2_999_999]         # kind rules: ids of this source
    rejected_percent = 1                  # kind rules: more rules that the engine refuses mean: not believable
    overrides = "threats"                 # kind allow: threats, everything, all
    ports = "skip"                        # `1.2.3.4:8080`: skip, or take the address
    https_hosts = false                   # take the host of a URL of HTTPS, whose path nobody sees
    bad_percent = 5                       # more bad lines than this, and it is not the list it was

It reads and checks; it fetches nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from omamori_protocol.feed_manifest import MAX_ENTRIES

from .errors import SourceError
from .toml_fields import NAME, VERSION, Fields, read_toml

FILE_NAME = "sources.toml"
FORMAT = 1
MAX_SOURCES = 200
MAX_SOURCE_BYTES = 256 * 1024 * 1024
MAX_SID = 2_147_483_647
# Ids of rules that are written or generated here, and of the rules that belong to the image.
OWN_SIDS = (1_900_000, 1_999_999)
IMAGE_SIDS = (9_900_000, 9_999_999)

_CATEGORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_KIND_NAME = re.compile(r"domain|ip|url|sha256|md5|sha1")
_RULE_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_PATTERN = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9*?._/-]{0,99}")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Kind(StrEnum):
    """What a source holds."""

    RULES = "rules"
    DOMAIN = "domain"
    IP = "ip"
    URL = "url"
    HASH = "hash"
    CATEGORY = "category"
    MIXED = "mixed"
    ALLOW = "allow"


class Format(StrEnum):
    """How it is written."""

    PLAIN = "plain"
    HOSTS = "hosts"
    ADBLOCK = "adblock"
    CSV = "csv"
    UT1 = "ut1"
    STIX = "stix"
    MISP = "misp"
    MISP_FEED = "misp-feed"
    WARNINGLIST = "warninglist"
    RULES = "rules"
    REPORTS = "reports"


class Overrides(StrEnum):
    """What an allow-list has the last word over: lists of threats, every list that blocks, or all lists and rules."""

    THREATS = "threats"
    EVERYTHING = "everything"
    ALL = "all"


class Ports(StrEnum):
    """What an address with a port means: nothing for a box, or the address."""

    SKIP = "skip"
    ADDRESS = "address"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One table of the catalogue; see the module's text for the fields.

    `as_of` is set by the compiler: what ends before it has ended.
    """

    name: str
    kind: Kind
    format: Format
    url: str
    file: str
    licence: str
    attribution: str
    max_bytes: int
    entries: tuple[int, int]
    shrink_percent: int
    growth_percent: int
    engine_min: str
    enabled: bool
    lists: dict[str, str] = dataclasses.field(default_factory=dict)
    categories: dict[str, str] = dataclasses.field(default_factory=dict)
    column: int | None = None
    where: tuple[int, tuple[str, ...]] | None = None
    has_header: bool = False
    minimum_score: int = 0
    skip_files: tuple[str, ...] = ()
    only_files: tuple[str, ...] = ()
    sids: tuple[int, int] = (0, 0)
    rejected_percent: int = 0
    overrides: Overrides = Overrides.THREATS
    ports: Ports = Ports.SKIP
    https_hosts: bool = False
    bad_percent: int = 5
    as_of: datetime | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All sources by name, and the directory that their files are relative to."""

    directory: Path
    sources: tuple[Source, ...]

    def enabled(self) -> tuple[Source, ...]:
        """Return the sources in use, by name."""
        return tuple(source for source in self.sources if source.enabled)

    def find(self, name: str) -> Source:
        """Return a source.

        Raises:
            SourceError: There is none of this name.
        """
        for source in self.sources:
            if source.name == name:
                return source
        raise SourceError(f"no source {name[:40]!r}", hint=", ".join(item.name for item in self.sources)[:200])


def read_catalogue(path: Path) -> Catalogue:
    """Read and check ``sources.toml``.

    Raises:
        SourceError: It breaks a rule; the message says which.
    """
    return parse_catalogue(read_toml(path), path.parent)


def parse_catalogue(body: dict[str, Any], directory: Path) -> Catalogue:
    """Check the parsed TOML.

    Raises:
        SourceError: A key is unknown or missing, a value is not allowed, or a name stands twice, or ids overlap.
    """
    top = Fields(body, FILE_NAME)
    top.number("format", FORMAT, FORMAT)
    sources = sorted((_source(item) for item in top.tables("sources", MAX_SOURCES)), key=lambda item: item.name)
    top.finish()
    names = [item.name for item in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"source twice: {', '.join(twice)}"[:200])
    ranges = sorted((*item.sids, item.name) for item in sources if item.kind is Kind.RULES and item.enabled)
    for (_, last, one), (first, _, other) in itertools.pairwise(ranges):
        if first <= last:
            raise SourceError(f"ids of {one} and {other} overlap")
    return Catalogue(directory=directory, sources=tuple(sources))


def _source(body: object) -> Source:
    name = Fields(body, "source").matching("name", NAME)
    fields = Fields(body, f"source {name}")
    fields.matching("name", NAME)
    kind, form = fields.choice("kind", Kind), fields.choice("format", Format)
    url, file = fields.sentence("url", ""), fields.sentence("file", "")
    _check_place(url, file, fields.what)
    source = Source(
        name=name,
        kind=kind,
        format=form,
        url=url,
        file=file,
        licence=fields.sentence("licence"),
        attribution=fields.sentence("attribution"),
        max_bytes=fields.number("max_bytes", 1, MAX_SOURCE_BYTES),
        entries=fields.pair("entries", MAX_ENTRIES),
        shrink_percent=fields.number("shrink_percent", 0, 100, 10),
        growth_percent=fields.number("growth_percent", 0, 10_000, 30),
        engine_min=fields.matching("engine_min", VERSION, "8.0.0"),
        enabled=fields.truth("enabled", default=True),
        lists=fields.mapping("lists", _KIND_NAME, NAME, 8),
        categories=fields.mapping("categories", _CATEGORY, NAME, 100),
        column=fields.number("column", 0, 63) if fields.has("column") else None,
        where=_where(fields),
        has_header=fields.truth("has_header", default=False),
        minimum_score=fields.number("minimum_score", 0, 1000, 0),
        skip_files=fields.names("skip_files", _RULE_FILE, 100),
        only_files=fields.names("only_files", _PATTERN, 20),
        sids=fields.pair("sids", MAX_SID) if kind is Kind.RULES else (0, 0),
        rejected_percent=fields.number("rejected_percent", 0, 100, 0),
        overrides=fields.choice("overrides", Overrides, Overrides.THREATS),
        ports=fields.choice("ports", Ports, Ports.SKIP),
        https_hosts=fields.truth("https_hosts", default=False),
        bad_percent=fields.number("bad_percent", 0, 50, 5),
    )
    fields.finish()
    _check_sense(source)
    return source


def _where(fields: Fields) -> tuple[int, tuple[str, ...]] | None:
    if not fields.has("where"):
        return None
    inner = fields.tables("where", 2)
    if len(inner) != 2 or type(inner[0]) is not int or not 0 <= inner[0] <= 63 or not isinstance(inner[1], list):
        raise SourceError(f"{fields.what}: where must be a column and a list of values")
    if not 1 <= len(inner[1]) <= 20 or not all(isinstance(value, str) for value in inner[1]):
        raise SourceError(f"{fields.what}: where must be a column and a list of values")
    return inner[0], tuple(inner[1])


def _check_place(url: str, file: str, what: str) -> None:
    if bool(url) == bool(file):
        raise SourceError(f"{what}: needs a url or a file, and not both")
    if file and (file.startswith("/") or ".." in Path(file).parts):
        raise SourceError(f"{what}: file must lie below the catalogue's directory")
    if url:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            parts.port  # noqa: B018 - raises for what is no port
        except ValueError as err:
            raise SourceError(f"{what}: {url[:80]!r} is not a URL") from err
        # Plain HTTP is for a mirror on the same machine, and for tests.
        if (parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK)) or not host:
            raise SourceError(f"{what}: url must be https")
        if parts.username or parts.password or parts.fragment:
            raise SourceError(f"{what}: url must have no user, password or fragment")


def _check_sense(source: Source) -> None:
    what = f"source {source.name}"
    if (source.format is Format.RULES) != (source.kind is Kind.RULES):
        raise SourceError(f"{what}: rules have the format `rules`, and nothing else has")
    if source.format is Format.REPORTS and source.kind is not Kind.ALLOW:
        raise SourceError(f"{what}: accepted reports are of the kind `allow`")
    if source.kind is Kind.RULES and not source.file:
        first, last = source.sids
        if any(first <= high and low <= last for low, high in (OWN_SIDS, IMAGE_SIDS)):
            raise SourceError(f"{what}: ids {OWN_SIDS[0]}-{OWN_SIDS[1]} and {IMAGE_SIDS[0]}-{IMAGE_SIDS[1]} are ours")
    if (source.format is Format.CSV) != (source.column is not None):
        raise SourceError(f"{what}: a column belongs to the format csv, and is needed there")
    if source.format is Format.MISP_FEED and source.url and not source.url.endswith("/"):
        raise SourceError(f"{what}: the url of a MISP feed is a directory and ends with a slash")
    if (source.kind is Kind.CATEGORY) != bool(source.categories):
        raise SourceError(f"{what}: categories belong to the kind `category`, and are needed there")
    if source.format is Format.UT1 and source.kind is not Kind.CATEGORY:
        raise SourceError(f"{what}: the format ut1 is of the kind `category`")
    if (source.kind in {Kind.RULES, Kind.CATEGORY, Kind.ALLOW}) == bool(source.lists):
        raise SourceError(f"{what}: lists say where domains, addresses, URLs and digests go, and only they have one")
