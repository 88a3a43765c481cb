"""Twenty thousand rules in one pack, on the whole way: repository, worker, the engine's own test, live reload.

Rules are real ones where the machine has some (`sim.real_data`), else generated. Seconds are measured by `omamori-lab
bench feed`, with 40 000 rules and a million names too; no time is asserted here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_agent.feed.limits import FeedLimits
from omamori_firmware.errors import ImageError
from omamori_lab.feed_lane import Peak
from omamori_lab.feed_packs import write_feed_pack
from omamori_lab.feed_questions import Questions
from omamori_lab.native_wire import obtain_programs
from omamori_lab.public_rules import obtain_public_rules
from omamori_lab.rule_set import RuleSet
from omamori_lab.served_feed_lane import ServedFeedLane
from omamori_protocol.feed_manifest import ListKind
from omamori_protocol.vocabulary import FeedState
from sim.real_data import real_data

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

COUNT = 20_000
LIMITS = FeedLimits(settle_s=1.0, settle_poll_s=0.1, reconcile_s=0.5, min_gap_s=0.2, reserve_bytes=0)
# What the rest of a box of 1 GiB needs (docs/adr/0024) is not the engine's.
BUDGET_MIB = 1024 - 220


def directories() -> list[Path]:
    try:
        return [real_data("etopen")]
    except pytest.skip.Exception:
        return []


def pack(directory: Path, serial: int, rules: RuleSet) -> Path:
    path = directory / f"{serial}.tar.gz"
    write_feed_pack(path, serial, rules, {"names": (ListKind.DOMAIN, [b"malware.test"])})
    return path


def test_twenty_thousand_rules_are_switched_to_without_a_lost_packet(tmp_path: Path) -> None:
    try:
        programs = obtain_programs()
    except ImageError as err:
        pytest.skip(f"no engine: {err}")
    lane = ServedFeedLane(*programs, LIMITS)
    try:
        lane.start()
        # Some more than wanted: the engine does not load each of them, and a box would refuse the whole pack.
        loadable = lane.loadable(obtain_public_rules(directories(), COUNT + 1000))
        text = b"".join(loadable.text.splitlines(keepends=True)[:COUNT])
        rules = RuleSet(text=text, count=text.count(b"\n"), origin=loadable.origin)
        assert rules.count == COUNT
        lane.publish(pack(tmp_path, 1, RuleSet(text=b"", count=0, origin="none")), 1)
        lane.work()
        lane.wait_shown(1, FeedState.ACTIVE)
        run_id, deaths, peak = lane.control.run_id(), lane.deaths, Peak(lane.lane.directory)
        with lane.probing() as probes, peak.sampling():
            lane.publish(pack(tmp_path, 2, rules), 2)
            lane.wait_shown(2, FeedState.ACTIVE, timeout_s=600)
        assert (lane.control.run_id(), lane.deaths) == (run_id, deaths)
        stats = lane.control.ruleset_stats()
        assert stats.failed == 0
        assert stats.loaded >= COUNT
        assert probes.sent > 0
        assert probes.sent - probes.received == 0
        assert 100 < peak.mib < BUDGET_MIB
        with Questions(lane.lane) as questions:
            assert questions.is_answered("good.test", patience_s=10)
            questions.first_unanswered_s("malware.test", timeout_s=60)
    finally:
        lane.stop()
