"""What a person sees of a run: steps that come and go on a terminal, one line per scene; plain lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from .box import BootReport
from .results import SceneResult
from .scenes.scene import Title


class Display:
    """Shows a run.

    Args:
        console: Where.
        is_japanese: Language of the scenes' titles.
    """

    def __init__(self, console: Console, *, is_japanese: bool = False) -> None:
        self._console = console
        self._is_japanese = is_japanese
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rest()

    def step(self, text: str) -> None:
        """Say what is being done."""
        if self._status is not None:
            self._status.update(escape(text))
        else:
            self._console.print(f"  … {escape(text)}", highlight=False)

    def moment(self, text: str) -> None:
        """Show something that passes; only a terminal gets to see it."""
        if self._status is not None:
            self._status.update(escape(text[: max(20, self._console.width - 6)]))

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Leave the terminal to a program that shows its own progress."""
        if self._status is not None:
            self._status.stop()
        try:
            yield
        finally:
            if self._status is not None:
                self._status.start()

    def booted(self, boot: BootReport) -> None:
        """Tell that the box protects."""
        again = " (second attempt after a fault of the emulator)" if boot.retried else ""
        self._console.print(
            f"[green]✔[/green] the box protects: forwarding after {boot.forwarding_s:.1f} s, protecting after "
            f"{boot.protecting_s:.1f} s, firmware {boot.version} ({boot.flavour}, slot {boot.slot}), "
            f"feed {boot.feed_serial}{again}",
            highlight=False,
        )

    def scene(self, title: Title, result: SceneResult) -> None:
        """Show a scene's line, and below it every check that was not as expected."""
        sign = "[green]✔[/green]" if result.ok else "[red]✘[/red]"
        name = title.ja if self._is_japanese else title.en
        summary = result.summary if result.ok else "not as expected"
        self._console.print(
            f"{sign} [bold]{result.scene:<14}[/bold] {escape(name)} · {escape(summary)} · {result.seconds:.1f} s",
            highlight=False,
        )
        for check in result.checks:
            if not check.ok:
                self._console.print(f"    {escape(check.name)}", style="red", highlight=False)
                self._console.print(f"      expected  {escape(check.expected)}", highlight=False)
                self._console.print(f"      seen      {escape(check.seen)}", highlight=False)
        if result.error is not None:
            self._console.print(f"    {escape(result.error)}", style="red", highlight=False)

    def page(self, url: str, *, stays: bool) -> None:
        """Say where the page is."""
        more = "  (Ctrl-C ends the lab)" if stays else ""
        self._console.print(f"the portal: [link={url}]{url}[/link]{more}", highlight=False)

    def _rest(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
