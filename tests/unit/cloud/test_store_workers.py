"""Several writers at the same moment, with the same messages: everything once, sums right, nobody in another's way."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest
from sqlalchemy import func, select

from omamori_cloud.intake import Message, Refusal, RefusalReason
from omamori_cloud.store import schema
from omamori_cloud.store.installation import share_name
from omamori_cloud.store.writer import Writer
from omamori_protocol.vocabulary import EventKind, FirmwareState, Presence

from .makers import BOTH, NOW_MS, Bench, MakeBench, alert, heartbeat, ledger_event, reported, state

ENGINES = BOTH
BOXES = [f"ZA35-0000{number:02}" for number in range(12)]
WORKERS, PER_BOX = 4, 20


def deliveries(rng: random.Random) -> list[Message | Refusal]:
    """Return what one worker gets: all events of all boxes, in an order of its own."""
    items: list[Message | Refusal] = []
    for device in BOXES:
        for number in range(PER_BOX):
            bodies = [
                alert(boot=1, seq=2 * number),
                ledger_event(boot=1, seq=2 * number + 1, packets=number, size_bytes=1, uninspected_s=1),
                heartbeat(boot=1, seq=number, uptime_s=number),
            ]
            items += [Message(device=device, body=body, received_ms=NOW_MS + number) for body in bodies]
        items.append(Refusal(device=device, reason=RefusalReason.MALFORMED, detail="x", received_ms=NOW_MS))
        firmware = {"kind": EventKind.FIRMWARE, "firmware": "2", "firmware_state": FirmwareState.TRYING, "boot": 1}
        for seq in (1001, 1000):
            items.append(Message(device=device, body=alert(seq=seq, text=str(seq), **firmware), received_ms=NOW_MS))
    rng.shuffle(items)
    # What goes to every worker, one after the other.
    for device in BOXES:
        for number, presence in ((1, Presence.ONLINE), (1, Presence.OFFLINE), (2, Presence.ONLINE)):
            body = state(session=b"session%d" % number, since_s=number, presence=presence)
            items.append(Message(device=device, body=body, received_ms=NOW_MS))
        items += [Message(device=device, body=reported(version=n), received_ms=NOW_MS) for n in (1, 2, 3)]
    return items


@pytest.mark.timeout(300)
def test_workers_with_the_same_messages_store_each_once(make_bench: MakeBench) -> None:
    bench = make_bench()
    failures: list[Exception] = []
    totals: Counter[str] = Counter()
    barrier = threading.Barrier(WORKERS)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        writer = Writer(bench.engine, bench.limits)
        items = deliveries(rng)
        try:
            barrier.wait(60)
            while items:
                size = rng.randrange(1, 120)
                report = writer.store(items[:size])
                totals.update(events=report.events, ledger=report.ledger)
                items = items[size:]
        except Exception as err:  # noqa: BLE001 - whatever it is, the test shows it
            failures.append(err)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(280)
    assert failures == []

    boxes = len(BOXES)
    assert totals == {"events": boxes * (PER_BOX + 2), "ledger": boxes * PER_BOX}
    with bench.engine.connect() as connection:
        counts = {
            table: connection.scalar(select(func.count()).select_from(table))
            for table in (schema.Event, schema.LedgerEntry, schema.Heartbeat)
        }
    assert list(counts.values()) == [boxes * (PER_BOX + 2), boxes * PER_BOX, WORKERS * boxes * PER_BOX]
    for box in bench.reader.boxes():
        assert box.ledger[0].packets == sum(range(PER_BOX))
        assert (box.ledger[0].seconds, box.ledger[0].size_bytes) == (PER_BOX, PER_BOX)
        assert box.uptime_s == PER_BOX - 1  # of the newest heartbeat
        assert box.last_contact_ms == NOW_MS + PER_BOX - 1
        assert box.refused == WORKERS
        assert box.presence is Presence.ONLINE
        assert box.settings is not None
        assert box.settings.version == 3
        assert box.update is not None
        assert box.update.detail == "1001"


def test_all_workers_share_under_one_name_that_nobody_guesses(bench: Bench, make_bench: MakeBench) -> None:
    name = share_name(bench.engine)
    assert name == share_name(make_bench().engine)
    assert len(name.removeprefix("ingest-")) == 32
