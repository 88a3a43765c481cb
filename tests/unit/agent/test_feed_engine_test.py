"""The engine's test of a feed: in portions, without the lists, and not more than the box has memory for."""

from __future__ import annotations

import pytest

from omamori_agent.feed import engine_test
from omamori_protocol.vocabulary import FeedState
from sim.feed_box import Box
from sim.packs import RULE, PackSource


def rules(count: int) -> bytes:
    return RULE + b"".join(b"alert ip any any -> any any (sid:%d;)\n" % number for number in range(2, count + 1))


@pytest.mark.parametrize(("count", "tests"), [(1, 2), (3, 2), (4, 3)])
def test_rules_are_tested_some_at_a_time(
    protected: Box, monkeypatch: pytest.MonkeyPatch, count: int, tests: int
) -> None:
    monkeypatch.setattr(engine_test, "MAX_RULES", 3)
    protected.publish(PackSource(serial=2, rules=rules(count), domains={"dangerous": (), "more": ()}))
    protected.poll()
    assert protected.active == 2
    assert protected.tests == tests  # an empty line, the canary and another empty line end the file


def test_bad_rule_in_a_later_portion(protected: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_test, "MAX_RULES", 3)
    protected.publish(PackSource(serial=2, rules=rules(6) + b"alert broken (sid:9;)\n"))
    protected.poll()
    assert protected.shown[:2] == (1, FeedState.REFUSED)
    assert "broken" in protected.shown[2]
    assert list(protected.store.download_path.parent.iterdir()) == []


LOOKING = """#!/bin/sh
feed=$(sed -n 's/^default-rule-path: //p' "$3")
test -f "$feed/dangerous.lst" && test ! -s "$feed/dangerous.lst" || exit 3
test -s "$feed/malware.sha256" || exit 4
grep -q "load: dangerous.lst" "$feed/datasets.yaml" || exit 5
grep -q 1000 /proc/self/oom_score_adj || exit 6
"""


def test_lists_are_empty_for_the_test_and_digests_are_there(protected: Box) -> None:
    protected.tester.write_text(LOOKING)
    protected.publish(PackSource(serial=2, rules=rules(2), digests={"malware": ("a" * 64,)}))
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")


def test_test_that_is_killed_says_nothing_about_the_feed(protected: Box) -> None:
    good = protected.tester.read_text()
    protected.tester.write_text("#!/bin/sh\nkill -9 $$\n")
    protected.publish(PackSource(serial=2, rules=rules(2)))
    protected.poll()
    assert protected.shown == (1, FeedState.REFUSED, "the engine's test was killed by signal 9")
    assert protected.store.record.quarantined == ()
    protected.tester.write_text(good)
    protected.poll()
    assert protected.active == 2


TELLING = """#!/bin/sh
echo 'E: app-layer-events: event "new_one" not present in enum table.'
echo "E: detect-parse: unknown rule keyword 'no_such_word'."
echo 'E: detect: error parsing signature "alert ip any any -> any any (no_such_word; sid:9;)" at line 9'
exit 1
"""


def test_reason_is_that_of_the_rule_which_was_refused(protected: Box) -> None:
    protected.tester.write_text(TELLING)
    protected.publish(PackSource(serial=2, rules=rules(2)))
    protected.poll()
    assert protected.shown == (
        1,
        FeedState.REFUSED,
        "serial 2: engine test failed: detect-parse: unknown rule keyword 'no_such_word'.",
    )


def test_reason_of_an_engine_that_names_no_rule(protected: Box) -> None:
    protected.tester.write_text("#!/bin/sh\necho 'E: no memory'\nexit 1\n")
    protected.publish(PackSource(serial=2, rules=rules(2)))
    protected.poll()
    assert protected.shown[2] == "serial 2: engine test failed: no memory"
