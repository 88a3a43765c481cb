"""A small source directory for the tests of omamori_signatures."""

from __future__ import annotations

from pathlib import Path

import pytest

FEED = """\
format = 1
engine_min = "8.0.0"

[[rules]]
file = "rules/own.rules"
sids = [1900000, 1900009]
licence = "Apache-2.0"
origin = "test"

[[lists]]
name = "dangerous"
kind = "domain"
file = "lists/dangerous.txt"
function = "dangerous-site"
severity = 2
action = "blocked"
direction = "out"
sid = 1910000
licence = "Apache-2.0"
origin = "test"

[[lists]]
name = "addresses"
kind = "ip"
file = "lists/addresses.txt"
function = "firewall"
severity = 1
action = "blocked"
licence = "Apache-2.0"
origin = "test"
allow_documentation_addresses = true
"""
RULE = (
    'drop http any any -> any any (msg:"OMAMORI Test; quoted \\" too"; http.uri; content:"/x;y"; '
    "metadata:omamori_function ips, omamori_severity 1, omamori_direction in; sid:1900001; rev:1;)"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    for folder in ("lists", "rules"):
        (directory / folder).mkdir(parents=True)
    (directory / "feed.toml").write_text(FEED)
    (directory / "rules/own.rules").write_text(f"# own rules\n{RULE}\n")
    (directory / "lists/dangerous.txt").write_text("phishing.test\nMALWARE.test. # twice\nwww.malware.test\n")
    (directory / "lists/addresses.txt").write_text("203.0.113.99\n2001:db8:bad::/48\n2001:db8:bad::99\n")
    return directory
