"""A small feed book: a listed name, an address, a digest, a rule, a URL, and what is left out."""

from __future__ import annotations

from pathlib import Path

from omamori_protocol.accepted_reports import AcceptedReport, render_reports
from omamori_signatures.book_writer import write_book

from .feed_world import World

RULE = (
    'alert dns $HOME_NET any -> any any (msg:"ET TROJAN Beacon"; dns.query; content:"evil"; classtype:trojan-activity; '
    "sid:2000001; rev:2; metadata:created_at 2020_01_01, signature_severity Major, confidence High;)"
)
DIGEST = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
LISTED = f"phishing.test\nshop.example\n9.8.0.0/16\nhttp://files.example/a/b.exe\n{DIGEST}\nbank.example\n"


class FeedOffice:
    """An operator's publisher: sources, packs, and the book of the newest one.

    Args:
        root: Directory for all of it; made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.world = World(root)
        self.book = root / "feed.book"
        self.allow_file = root / "reports.tsv"
        self.world.add(
            LISTED, name="maltrail", kind="mixed", licence="MIT", attribution="Maltrail, https://example.org"
        )
        self.world.add("shop.example\n", name="urlhaus", licence="CC0-1.0", attribution="URLhaus, https://example.com")
        self.world.add("bank.example\n", name="allow-popular", kind="allow")
        self.world.add(f"{RULE}\n", name="et-open", kind="rules", format="rules", licence="BSD-3-Clause")
        self.world.add(
            render_reports([]),
            name="allow-reports",
            kind="allow",
            format="reports",
            overrides="all",
            file="reports.tsv",
        )
        self.allow_file.write_bytes(render_reports([]))

    def accept(self, *reports: AcceptedReport) -> None:
        """Write the file that the cloud writes."""
        self.allow_file.write_bytes(render_reports(reports))

    def make(self, serial: int, created: str = "2026-09-20T00:00:00Z") -> None:
        """Compile the pack of a serial and write its book."""
        self.world.assemble(serial, created=created)
        write_book(self.world.history, serial, self.book)
