"""Removes what a lab that was killed hard left behind: its processes and namespaces, checked to be its own."""

from __future__ import annotations

from pathlib import Path

from .journal import Leftovers, end_process, owned, processes_inside, read_leftovers
from .run import run


def clean(state: Path) -> Leftovers:
    """Remove the leftovers recorded in a state directory; return what was removed.

    Raises:
        SetupError: A lab is running there, or the record is not one of ours.
    """
    if not state.exists():
        return Leftovers()
    with owned(state):
        return clean_owned(state)


def clean_owned(state: Path) -> Leftovers:
    """Do the same for a state directory that the caller already holds."""
    found = read_leftovers(state)
    processes = list(found.processes)
    for name in found.namespaces:
        processes += [mark for mark in processes_inside(name) if mark not in processes]
    for mark in reversed(processes):
        end_process(mark)
    for name in reversed(found.namespaces):
        run(["ip", "netns", "delete", name], timeout_s=10)
    (state / "journal.json").unlink(missing_ok=True)
    return Leftovers(tuple(processes), found.namespaces)
