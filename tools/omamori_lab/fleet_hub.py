"""Lets thousands of boxes wait in one process: one epoll, and a greenlet for each of them.

The agent's link is written for a thread of its own: it waits for its socket, for a pause to end, for a handshake. Here
each box has a greenlet instead, and whatever waits, waits in the hub, which goes on with another box meanwhile. So the
link's code runs as it is. Everything in one hub runs in one thread.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from greenlet import greenlet

from omamori_agent.link.broker import Waker

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_MOST_EVENTS = 1_000
_LONGEST_LOOK_S = 0.2  # also how soon `run` ends
_TURNS = 64  # boxes that go on before the sockets are looked at again


class HubWaker(Waker):
    """A link's waker without a descriptor: who sets it and who waits for it are in the same thread."""

    def __init__(self, hub: Hub) -> None:  # the base class makes a descriptor
        self._hub = hub
        self._is_set = False
        self.waiter: Task | None = None  # in the wait for a connection, and nowhere else

    def fileno(self) -> int:
        """Return no descriptor."""
        return -1

    def set(self) -> None:
        """Wake the box if it waits for its connection."""
        self._is_set = True
        if self.waiter is not None:
            self._hub.wake(self.waiter)

    @property
    def is_set(self) -> bool:
        """Whether there is a signal that nobody has taken back."""
        return self._is_set

    def clear(self) -> bool:
        """Take back the signal; returns whether there was one."""
        was_set, self._is_set = self._is_set, False
        return was_set


class Task:
    """A box's thread, so to speak."""

    def __init__(self, work: Callable[[], None], parent: greenlet) -> None:
        self.greenlet = greenlet(work, parent)
        self.ready = 0  # what its socket is ready for
        self.turn = 0  # which of its waits is the present one; older timers mean nothing
        self.is_due = False


class Hub:
    """The one place that waits; make it and use it in one thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._main = greenlet.getcurrent()
        self._tasks: dict[int, Task] = {}  # by descriptor
        self._wanted: dict[int, int] = {}
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Task | Callable[[], None], int]] = []
        self._numbers = itertools.count()
        self._due: deque[Task] = deque()

    def start(self, work: Callable[[], None]) -> Task:
        """Let `work` begin at the next turn; what it raises ends `run`."""
        task = Task(work, self._main)
        self.wake(task)
        return task

    def call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` in the hub itself (it must not wait) after so many seconds."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._numbers), action, 0))

    def on_readable(self, descriptor: int, action: Callable[[], None]) -> None:
        """Call `action` in the hub whenever there is something to read."""
        self._callbacks[descriptor] = action
        self._epoll.register(descriptor, READ)

    def wake(self, task: Task) -> None:
        """Let a task go on at the next turn."""
        if not task.is_due:
            task.is_due = True
            self._due.append(task)

    def current(self) -> Task:
        """Return the task that runs.

        Raises:
            RuntimeError: None does.
        """
        running: Any = greenlet.getcurrent()
        task = getattr(running, "task", None)
        if task is None:
            raise RuntimeError("only a box can wait")
        assert isinstance(task, Task)  # set by `_go_on`
        return task

    def wait(self, timeout_s: float, descriptor: int = -1, wanted: int = READ) -> int:
        """Wait for a descriptor, a call of `wake`, or the time.

        Args:
            timeout_s: Seconds at most.
            descriptor: Of a socket that nobody else waits for; -1 for none.
            wanted: `READ`, `WRITE` or both.

        Returns:
            What the descriptor is ready for; 0 if it is not.
        """
        task = self.current()
        task.ready = 0
        task.turn += 1
        if descriptor >= 0:
            self._watch(descriptor, task, wanted)
        heapq.heappush(self._timers, (time.monotonic() + timeout_s, next(self._numbers), task, task.turn))
        self._main.switch()
        return task.ready

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor of the running task, before it is closed or soon after."""
        if descriptor >= 0 and self._tasks.get(descriptor) is self.current():
            del self._tasks[descriptor]
            del self._wanted[descriptor]
            try:
                self._epoll.unregister(descriptor)
            except OSError:  # closed already, which took it out
                return

    def run(self, should_end: Callable[[], bool]) -> None:
        """Serve everybody until `should_end` says so; it is asked at each turn."""
        while not should_end():
            self._ring()
            for _ in range(min(_TURNS, len(self._due))):
                self._go_on(self._due.popleft())
            self._look(0.0 if self._due else self._next_s())

    def close(self) -> None:
        """Close the hub; boxes that still wait are thrown away."""
        self._epoll.close()

    def _watch(self, descriptor: int, task: Task, wanted: int) -> None:
        owner = self._tasks.get(descriptor)
        if owner is task and self._wanted[descriptor] == wanted:
            return
        try:
            if owner is task:
                self._epoll.modify(descriptor, wanted)
            else:  # a number that somebody else's closed socket had
                self._epoll.register(descriptor, wanted)
        except FileExistsError:
            self._epoll.modify(descriptor, wanted)
        except FileNotFoundError:
            self._epoll.register(descriptor, wanted)
        self._tasks[descriptor] = task
        self._wanted[descriptor] = wanted

    def _go_on(self, task: Task) -> None:
        task.is_due = False
        task.turn += 1  # its timer is over
        if not task.greenlet.dead:
            task.greenlet.task = task
            task.greenlet.switch()

    def _ring(self) -> None:
        now_s = time.monotonic()
        while self._timers and self._timers[0][0] <= now_s:
            _at_s, _number, target, turn = heapq.heappop(self._timers)
            if not isinstance(target, Task):
                target()
            elif target.turn == turn:
                self.wake(target)

    def _next_s(self) -> float:
        if not self._timers:
            return _LONGEST_LOOK_S
        return min(_LONGEST_LOOK_S, max(0.0, self._timers[0][0] - time.monotonic()))

    def _look(self, timeout_s: float) -> None:
        for descriptor, event in self._epoll.poll(timeout_s, _MOST_EVENTS):
            action = self._callbacks.get(descriptor)
            if action is not None:
                action()
                continue
            task = self._tasks.get(descriptor)
            if task is None:
                self._epoll.unregister(descriptor)
                continue
            task.ready |= READ | WRITE if event & _BROKEN else event & (READ | WRITE)
            self.wake(task)
