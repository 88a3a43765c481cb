"""The parts of a simulated fleet that need neither broker nor store."""

from __future__ import annotations

import dataclasses
import json
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from omamori_lab.bench_fleet import Burst, FleetResult, Storm, benchmark, peak_per_s, reached_s
from omamori_lab.benchmark import parse_benchmark, render
from omamori_lab.fleet import FleetReport, Stored, percentile, sum_reports
from omamori_lab.fleet_hub import READ, WRITE, Hub, HubWaker
from omamori_lab.fleet_link import FleetRoad, Turns
from omamori_lab.fleet_process import Plan, source_address


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def run(hub: Hub, *works: Callable[[], None], limit_s: float = 20.0) -> None:
    """Run tasks in the hub until all have ended."""
    left = len(works)

    def ending(work: Callable[[], None]) -> Callable[[], None]:
        def whole() -> None:
            nonlocal left
            work()
            left -= 1

        return whole

    for work in works:
        hub.start(ending(work))
    deadline = time.monotonic() + limit_s
    hub.run(lambda: left == 0 or time.monotonic() > deadline)
    assert left == 0


class TestHub:
    def test_boxes_wait_at_the_same_time(self, hub: Hub) -> None:
        order: list[int] = []

        def sleeper(number: int) -> Callable[[], None]:
            def work() -> None:
                hub.wait(0.3 - number * 0.1)
                order.append(number)

            return work

        began = time.monotonic()
        run(hub, sleeper(0), sleeper(1), sleeper(2))
        assert order == [2, 1, 0]
        assert time.monotonic() - began >= 0.3

    def test_a_socket_ends_the_waiting_and_says_for_what(self, hub: Hub) -> None:
        here, there = socket.socketpair()
        seen: list[int] = []

        def reader() -> None:
            seen.append(hub.wait(0.01, here.fileno(), READ))
            seen.append(hub.wait(20, here.fileno(), READ))
            seen.append(hub.wait(20, here.fileno(), WRITE))
            hub.forget(here.fileno())

        def writer() -> None:
            hub.wait(0.1)
            there.send(b"x")

        with here, there:
            run(hub, reader, writer)
        assert seen == [0, READ, WRITE]

    def test_the_other_side_that_is_gone_ends_the_waiting(self, hub: Hub) -> None:
        here, there = socket.socketpair()
        seen: list[int] = []

        def reader() -> None:
            seen.append(hub.wait(20, here.fileno(), READ))
            hub.forget(here.fileno())

        with here:
            hub.call_later(0.05, there.close)
            run(hub, reader)
        assert seen[0] & READ

    def test_a_number_of_a_closed_socket_is_another_boxs_next(self, hub: Hub) -> None:
        seen: list[int] = []
        ends: list[socket.socket] = []

        def first() -> None:
            here, there = socket.socketpair()
            ends.append(there)
            number = here.fileno()
            hub.wait(0.01, number, READ)
            here.close()  # as paho does when a connection is lost; nobody tells the hub
            hub.start(lambda: second(number))
            hub.wait(0.2)
            hub.forget(number)  # too late: it is the other one's

        def second(number: int) -> None:
            here, there = socket.socketpair()
            ends.extend([here, there])
            assert number in (here.fileno(), there.fileno())
            mine, other = (here, there) if here.fileno() == number else (there, here)
            hub.call_later(0.4, lambda: other.send(b"x") and None)
            seen.append(hub.wait(20, mine.fileno(), READ))

        run(hub, first, lambda: hub.wait(1.0) and None)
        for end in ends:
            end.close()
        assert seen == [READ]

    def test_a_waker_ends_the_waiting_of_its_box_only(self, hub: Hub) -> None:
        waker = HubWaker(hub)
        seen: list[str] = []

        def box() -> None:
            waker.waiter = hub.current()
            hub.wait(20)
            waker.waiter = None
            seen.append("woken")

        def other() -> None:
            hub.wait(0.1)
            waker.set()
            hub.wait(0.1)
            seen.append("other")

        run(hub, box, other)
        assert seen == ["woken", "other"]
        assert waker.clear()
        assert not waker.clear()

    def test_an_older_wait_does_not_end_a_later_one(self, hub: Hub) -> None:
        here, there = socket.socketpair()
        lengths: list[float] = []

        def work() -> None:
            there.send(b"x")
            hub.wait(0.1, here.fileno(), READ)  # ends at once; its time is still to come
            hub.forget(here.fileno())
            began = time.monotonic()
            hub.wait(0.3)
            lengths.append(time.monotonic() - began)

        with here, there:
            run(hub, work)
        assert lengths[0] >= 0.29

    def test_what_a_box_raises_ends_the_hub(self, hub: Hub) -> None:
        def work() -> None:
            hub.wait(0.01)
            raise ValueError("broken")

        hub.start(work)
        with pytest.raises(ValueError, match="broken"):
            hub.run(lambda: False)

    def test_only_a_box_can_wait(self, hub: Hub) -> None:
        with pytest.raises(RuntimeError):
            hub.wait(0.1)

    def test_a_callback_on_a_descriptor(self, hub: Hub) -> None:
        here, there = socket.socketpair()
        seen: list[bytes] = []
        with here, there:
            hub.on_readable(here.fileno(), lambda: seen.append(here.recv(10)))
            there.send(b"order")
            deadline = time.monotonic() + 20
            hub.run(lambda: bool(seen) or time.monotonic() > deadline)
        assert seen == [b"order"]


def test_so_many_have_their_turn_and_the_others_wait_in_order(hub: Hub) -> None:
    turns = Turns(hub, 2)
    order: list[str] = []
    most, now = 0, 0

    def box(name: str, *, fails: bool = False) -> Callable[[], None]:
        def work() -> None:
            nonlocal most, now
            try:
                with turns.turn():
                    order.append(name)
                    now += 1
                    most = max(most, now)
                    hub.wait(0.05)
                    now -= 1
                    if fails:
                        raise OSError(name)  # noqa: TRY301 - what a connection does
            except OSError:
                order.append(f"{name} failed")

        return work

    run(hub, box("a"), box("b", fails=True), box("c"), box("d"), box("e"))
    assert most == 2
    assert [name for name in order if "failed" not in name] == ["a", "b", "c", "d", "e"]
    assert "b failed" in order


class TestRoad:
    def road(self, hub: Hub, port: int) -> FleetRoad:
        return FleetRoad("localhost", port, hub=hub, address="127.0.0.1", source=source_address(0))

    def open(self, hub: Hub, port: int, timeout_s: float) -> list[str]:
        seen: list[str] = []

        def work() -> None:
            try:
                self.road(hub, port).open(ssl.create_default_context(), timeout_s)
            except OSError as err:
                seen.append(type(err).__name__)

        run(hub, work)
        return seen

    def test_nobody_listens(self, hub: Hub) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            assert self.open(hub, probe.getsockname()[1], 5) == ["ConnectionRefusedError"]

    def test_who_listens_says_nothing(self, hub: Hub) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            began = time.monotonic()
            assert self.open(hub, silent.getsockname()[1], 0.3) == ["TimeoutError"]
            assert time.monotonic() - began >= 0.3


def test_addresses_are_on_the_loopback_and_shared_by_a_hundred() -> None:
    addresses = Counter(source_address(number) for number in range(120_000))
    assert set(addresses.values()) == {100}
    for address in addresses:
        parts = [int(part) for part in address.split(".")]
        assert parts[0] == 127
        assert 100 <= parts[1] <= 254
        assert all(0 <= part <= 255 for part in parts)
        assert parts[3] not in (0, 255)


def test_a_plan_passes_as_json() -> None:
    plan = Plan(
        devices=["ZA35-F000001"],
        identities="a",
        homes="b",
        service_ca="c",
        host="localhost",
        address="127.0.0.1",
        port=1,
        first=0,
        expires_s=1,
        heartbeat_s=60.0,
    )
    assert Plan(**json.loads(json.dumps(dataclasses.asdict(plan)))) == plan


def part(**changes: Any) -> dict[str, Any]:
    names = ("boxes", "connected", "connects", "tries", "connecting", "most_connecting", "heartbeats", "alerts")
    return {**dict.fromkeys(names, 1), "heartbeat_bytes": {"112": 3}, "failures": {"X": 1}, "cpu_s": 0.5, **changes}


def test_reports_of_processes_are_added() -> None:
    whole = sum_reports([part(), part(connected=5, heartbeat_bytes={"112": 1, "120": 2}, failures={})])
    assert (whole.boxes, whole.connected, whole.cpu_s) == (2, 6, 1.0)
    assert whole.heartbeat_bytes == {112: 4, 120: 2}
    assert whole.failures == {"X": 1}
    assert sum_reports([]) == FleetReport()


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentiles(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_percentiles_of_little() -> None:
    assert percentile([], 0.99) == 0
    assert percentile([7.0], 0.5) == 7


def test_when_so_many_were_back() -> None:
    seen = [(0.5, 0), (1.0, 40), (1.5, 60), (2.5, 100)]
    assert reached_s(seen, 50) == 1.5
    assert reached_s(seen, 100) == 2.5
    assert reached_s(seen, 101) == float("inf")


def test_the_best_second() -> None:
    seen = [(number / 4, 10 * number) for number in range(20)] + [
        (5 + number / 4, 190 + 100 * number) for number in range(8)
    ]
    assert 390 <= peak_per_s(seen) <= 400
    assert peak_per_s([]) == 0


def result() -> FleetResult:
    burst = Burst(alerts=50, p50_ms=40, p99_ms=80, most_ms=90, all_s=1.2)
    storm = Storm(
        down_s=0.5,
        half_s=5,
        most_s=9,
        all_s=10,
        tries=110,
        most_connecting=90,
        peak_per_s=30,
        failures={"BrokerUnreachableError": 10},
        broker_cpu_s=1.5,
        handshake_p50_s=0.5,
        handshake_p99_s=1.5,
    )
    report = sum_reports(
        [
            part(
                boxes=100,
                connected=100,
                heartbeats=300,
                heartbeat_bytes={"118": 200, "114": 10},
                failures={"BrokerUnreachableError": 10},
            )
        ]
    )
    return FleetResult(
        boxes=100,
        heartbeat_s=60,
        seconds=60,
        prepare_s=1,
        connect_s=2,
        connect_broker_cpu_s=1,
        shares={"broker": 0.01, "ingest": 0.02, "database": 0.03, "simulation": 0.5},
        resident={"broker": 1 << 20, "ingest": 1 << 20},
        heartbeats_per_s=1.7,
        heartbeat_bytes=report.heartbeat_bytes,
        spread=burst,
        at_once=burst,
        meanwhile=burst,
        storm=storm,
        stored=Stored(alerts=150, alerting=3, heartbeats=299, beating=100, states=100),
        report=report,
    )


def test_figures_pass_as_json_and_say_what_was_lost() -> None:
    good = benchmark(result())
    assert parse_benchmark(good.to_json(), "fleet.json").to_json() == good.to_json()
    text = render([good])
    assert "A fleet of 100 boxes" in text
    assert "each exactly once" in text
    assert "| bytes of a heartbeat | 118 B | ≤ 200 |" in text
    worse = dataclasses.replace(result(), stored=dataclasses.replace(result().stored, alerts=149))
    assert "NOT what was raised" in render([benchmark(worse)])


def test_a_fleet_without_a_second_heartbeat_has_no_size_to_tell() -> None:
    text = render([benchmark(dataclasses.replace(result(), heartbeat_bytes={}))])
    assert "of 0 heartbeats" in text
