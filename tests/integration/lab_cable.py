"""A plain cable in place of the box, for tests that need no box or no protection."""

import contextlib
import os
import select
import threading


class Cable:
    """Copies frames between the two taps, as the simplest transparent box."""

    def __init__(self, one: int, other: int) -> None:
        self._ends = (one, other)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._copy)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *unused: object) -> None:
        self._ended.set()
        self._thread.join()

    def _copy(self) -> None:
        one, other = self._ends
        while not self._ended.is_set():
            for source in select.select([one, other], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    os.write(other if source == one else one, os.read(source, 70_000))
