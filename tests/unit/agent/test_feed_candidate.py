"""Candidates and the way back from one: which box takes what, and what a withdrawn serial leads to."""

from __future__ import annotations

import contextlib
import hashlib

import pytest

from omamori_protocol.feed_offer import FeedOffer
from omamori_protocol.rings import position
from omamori_protocol.topics import candidate_target
from omamori_protocol.vocabulary import FeedState
from sim.feed_box import Box, Killed, changed_rules, kill
from sim.packs import PackSource

DEVICE = "ZA35-000001"  # of the box in these tests
PLACE = position(DEVICE, "demo")


def offer_candidate(box: Box, source: PackSource, permille: int) -> None:
    digest = hashlib.sha256(source.manifest().to_json()).hexdigest()
    offer = FeedOffer(source.serial, digest, permille=permille)
    box.repo.put_target(source.build(), offer.to_custom(), path=candidate_target("demo"))
    box.repo.sign_all()


def withdraw(box: Box, back_to: PackSource, *serials: int) -> None:
    box.repo.feed.targets.pop(candidate_target("demo"), None)
    offer = FeedOffer(back_to.serial, hashlib.sha256(back_to.manifest().to_json()).hexdigest(), withdrawn=serials)
    box.repo.put_target(back_to.build(), offer.to_custom())
    box.repo.sign_all()


def test_a_candidate_is_taken_once_it_reaches_this_box(protected: Box) -> None:
    offer_candidate(protected, changed_rules(2), PLACE)
    protected.poll()
    assert protected.shown == (1, FeedState.ACTIVE, "")
    offer_candidate(protected, changed_rules(2), PLACE + 1)
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")


def test_an_old_or_spoilt_candidate_leaves_the_channels_pack(protected: Box) -> None:
    protected.publish(PackSource(serial=5))
    offer_candidate(protected, PackSource(serial=4), 1000)
    protected.poll()
    assert protected.shown == (5, FeedState.ACTIVE, "")
    protected.repo.put_target(b"x", {"format": 1, "serial": "six"}, path=candidate_target("demo"))
    protected.publish(PackSource(serial=6))
    protected.poll()
    assert protected.shown == (6, FeedState.ACTIVE, "")


def test_a_withdrawn_candidate_leads_back_and_is_never_taken_again(protected: Box) -> None:
    everyones = PackSource(serial=5)
    protected.publish(everyones)
    protected.poll()
    offer_candidate(protected, changed_rules(6), 1000)
    protected.poll()
    assert protected.active == 6
    withdraw(protected, everyones, 6)
    protected.poll()
    assert protected.shown == (5, FeedState.ACTIVE, "")
    offer_candidate(protected, changed_rules(6), 1000)
    protected.poll()
    protected.boot()
    protected.poll()
    assert protected.active == 5
    protected.publish(PackSource(serial=7))
    protected.poll()
    assert protected.shown == (7, FeedState.ACTIVE, "")


def test_only_the_named_serial_leads_back(protected: Box) -> None:
    protected.publish(PackSource(serial=6))
    protected.poll()
    withdraw(protected, PackSource(serial=5), 7)
    protected.poll()
    assert protected.shown == (6, FeedState.REFUSED, "rollback: serial 5 is older than the active 6")


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("name", ["remember", "switch", "replace_block", "prune"])
def test_a_kill_on_the_way_back_is_made_good(protected: Box, name: str, *, is_after: bool) -> None:
    everyones = PackSource(serial=5)
    protected.publish(everyones)
    protected.poll()
    offer_candidate(protected, changed_rules(6), 1000)
    protected.poll()
    withdraw(protected, everyones, 6)
    bring_back = kill(protected, name, 1, is_after=is_after)
    with contextlib.suppress(Killed):
        protected.poll()
    bring_back()
    protected.boot()
    protected.poll()
    assert protected.active == 5
    assert protected.store.record.quarantine_reason(6) == "withdrawn by the publisher"


def test_boxes_that_are_not_meant_ask_no_more_often(protected: Box) -> None:
    offer_candidate(protected, changed_rules(2), PLACE)
    protected.worker.on_announcement(2)
    assert protected.poll() >= protected.limits.poll_s * (1 - protected.limits.poll_jitter)
    protected.worker.on_announcement(3)  # which the repository does not have yet
    assert protected.poll() <= protected.limits.retry_cap_s


def test_announcement_of_what_to_go_back_to_is_followed_at_once(protected: Box) -> None:
    protected.publish(PackSource(serial=5))
    protected.poll()
    offer_candidate(protected, changed_rules(6), 1000)
    protected.poll()
    worker = protected.worker
    worker.on_announcement(6)
    assert not worker._wake.is_set()  # that one is known
    worker.on_announcement(5)
    assert worker._wake.is_set()
    withdraw(protected, PackSource(serial=5), 6)
    assert protected.poll() >= protected.limits.poll_s * (1 - protected.limits.poll_jitter)
    assert protected.active == 5
    worker._wake.clear()
    worker.on_announcement(5)
    assert not worker._wake.is_set()
