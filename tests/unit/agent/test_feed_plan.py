"""What has to happen from one feed to another."""

from __future__ import annotations

from omamori_agent.feed.plan import make_plan
from omamori_agent.feed.stored import EMPTY
from omamori_protocol.vocabulary import Action
from sim.packs import PackSource


def test_plan_for_the_same_feed_is_nothing() -> None:
    plan = make_plan(PackSource(serial=1).manifest(), PackSource(serial=2).manifest())
    assert (plan.needs_test, plan.restarts, plan.reloads, plan.changed_lists, plan.changes_blocks) == (
        False,
        False,
        False,
        (),
        False,
    )


def test_plan_from_nothing() -> None:
    plan = make_plan(EMPTY, PackSource().manifest())
    assert plan.needs_test
    assert plan.restarts
    assert not plan.reloads
    assert plan.changes_blocks
    assert plan.changed_lists == ()


def test_plan_for_entries() -> None:
    old = PackSource(domains={"a": ("1.test",), "b": ("1.test",)}).manifest()
    new = PackSource(domains={"a": ("1.test",), "b": ("2.test",)}).manifest()
    assert make_plan(old, new).changed_lists == ("b",)
    assert not make_plan(old, new).needs_test


def test_plan_for_a_list_that_changes_what_it_is() -> None:
    old = PackSource(domains={"a": ("1.test",), "b": ("1.test",)}).manifest()
    new = PackSource(domains={"b": ("1.test",)}, digests={"a": ("0" * 64,)}).manifest()
    plan = make_plan(old, new)
    assert plan.needs_test
    assert plan.reloads
    assert make_plan(new, old).restarts


def test_plan_for_a_list_that_only_logs_now() -> None:
    old, new = PackSource(), PackSource(action=Action.LOGGED)
    plan = make_plan(old.manifest(), new.manifest())
    assert plan.changes_blocks
    assert not plan.needs_test
