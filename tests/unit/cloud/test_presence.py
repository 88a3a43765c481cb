"""Who is there, and which state counts."""

from __future__ import annotations

import pytest

from omamori_cloud.presence import SessionMark, is_online, state_counts
from omamori_protocol.vocabulary import Presence

from .makers import NOW_MS, state

KNOWN = SessionMark.of(state(session=b"sessionB", boot=5, since_s=1000))


def test_the_first_state_counts_whatever_it_is() -> None:
    assert state_counts(None, state())
    assert state_counts(None, state(presence=Presence.OFFLINE))


def test_a_birth_always_counts() -> None:
    assert state_counts(KNOWN, state(session=b"sessionC", boot=1, since_s=1))  # data partition made anew


def test_the_will_of_the_newest_session_counts() -> None:
    assert state_counts(KNOWN, state(session=b"sessionB", boot=5, since_s=1000, presence=Presence.OFFLINE))


@pytest.mark.parametrize(("boot", "since_s"), [(4, 2000), (5, 999), (5, 1000)])
def test_a_late_will_of_an_older_session_is_ignored(boot: int, since_s: int) -> None:
    will = state(session=b"sessionA", boot=boot, since_s=since_s, presence=Presence.OFFLINE)
    assert not state_counts(KNOWN, will)


@pytest.mark.parametrize(("boot", "since_s"), [(6, 10), (5, 1001)])
def test_a_will_whose_birth_was_missed_counts(boot: int, since_s: int) -> None:
    assert state_counts(KNOWN, state(session=b"sessionC", boot=boot, since_s=since_s, presence=Presence.OFFLINE))


@pytest.mark.parametrize(
    ("presence", "presence_age_s", "contact_age_s", "online"),
    [
        (Presence.ONLINE, 600, 0, True),
        (Presence.ONLINE, 600, 180, True),
        (Presence.ONLINE, 600, 181, False),  # silent for too long, whatever it said
        (Presence.OFFLINE, 5, 30, False),  # the will arrived after its last word
        (Presence.OFFLINE, 30, 5, True),  # it spoke after the will
        (None, None, 10, True),  # heartbeats, but no state yet
        (Presence.ONLINE, 5, None, False),  # only a retained copy: nothing from the box itself
        (None, None, None, False),
    ],
)
def test_presence(
    presence: Presence | None, presence_age_s: int | None, contact_age_s: int | None, online: bool
) -> None:
    assert (
        is_online(
            presence=presence,
            presence_ms=None if presence_age_s is None else NOW_MS - presence_age_s * 1000,
            last_contact_ms=None if contact_age_s is None else NOW_MS - contact_age_s * 1000,
            now_ms=NOW_MS,
            offline_after_s=180,
        )
        is online
    )
