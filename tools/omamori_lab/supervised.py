"""The supervisor of the lab's box: its firmware in a virtual machine, wired to the box as on a board.

    serial line   box ── cable ── supervisor          relay   moves the cables of office and internet
    reset line    resets the box's virtual machine    plug    follows the box's power

The supervisor decides. This module only is the copper between.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.errors import ImageError
from omamori_firmware.recipe import source_tree
from omamori_firmware.supervisor import build_supervisor
from omamori_firmware.supervisor_machine import SupervisorConfig, SupervisorMachine

from .errors import LabError
from .journal import Journal
from .serial_cable import SerialCable
from .wire_relay import Follower, WireRelay

_RESET_EVERY_S = 0.05  # its pulse is four times as long


class Supervisor:
    """A supervisor that holds the lab's wire.

    Args:
        wire: The cables that its relay moves.
        journal: Where the virtual machine's id is noted.
        workdir: For sockets and logs.
        reset: Resets the box.

    Attributes:
        line: Unix socket for the box's serial port.
        cable: The serial line.
        follower: Moves the cables, and knows when each move was.
        resets: When the reset line was pulled, monotonic seconds.
        began_s: When its program began, monotonic seconds.
    """

    def __init__(self, wire: WireRelay, journal: Journal, workdir: Path, *, reset: Callable[[], None]) -> None:
        workdir.mkdir(parents=True, exist_ok=True)
        self._journal = journal
        self._reset = reset
        self.line = workdir / "box"
        firmware = build_supervisor(source_tree(), Cache(default_directory()))
        self.machine = SupervisorMachine(SupervisorConfig(firmware.elf, workdir, workdir / "chip"), firmware.tools)
        self.cable = SerialCable(self.line, workdir / "chip")
        self.wire = wire
        self.follower = Follower(wire, self.machine.through)
        self.resets: list[float] = []
        self.began_s = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[Supervisor]:
        """Give it its supply, with the box's plug out; on leaving end it.

        Raises:
            LabError: It did not start, or ended in between.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.machine.start()
            except ImageError as err:
                raise LabError(str(err), hint=err.hint) from err
            stack.callback(self.machine.stop)
            pid = self.machine.pid
            self._journal.add_process(pid, "supervisor")
            stack.callback(self._journal.remove_process, pid)
            self.plug(present=False)
            self.machine.go()
            self.began_s = time.monotonic()
            stack.enter_context(self.cable.lying())
            stack.enter_context(self.follower.following())
            stack.enter_context(self._resetting())
            yield self

    @property
    def is_through(self) -> bool:
        """Whether the wire leads through the box."""
        return self.wire.through

    def plug(self, *, present: bool) -> None:
        """Show it the box's plug."""
        self.machine.plug(present=present)

    def restart(self) -> None:
        """Reset the microcontroller alone, as its own watchdog's second stage does; its expander loses its outputs."""
        self.machine.qmp("system_reset")

    def freeze(self, *, frozen: bool) -> None:
        """Let its processor stand still, or run again; its pins stay as they are."""
        self.machine.qmp("stop" if frozen else "cont")

    @contextlib.contextmanager
    def _resetting(self) -> Iterator[None]:
        ended = threading.Event()

        def follow() -> None:
            was_pulled = False
            while not ended.wait(_RESET_EVERY_S):
                with contextlib.suppress(ImageError, LabError):  # the box may be going off at this moment
                    pulls = self.machine.pulls_reset()
                    if pulls and not was_pulled:
                        self.resets.append(time.monotonic())
                        self._reset()
                    was_pulled = pulls

        thread = threading.Thread(target=follow, name="reset-line")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
