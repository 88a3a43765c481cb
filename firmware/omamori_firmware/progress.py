"""What a person sees of a build: a bar on a terminal, plain lines elsewhere, nothing when a script reads.

It also measures: how long each stage took and whether it came from the cache.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class StageTime:
    """How one stage went."""

    name: str
    seconds: float
    cached: bool


class Stage:
    """The stage that runs now."""

    def __init__(self, reporter: "Reporter", name: str) -> None:
        """Only `Reporter.stage` makes one."""
        self._reporter = reporter
        self.name = name
        self.cached = False

    def note(self, text: str) -> None:
        """Show what the stage is doing at the moment."""
        self._reporter.show(self, text)


class Reporter:
    """Reports the stages of one command."""

    def __init__(self, *, total: int, quiet: bool = False, console: Console | None = None) -> None:
        """Prepare a report.

        Args:
            total: How many stages to expect.
            quiet: Show nothing; times are still taken.
            console: Where to show; standard error by default.
        """
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._times: list[StageTime] = []
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            columns = (SpinnerColumn(), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.description}"), console=self._console, transient=True)
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        """Start showing."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        """Stop showing and leave the terminal clean."""
        if self._bar:
            self._bar.stop()
        sys.stderr.flush()

    @property
    def times(self) -> list[StageTime]:
        """The finished stages, in order."""
        return list(self._times)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Announce a stage, and report it when it is done."""
        stage = Stage(self, name)
        begin = time.monotonic()
        self.show(stage, "")
        yield stage
        seconds = time.monotonic() - begin
        self._times.append(StageTime(name, round(seconds, 2), stage.cached))
        outcome = "[dim]cached[/dim]" if stage.cached else f"[green]{seconds:6.1f} s[/green]"
        if not self._quiet:
            self._console.print(f"{name:<18} {outcome}")
        if self._bar:
            self._bar.advance(self._task)

    def show(self, stage: Stage, text: str) -> None:
        """Show a moment of a stage; only a terminal gets to see it."""
        if self._bar:
            self._bar.update(self._task, description=escape(f"{stage.name}  {text[:70]}"))

    def warn(self, text: str) -> None:
        """Tell something that did not stop the build but should be known."""
        if not self._quiet:
            self._console.print(f"[yellow]warning:[/yellow] {escape(text)}")
