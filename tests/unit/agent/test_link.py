"""The link says who is here, empties the spool exactly as far as the broker confirmed, and bears everything else."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omamori_agent.config import AgentConfig, LinkLimits, SpoolLimits
from omamori_agent.identity import Identity, IdentityHolder
from omamori_agent.link import LinkWorker
from omamori_agent.link.broker import Received, Waker
from omamori_agent.spool import Spool, SpoolUnavailableError
from omamori_agent.status import StatusBoard
from omamori_protocol import cbor
from omamori_protocol.messages import Event, FeedAnnouncement, State
from omamori_protocol.topics import feed_announcement
from omamori_protocol.vocabulary import EngineState, EventKind, FeedState, Leaving, Presence, RunEnd, Severity
from sim.box import DEVICE, box_config
from sim.broker import SimulatedBroker, SimulatedConnection
from sim.clock import ManualClock
from sim.desired import SimulatedDesired, SimulatedJobs

LIMITS = LinkLimits(
    reconnect_first_s=0.01,
    reconnect_cap_s=0.02,
    refused_first_s=0.01,
    again_first_s=0.02,
    refused_cap_s=0.03,
    stable_after_s=1000,
    doubt_s=0.0,
)
STATE_TOPIC = f"omamori/v1/{DEVICE}/state"


class RealTime(ManualClock):
    """Wall clock under control, monotonic one real: the link's thread is real too."""

    def monotonic(self) -> float:
        return time.monotonic() + self.monotonic_s


class Box:
    """A link worker with everything around it."""

    def __init__(self, root: Path, limits: LinkLimits = LIMITS) -> None:
        config: AgentConfig = dataclasses.replace(box_config(root), link=limits)
        self.config = config
        self.clock = RealTime(monotonic_s=0.0)
        self.broker = SimulatedBroker()
        self.holder = IdentityHolder()
        self.status = StatusBoard()
        self.spool = Spool(config.paths.spool, SpoolLimits(), self.clock)
        self.spool.open()
        self.announced: list[int] = []
        self.desired = SimulatedDesired()
        self.jobs = SimulatedJobs()
        self.channel = "demo"
        self.worker = LinkWorker(
            config=config,
            broker=self.broker,
            holder=self.holder,
            spool=self.spool,
            status=self.status,
            clock=self.clock,
            on_announcement=self.announced.append,
            desired=self.desired,
            jobs=self.jobs,
            channel=lambda: self.channel,
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.worker.run, args=(self.stop,))

    def enrol(self, expires_s: int = 2_000_000_000) -> None:
        path = self.config.paths.identity
        self.holder.set(
            Identity(device=DEVICE, key_path=path / "k", certificate_path=path / "c", begins_s=0, expires_s=expires_s)
        )

    def put(self, *texts: str) -> None:
        at_ms = int(self.clock.now() * 1000)  # old ones would be paced
        self.spool.put([Event(boot=0, seq=0, at_ms=at_ms, kind=EventKind.SYSTEM, text=text) for text in texts])

    def sent_texts(self) -> list[str | None]:
        return [Event.decode(item).text for item in self.broker.payloads("evt")]

    @property
    def connection(self) -> SimulatedConnection:
        return self.broker.connections[-1]

    @property
    def states(self) -> list[State]:
        return [State.decode(item) for item in self.broker.payloads("state")]

    def end(self) -> None:
        self.stop.set()
        self.thread.join(5)
        assert not self.thread.is_alive()
        self.spool.close()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    one = Box(tmp_path)
    one.enrol()
    one.thread.start()
    yield one
    one.end()


def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for a state, not for a time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "this never happened"
        time.sleep(0.002)


def test_birth_and_will_belong_to_one_session(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    birth = box.states[0]
    will = State.decode(box.connection.hello.will_payload)
    assert (birth.presence, will.presence) == (Presence.ONLINE, Presence.OFFLINE)
    assert birth.session == will.session
    assert birth.certificate_expires_s == 2_000_000_000
    assert (birth.firmware, birth.flavour, birth.model) == ("2026.11.1", "dev", "ZA-SA3500N")
    message = box.broker.published[0]
    assert (message.topic, message.retain, message.confirmed) == (STATE_TOPIC, True, True)
    assert box.connection.hello.client_id == DEVICE
    assert box.connection.hello.will_topic == STATE_TOPIC
    assert box.connection.subscriptions == [
        feed_announcement("demo"),
        f"omamori/v1/{DEVICE}/desired",
        f"omamori/v1/{DEVICE}/cmd",
    ]


def test_each_connection_is_a_session_of_its_own(box: Box) -> None:
    eventually(lambda: box.states)
    box.broker.is_up = False
    eventually(lambda: not box.status.get().connected)
    box.broker.is_up = True
    eventually(lambda: len(box.states) == 2)
    assert box.states[0].session != box.states[1].session


def test_nothing_happens_before_the_box_is_enrolled(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.thread.start()
    time.sleep(0.05)
    assert box.broker.attempts == 0
    box.enrol()
    eventually(lambda: box.states)
    box.end()


def test_state_follows_the_feed_and_nothing_else(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.status.update(engine=EngineState.INSPECTING, uninspected_s=5.0)
    box.status.update(feed_serial=7, feed_state=FeedState.ACTIVE)
    eventually(lambda: len(box.states) == 2)
    box.status.update(feed_state=FeedState.REFUSED, feed_reason="bad\nrule " + "x" * 400)
    eventually(lambda: len(box.states) == 3)
    assert [(item.feed_serial, item.feed_state) for item in box.states] == [
        (0, FeedState.NONE),
        (7, FeedState.ACTIVE),
        (7, FeedState.REFUSED),
    ]
    assert str(box.states[2].feed_reason).startswith("bad rule xxx")
    assert len({item.session for item in box.states}) == 1


def test_events_go_out_in_order_and_leave_the_spool(box: Box) -> None:
    box.put(*map(str, range(40)))
    eventually(lambda: box.spool.status().events == 0)
    assert box.sent_texts() == [str(number) for number in range(40)]
    box.put("later")
    eventually(lambda: box.spool.status().events == 0)
    assert box.sent_texts()[-1] == "later"


def test_unacknowledged_events_stay_and_the_window_holds(box: Box) -> None:
    eventually(lambda: box.status.get().connected and not box.connection.unanswered)
    box.broker.answers = False
    box.put(*map(str, range(40)))
    eventually(lambda: len(box.sent_texts()) == 14)
    time.sleep(0.05)
    assert len(box.sent_texts()) == 14  # two places of the 16 are kept for the state and the report
    assert box.spool.status().events == 40
    box.status.update(feed_serial=9)
    box.desired.report(b"report")
    eventually(lambda: len(box.states) == 2 and box.broker.payloads("reported"))
    assert box.broker.most_unanswered == 16
    box.connection.answer()
    eventually(lambda: len(box.sent_texts()) == 15)
    assert box.spool.status().events == 39


def test_smaller_window_of_the_broker_is_respected(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.broker.receive_maximum = 4
    box.broker.answers = False
    box.put(*map(str, range(10)))
    box.enrol()
    box.thread.start()
    box.desired.report(b"report")
    eventually(lambda: len(box.sent_texts()) == 2 and box.broker.payloads("reported"))
    time.sleep(0.05)
    assert box.broker.most_unanswered == 4
    box.end()


def test_lost_connection_sends_again_what_was_not_acknowledged(box: Box) -> None:
    eventually(lambda: box.status.get().connected and not box.connection.unanswered)
    box.broker.answers = False
    box.put("a", "b", "c")
    eventually(lambda: len(box.sent_texts()) == 3)
    box.connection.answer()
    eventually(lambda: box.spool.status().events == 2)
    box.broker.is_up = False
    eventually(lambda: not box.status.get().connected)
    box.put("d")
    box.broker.answers = True
    box.broker.is_up = True
    eventually(lambda: box.spool.status().events == 0)
    assert box.sent_texts() == ["a", "b", "c", "b", "c", "d"]
    numbers = {Event.decode(item).seq for item in box.broker.payloads("evt")}
    assert numbers == {1, 2, 3, 4}  # the same numbers again: the cloud recognises them


@pytest.mark.parametrize("reason", [0x10, 0x80, 0x87, 0x97])
def test_refused_events_are_kept_and_delivered_in_the_end(box: Box, reason: int) -> None:
    eventually(lambda: box.status.get().connected)
    box.broker.reasons["evt"] = reason
    box.put("a", "b")
    eventually(lambda: len(box.sent_texts()) >= 4)  # tried again
    assert box.spool.status().events == 2
    box.broker.reasons.clear()
    eventually(lambda: box.spool.status().events == 0)


def test_refused_state_does_not_end_the_connection_and_is_tried_again(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.broker.reasons["state"] = 0x87
    box.status.update(feed_serial=5)
    eventually(lambda: [item.feed_serial for item in box.states].count(5) >= 3)
    assert len(box.broker.connections) == 1
    box.put("event")
    eventually(lambda: box.spool.status().events == 0)


def test_broker_that_stops_acknowledging_is_left(tmp_path: Path) -> None:
    box = Box(tmp_path, dataclasses.replace(LIMITS, ack_timeout_s=0.05))
    box.broker.answers = False
    box.enrol()
    box.thread.start()
    eventually(lambda: len(box.broker.connections) >= 3)
    box.end()


def test_attempts_slow_down_to_the_cap_and_never_end(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.broker.is_up = False
    box.enrol()
    box.thread.start()
    eventually(lambda: box.broker.attempts >= 5)
    box.broker.is_up = True
    eventually(lambda: box.status.get().connected)
    box.end()


def test_announcement_reaches_the_feed(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.connection.incoming.append(Received(feed_announcement("demo"), FeedAnnouncement(serial=12).encode()))
    eventually(lambda: box.announced == [12])


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (feed_announcement("demo"), b""),
        (feed_announcement("demo"), b"\xff" * 64),
        (feed_announcement("demo"), cbor.encode({0: 2, 1: 5})),
        (feed_announcement("demo"), cbor.encode({0: 1, 1: 5, 2: "x" * 64})),
        (feed_announcement("demo"), bytes.fromhex("bb7fffffffffffffff")),
        (feed_announcement("other"), FeedAnnouncement(serial=5).encode()),
        ("omamori/v1/ZA35-000002/cmd", FeedAnnouncement(serial=5).encode()),
        ("x" * 60000 + "\n", b""),
        ("", b""),
    ],
)
def test_bad_message_is_counted_and_harmless(box: Box, topic: str, payload: bytes) -> None:
    eventually(lambda: box.status.get().connected)
    box.connection.incoming.append(Received(topic, payload))
    eventually(lambda: box.worker.bad_messages == 1)
    assert box.announced == []
    assert box.status.get().connected


def test_documents_and_commands_are_handed_on_unread(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.connection.incoming.append(Received(f"omamori/v1/{DEVICE}/desired", b"a document"))
    box.connection.incoming.append(Received(f"omamori/v1/{DEVICE}/cmd", b"a command"))
    eventually(lambda: box.desired.commands)
    assert (box.desired.documents, box.desired.commands) == ([b"a document"], [b"a command"])
    assert box.worker.bad_messages == 0


def test_report_is_retained_when_it_changes_and_on_each_connection(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    assert box.broker.payloads("reported") == []
    box.desired.report(b"one")
    eventually(lambda: box.broker.payloads("reported") == [b"one"])
    box.desired.report(b"two")
    eventually(lambda: box.broker.payloads("reported") == [b"one", b"two"])
    box.broker.is_up = False
    eventually(lambda: not box.status.get().connected)
    box.broker.is_up = True
    eventually(lambda: box.broker.payloads("reported") == [b"one", b"two", b"two"])
    message = next(item for item in box.broker.published if item.payload == b"two")
    assert (message.confirmed, message.retain) == (True, True)


def test_clock_that_jumps_holds_up_nothing_and_changes_no_order(tmp_path: Path) -> None:
    """Power cuts with an empty battery: 1970, then the right time, then a century too far, then back."""
    box = Box(tmp_path)
    texts = []
    for at_ms in (0, 1_790_000_000_000, 4_900_000_000_000, 1, 1_790_000_001_000):
        texts.append(f"at {at_ms}")
        box.clock.now_s = at_ms / 1000
        box.spool.put([Event(boot=0, seq=0, at_ms=at_ms, kind=EventKind.SYSTEM, text=texts[-1])])
    box.enrol()
    box.thread.start()
    try:
        eventually(lambda: box.sent_texts() == texts)
        eventually(lambda: box.spool.status().events == 0)
        numbers = [(event.boot, event.seq) for event in map(Event.decode, box.broker.payloads("evt"))]
        assert numbers == sorted(set(numbers))
    finally:
        box.end()


def test_announcements_of_the_channel_that_is_followed(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    assert feed_announcement("demo") in box.connection.subscriptions
    box.channel = "stable"
    box.worker.reconnect()
    eventually(lambda: len(box.broker.connections) == 2 and box.status.get().connected)
    assert feed_announcement("stable") in box.connection.subscriptions
    assert feed_announcement("demo") not in box.connection.subscriptions
    box.connection.incoming.append(Received(feed_announcement("demo"), FeedAnnouncement(serial=11).encode()))
    box.connection.incoming.append(Received(feed_announcement("stable"), FeedAnnouncement(serial=12).encode()))
    eventually(lambda: box.announced == [12])


def test_answer_to_a_command_is_sent_until_somebody_has_it(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.broker.reasons[b"12345678".hex()] = 0x10  # nobody listens
    box.jobs.offer(b"12345678", b"answer")
    sent = lambda: [item for item in box.broker.published if item.payload == b"answer"]  # noqa: E731
    eventually(lambda: len(sent()) >= 2)
    assert box.jobs.done == []
    box.broker.reasons.clear()
    eventually(lambda: box.jobs.done == [b"12345678"])
    count = len(sent())
    assert {(item.topic, item.confirmed, item.retain) for item in sent()} == {
        (f"omamori/v1/{DEVICE}/job/{b'12345678'.hex()}", True, False)
    }
    box.put("goes on")
    eventually(lambda: box.sent_texts() == ["goes on"])
    assert len(sent()) == count


def test_answer_to_a_command_survives_its_connection(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.broker.is_up = False
    eventually(lambda: not box.status.get().connected)
    box.jobs.offer(b"12345678", b"answer")
    box.broker.is_up = True
    eventually(lambda: box.jobs.done == [b"12345678"])


def test_reconnect_gives_up_the_connection_and_tells_nobody_that_we_left(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    assert box.worker.connection() == (1, "192.0.2.7")
    box.broker.local_address = "192.0.2.9"
    box.worker.reconnect()
    eventually(lambda: box.worker.connection() == (2, "192.0.2.9"))
    assert [state.presence for state in box.states] == [Presence.ONLINE, Presence.ONLINE]
    assert box.broker.connections[0].goodbye_s == 0.0


def test_reconnect_ends_the_pause_before_the_next_try(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.broker.is_up = False
    eventually(lambda: box.broker.attempts >= 3)
    assert box.worker.connection() is None
    box.broker.is_up = True
    box.worker.reconnect()
    eventually(lambda: box.status.get().connected)


def test_heartbeat_is_sent_once_and_only_the_latest(box: Box) -> None:
    box.worker.offer_heartbeat(b"before the connection")
    eventually(lambda: box.status.get().connected)
    time.sleep(0.05)
    sent_before = len(box.broker.payloads("hb"))
    box.worker.offer_heartbeat(b"now")
    eventually(lambda: b"now" in box.broker.payloads("hb"))
    time.sleep(0.05)
    assert len(box.broker.payloads("hb")) == sent_before + 1
    message = next(item for item in box.broker.published if item.payload == b"now")
    assert (message.confirmed, message.retain) == (False, False)


def test_clean_stop_says_goodbye(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.enrol()
    box.thread.start()
    eventually(lambda: box.status.get().connected)
    began = time.monotonic()
    box.end()
    assert time.monotonic() - began < 2
    retained = State.decode(box.broker.retained[STATE_TOPIC])
    assert (retained.presence, retained.session) == (Presence.OFFLINE, box.states[0].session)
    assert box.connection.goodbye_s
    assert not box.status.get().connected


def test_stop_while_the_broker_is_silent_takes_no_longer_than_the_goodbye(tmp_path: Path) -> None:
    box = Box(tmp_path, dataclasses.replace(LIMITS, goodbye_s=0.2))
    box.broker.answers = False
    box.enrol()
    box.thread.start()
    eventually(lambda: box.states)
    began = time.monotonic()
    box.end()
    assert time.monotonic() - began < 1.5


def test_renewed_certificate_is_used_at_once(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.enrol(expires_s=2_100_000_000)
    eventually(lambda: len(box.broker.connections) == 2)
    eventually(lambda: box.states[-1].certificate_expires_s == 2_100_000_000)


def test_spool_in_trouble_does_not_end_the_connection(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    eventually(lambda: box.status.get().connected)
    monkeypatch.setattr("omamori_agent.link.session._SPOOL_RETRY_S", 0.02)
    troubles = []
    real_read, real_confirm = box.spool.read_after, box.spool.confirm

    def sometimes(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            troubles.append(real.__name__)
            if troubles.count(real.__name__) < 3:
                raise SpoolUnavailableError("disk full")
            return real(*args)

        return call

    monkeypatch.setattr(box.spool, "read_after", sometimes(real_read))
    monkeypatch.setattr(box.spool, "confirm", sometimes(real_confirm))
    box.put("a")
    eventually(lambda: box.spool.status().events == 0)
    assert box.sent_texts() == ["a"]
    assert len(box.broker.connections) == 1


def test_broker_that_forgot_us_gets_again_what_it_acknowledged(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.put("a", "b")
    eventually(lambda: box.spool.status().events == 0)
    box.broker.is_up = box.broker.remembers = False
    eventually(lambda: not box.status.get().connected)
    box.broker.is_up = True
    eventually(lambda: len(box.sent_texts()) == 4)
    assert box.sent_texts() == ["a", "b", "a", "b"]
    eventually(lambda: box.spool.status().events == 0)


def test_broker_that_never_keeps_sessions_gets_nothing_twice_for_that(box: Box) -> None:
    """A cluster: what it acknowledged lies on several disks."""
    box.broker.keeps_sessions = False
    box.broker.is_up = False
    eventually(lambda: not box.status.get().connected)
    for number in range(1, 4):
        box.broker.is_up = True
        eventually(lambda: box.status.get().connected)
        box.put(f"event {number}")
        eventually(lambda number=number: len(box.sent_texts()) == number and box.spool.status().events == 0)
        time.sleep(0.05)  # until its acknowledgement is noted
        box.clock.advance(61.0)
        box.broker.is_up = False
        eventually(lambda: not box.status.get().connected)
    assert box.sent_texts() == ["event 1", "event 2", "event 3"]


@pytest.fixture
def slow_box(tmp_path: Path) -> Iterator[Box]:
    """Not started; doubts and paces."""
    one = Box(tmp_path, dataclasses.replace(LIMITS, doubt_s=60.0, backlog_at_once=4))
    one.enrol()
    yield one
    one.end()


def test_what_was_acknowledged_shortly_before_a_loss_is_sent_again(slow_box: Box) -> None:
    box = slow_box
    box.thread.start()
    eventually(lambda: box.status.get().connected)
    box.put("long ago")
    eventually(lambda: box.sent_texts() and box.spool.status().events == 0)
    time.sleep(0.05)  # until its acknowledgement is noted
    box.clock.advance(61.0)
    box.put("just now")
    eventually(lambda: len(box.sent_texts()) == 2 and box.spool.status().events == 0)
    time.sleep(0.05)
    box.broker.is_up = False
    eventually(lambda: not box.status.get().connected)
    box.broker.is_up = True
    eventually(lambda: len(box.sent_texts()) == 3)
    assert box.sent_texts() == ["long ago", "just now", "just now"]


def test_grave_events_do_not_wait_for_a_backlog(slow_box: Box) -> None:
    box = slow_box
    old_ms = int(box.clock.now() * 1000) - 3_600_000
    backlog = [
        Event(boot=0, seq=0, at_ms=old_ms, kind=EventKind.SYSTEM, text=str(number), severity=severity)
        for number in range(50)
        for severity in (Severity.ONE, Severity.TWO)
    ]
    box.spool.put([*backlog, dataclasses.replace(backlog[0], severity=Severity.THREE, text="grave")])
    box.thread.start()
    eventually(lambda: len(box.sent_texts()) >= 2)
    assert box.sent_texts()[0] == "grave"
    # An hour's backlog takes about a quarter of an hour; meanwhile it is the second lane's turn.
    assert len(box.sent_texts()) <= 10
    sent = [Event.decode(item).severity for item in box.broker.payloads("evt")]
    assert Severity.ONE not in sent
    box.spool.put([dataclasses.replace(backlog[0], severity=Severity.THREE, text="new grave")])
    eventually(lambda: "new grave" in box.sent_texts())
    eventually(lambda: box.clock.advance(20.0) or box.spool.status().events == 0)
    assert len(box.sent_texts()) == 102


def test_heartbeat_expires_when_it_is_stale(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.worker.offer_heartbeat(b"hb")
    eventually(lambda: box.broker.payloads("hb"))
    assert [item.expires_s for item in box.broker.published if item.topic.endswith("/hb")] == [180]
    assert all(item.expires_s is None for item in box.broker.published if not item.topic.endswith("/hb"))


def test_waker_is_taken_back_once() -> None:
    waker = Waker()
    assert not waker.clear()
    waker.set()
    waker.set()
    assert waker.clear()
    assert not waker.clear()


def test_a_birth_tells_what_was_before_it(box: Box) -> None:
    eventually(lambda: box.states)
    first = box.states[0]
    assert (first.uptime_s, first.last_end, first.away_s) == (86_460, RunEnd.UNKNOWN, None)
    assert (first.trouble, first.trouble_before, first.leaving) == (None, None, None)
    box.broker.is_up = False
    eventually(lambda: not box.status.get().connected)
    box.status.update(trouble_before=7311)
    box.broker.is_up = True
    eventually(lambda: box.status.get().connected)
    eventually(lambda: len(box.states) > 1)
    second = box.states[-1]
    assert second.session != first.session
    assert (second.away_s, second.trouble_before) == (0, 7311)


def test_present_trouble_is_told_when_it_changes(box: Box) -> None:
    eventually(lambda: box.states)
    box.status.update(trouble=7331)
    eventually(lambda: box.states[-1].trouble == 7331)
    box.status.update(trouble=0)
    eventually(lambda: box.states[-1].trouble is None)


def test_a_goodbye_says_why_and_for_how_long(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.end()
    last = box.states[-1]
    assert (last.presence, last.leaving, last.quiet_s) == (Presence.OFFLINE, Leaving.PROGRAM, 60)
    assert State.decode(box.connection.hello.will_payload).leaving is None


def test_a_new_certificate_is_a_goodbye_of_its_own(box: Box) -> None:
    eventually(lambda: box.status.get().connected)
    box.enrol(expires_s=2_000_000_001)
    eventually(lambda: len(box.broker.connections) > 1)
    goodbyes = [state for state in box.states if state.presence is Presence.OFFLINE]
    assert [state.leaving for state in goodbyes] == [Leaving.SESSION]
