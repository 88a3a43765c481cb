"""The feed pack between its two parts: what `signatures` writes, the agent takes and turns into what was meant."""

from __future__ import annotations

import base64
from pathlib import Path

from omamori_agent.feed.block_entries import entries
from omamori_agent.feed.lists import changes
from omamori_agent.feed.plan import make_plan
from omamori_agent.feed.store import FeedStore
from omamori_protocol.feed_manifest import ListKind
from omamori_signatures.compiler import compile_feed
from omamori_signatures.pack_writer import write_pack
from sim.box import make_box

DEMO = Path(__file__).resolve().parents[2] / "signatures" / "demo"


def test_demonstration_feed_in_the_agents_store(tmp_path: Path) -> None:
    compiled = compile_feed(DEMO, serial=7, created="2026-11-22T00:00:00Z", channel="demo")
    store = FeedStore(make_box(tmp_path), reserve_bytes=0)
    store.recover()
    store.download_path.write_bytes(write_pack(compiled.manifest, compiled.files))
    feed = store.add(7, lambda _manifest: None)
    engine = feed.directory / "engine"
    lists = feed.manifest.lists
    for item in lists:
        path = feed.directory / item.path
        if item.kind is ListKind.DOMAIN:
            lines = (engine / f"{item.name}.lst").read_bytes().splitlines()
            assert [base64.b64decode(line) for line in lines] == path.read_bytes().splitlines()
            assert all(is_added for is_added, _line in changes(None, path))
        elif item.kind is ListKind.SHA256:
            assert (engine / f"{item.name}.sha256").read_text()
    assert {line for line, _number in entries(feed)} >= {b"203.0.113.99", b"2001:db8:bad::99"}
    rules = [line for line in (engine / "all.rules").read_text().splitlines() if line and not line.startswith("#")]
    assert len(rules) == feed.rule_count + 1 > 1  # and the canary
    declared = (engine / "datasets.yaml").read_text()
    assert all(f"  {item.name}:\n" in declared for item in lists if item.kind is ListKind.DOMAIN)
    assert make_plan(store.current().manifest, feed.manifest).restarts
