"""What a box tells of its supervisor and its power, in the store."""

from __future__ import annotations

import dataclasses

import cbor2

from omamori_cloud.facts import SupervisorFacts
from omamori_cloud.intake import Delivery, Message, Refusal, take_in
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind, PowerKind, Presence

from .makers import BOTH, BOX, NOW_MS, OTHER_BOX, Bench, heartbeat, power_event, state, supervisor_state

ENGINES = BOTH
TOLD = supervisor_state()


def supervisor(bench: Bench, device: str = BOX) -> SupervisorFacts | None:
    box = bench.reader.box(device)
    assert box is not None
    return box.supervisor


def beat(bench: Bench, seq: int, **figures: int) -> None:
    bench.now_ms += 60_000
    bench.say(heartbeat(seq=seq, **figures))


def test_a_board_without_a_supervisor(bench: Bench) -> None:
    bench.say(state())
    beat(bench, 1)
    assert supervisor(bench) is None


def test_facts_come_with_the_state_and_figures_in_turn_with_heartbeats(bench: Bench) -> None:
    bench.say(state(supervisor=TOLD))
    told = supervisor(bench)
    assert told is not None
    assert (told.celsius, told.millivolts) == (None, None)
    assert {**dataclasses.asdict(told)}.items() >= dataclasses.asdict(TOLD).items()
    beat(bench, 1, millivolts=3300)
    beat(bench, 2, celsius=-3)
    told = supervisor(bench)
    assert told is not None
    assert (told.celsius, told.celsius_ms) == (-3, NOW_MS + 120_000)
    assert (told.millivolts, told.millivolts_ms) == (3300, NOW_MS + 60_000)
    bench.say(heartbeat(seq=1, celsius=99))  # late: what came after it counts
    told = supervisor(bench)
    assert told is not None
    assert told.celsius == -3


def test_both_figures_in_one_batch_and_of_each_box_its_own(bench: Bench) -> None:
    bodies = [(BOX, heartbeat(seq=1, celsius=40)), (BOX, heartbeat(seq=2, millivolts=3310))]
    bodies += [(OTHER_BOX, heartbeat(seq=1, celsius=50)), (OTHER_BOX, heartbeat(seq=2))]
    bench.writer.store([Message(device=device, body=body, received_ms=NOW_MS) for device, body in bodies])
    for device in (BOX, OTHER_BOX):
        bench.say(state(supervisor=TOLD), device=device)
    found = [supervisor(bench, device) for device in (BOX, OTHER_BOX)]
    assert [(one.celsius, one.millivolts) for one in found if one] == [(40, 3310), (50, None)]


def test_a_state_without_a_supervisor_takes_it_away_and_a_will_does_not(bench: Bench) -> None:
    bench.say(state(supervisor=TOLD))
    bench.say(state(presence=Presence.OFFLINE))
    assert supervisor(bench) is not None
    bench.say(state(session=b"sessionB", boot=2))
    assert supervisor(bench) is None


def test_a_kind_of_a_newer_version_is_not_known(bench: Bench) -> None:
    bench.say(state(supervisor=TOLD))
    with bench.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql('UPDATE states SET supervisor = \'{"answers": true, "power_kind": 99, "new": 1}\'')
    told = supervisor(bench)
    assert told == SupervisorFacts(answers=True)


def test_a_power_event_delivered_twice_is_stored_once(bench: Bench) -> None:
    message = Message(device=BOX, body=power_event(), received_ms=NOW_MS)
    assert bench.writer.store([message, message]).events == 1
    assert bench.writer.store([message]).duplicates == 1
    (event,) = bench.reader.happenings(10)
    assert (event.kind, event.power_kind, event.power_serial) == (EventKind.POWER, PowerKind.SHORT_PULL, 4)
    assert (event.power_ms, event.text) == (5012, "power: short-pull, 5012 ms")


def test_a_power_event_without_a_kind_is_refused() -> None:
    def take(event: Event) -> Message | Refusal:
        return take_in(Delivery(topic=f"omamori/v1/{BOX}/evt", payload=event.encode(), received_ms=NOW_MS))

    assert isinstance(take(power_event()), Message)
    taken = take(power_event(power_kind=None))
    assert isinstance(taken, Refusal)
    assert (taken.reason, taken.detail) == ("malformed", "evt: a power event without a kind")


def test_one_more_than_a_bound_inside_a_state_is_refused() -> None:
    body = cbor2.loads(state(supervisor=TOLD).encode())
    assert body[20][2] == "1.4.0"
    body[20][2] = "v" * 33
    taken = take_in(
        Delivery(topic=f"omamori/v1/{BOX}/state", payload=cbor2.dumps(body, canonical=True), received_ms=NOW_MS)
    )
    assert isinstance(taken, Refusal)
    assert taken.reason == "oversize"
