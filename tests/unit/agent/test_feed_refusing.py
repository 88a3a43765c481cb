"""What is refused: why, how often it is told, and that nothing has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_protocol.vocabulary import FeedState
from sim.feed_box import Box
from sim.packs import RULE, PackSource
from sim.repository import status, tree


def test_rules_the_engine_would_not_load(protected: Box) -> None:
    protected.poll()  # what TUF keeps is as new as it will be
    before = tree(protected.paths.feed_store)
    protected.publish(PackSource(serial=2, rules=b"drop broken (sid:1;)\n"))
    protected.poll()
    reason = 'serial 2: engine test failed: error parsing signature "broken"'
    assert protected.shown == (1, FeedState.REFUSED, reason)
    assert protected.events == [(2, FeedState.REFUSED, reason)]
    assert tree(protected.paths.feed_store) == before
    assert protected.active == 1
    assert protected.engine.generation == 2
    assert not any("reload" in command for command in protected.engine.commands)


def test_refused_serial_is_never_tried_again(protected: Box) -> None:
    protected.publish(PackSource(serial=2, rules=b"drop broken (sid:1;)\n"))
    protected.poll()
    protected.server.requests.clear()
    protected.poll()
    protected.boot()
    protected.poll()
    assert not any("pack.tar.gz" in path for path in protected.server.requests)
    assert protected.tests == 1
    assert protected.shown[:2] == (1, FeedState.REFUSED)
    assert "serial 2" in protected.shown[2]
    protected.publish(PackSource(serial=3))
    protected.poll()
    assert protected.shown == (3, FeedState.ACTIVE, "")


def test_older_serial(protected: Box) -> None:
    protected.publish(PackSource(serial=5))
    protected.poll()
    protected.outbox.events.clear()
    before = tree(protected.paths.feed_store)
    protected.publish(PackSource(serial=4))
    for _ in range(3):
        protected.poll()
    assert protected.shown == (5, FeedState.REFUSED, "rollback: serial 4 is older than the active 5")
    assert protected.events == [(5, FeedState.REFUSED, "rollback: serial 4 is older than the active 5")]
    assert tree(protected.paths.feed_store) == before
    assert (protected.active, protected.gate.syncs) == (5, 2)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (PackSource(serial=3), "serial 2: the pack calls itself serial 3"),
        (PackSource(serial=2, channel="other"), "serial 2: the pack is for channel other"),
        (PackSource(serial=2, domains={"dangerous": ("b.test", "a.test")}), "serial 2: list dangerous: not sorted"),
        (PackSource(serial=2, addresses={"blocked": ("0.0.0.0/33",)}), "serial 2: list blocked: a line that is no"),
    ],
)
def test_signed_pack_that_is_not_for_us(protected: Box, source: PackSource, reason: str) -> None:
    before = tree(protected.paths.feed_store)
    protected.repo.publish(source.build(), 2)
    for _ in range(2):
        protected.poll()
    assert protected.shown[:2] == (1, FeedState.REFUSED)
    assert protected.shown[2].startswith(reason)
    assert [event[:2] for event in protected.events] == [(2, FeedState.REFUSED)]
    assert tree(protected.paths.feed_store) == before


def test_newer_engine_needed_is_no_reason_to_quarantine(protected: Box) -> None:
    protected.publish(PackSource(serial=2, engine_min="9.0.0"))
    protected.poll()
    assert protected.shown == (1, FeedState.REFUSED, "needs engine 9.0.0, this is 8.0.8")
    assert protected.store.record.quarantined == ()


def test_gate_that_cannot_take_the_list(protected: Box) -> None:
    protected.gate.capacity = 1
    protected.publish(PackSource(serial=2, addresses={"blocked": ("203.0.113.1", "203.0.113.2")}))
    protected.poll()
    assert protected.active == 1
    assert protected.shown == (1, FeedState.REFUSED, "serial 2: block list: the block list has too many prefixes")
    assert protected.gate.blocked == {"203.0.113.99/32"}


def test_tampered_pack_is_refused_once_and_taken_when_it_is_right(protected: Box) -> None:
    source = PackSource(serial=2)
    place = protected.repo.publish(source.build(), 2)
    protected.repo.files[place] = b"x" + source.build()[1:]
    for _ in range(3):
        protected.poll()
    assert protected.shown[:2] == (1, FeedState.REFUSED)
    assert len(protected.events) == 1
    protected.repo.files[place] = source.build()
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")


def test_trouble_that_goes_away_is_told(protected: Box) -> None:
    good = protected.repo.files["metadata/timestamp.json"]
    protected.repo.files["metadata/timestamp.json"] = b"{}"
    protected.poll()
    assert protected.shown[:2] == (1, FeedState.REFUSED)
    protected.repo.files["metadata/timestamp.json"] = good
    protected.poll()
    assert protected.shown == (1, FeedState.ACTIVE, "")
    assert [event[1] for event in protected.events] == [FeedState.REFUSED, FeedState.ACTIVE]


def test_expired_metadata_is_stale_and_goes_on_protecting(protected: Box) -> None:
    protected.repo.timestamp.expires = protected.repo.timestamp.expires.replace(year=2020)
    protected.repo.resign()
    for _ in range(2):
        protected.poll()
    assert protected.shown == (1, FeedState.STALE, "expired metadata: timestamp expired 2020-01-01T00:00Z")
    assert [event[1] for event in protected.events] == [FeedState.STALE]
    assert protected.active == 1
    assert protected.engine.has("dangerous", "malware.test")


def test_unreachable_repository_is_no_trouble_until_what_we_have_expires(
    protected: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in list(protected.repo.files):
        protected.server.behaviours[path] = status(503)
    protected.server.behaviours["metadata/2.root.json"] = status(503)
    assert 0 < protected.poll() <= 0.1
    assert protected.poll() <= 0.2
    assert protected.shown == (1, FeedState.ACTIVE, "")
    monkeypatch.setattr(protected.clock, "now", lambda: 2_200_000_000.0)
    protected.poll()
    assert protected.shown[:2] == (1, FeedState.STALE)


def test_no_space(protected: Box) -> None:
    protected.store._free_bytes = lambda _path: 100
    protected.publish(PackSource(serial=2))
    protected.poll()
    assert protected.shown == (1, FeedState.REFUSED, "not enough space on the data partition for 1 MiB")
    assert protected.store.record.quarantined == ()
    protected.store._free_bytes = lambda _path: 10**9
    protected.poll()
    assert protected.active == 2


def test_disk_that_does_not_take_the_record(protected: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _record: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("omamori_agent.feed.store.save_record", full)
        protected.publish(PackSource(serial=2))
        protected.poll()
        assert protected.active == 1
    protected.poll()
    assert protected.active == 2


def test_test_that_cannot_be_made(protected: Box) -> None:
    protected.tester.unlink()
    protected.publish(PackSource(serial=2, rules=RULE + b"# more\n"))
    protected.poll()
    assert protected.active == 1
    assert "test could not be made" in protected.shown[2]
    assert protected.store.record.quarantined == ()


def test_engine_configuration_that_names_no_feed(protected: Box) -> None:
    protected.paths.engine_config.write_text("default-rule-path: /elsewhere\n")
    protected.publish(PackSource(serial=2, rules=RULE + b"# more\n"))
    protected.poll()
    assert protected.active == 1
    assert "does not name" in protected.shown[2]
