"""Where the feed book stands, and what the cloud says when it is not there. Only the compiler writes it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_book import BookFacts, Explanation, FeedBook, Question

from .errors import BookUnavailableError
from .facts import BoxFacts
from .reports import ReportFacts, ReportState, Standing, ask, standing

logger = logging.getLogger(__name__)


class FeedShelf:
    """The newest feed book, if there is one.

    Args:
        path: Its place; None: the operator has configured none.
    """

    def __init__(self, path: Path | None) -> None:
        self._book = None if path is None else FeedBook(path)

    def facts(self) -> BookFacts:
        """Return which serial the book is about.

        Raises:
            BookUnavailableError: There is none, or it is not intact.
        """
        try:
            return self._open().facts()
        except (OSError, ProtocolError) as err:
            raise _unavailable(err) from err

    def explain(self, question: Question) -> Explanation:
        """Look an indicator up.

        Raises:
            BookUnavailableError: There is none, or it is not intact.
        """
        try:
            return self._open().explain(question)
        except (OSError, ProtocolError) as err:
            raise _unavailable(err) from err

    def find(self, question: Question) -> Explanation | None:
        """Look an indicator up; None without a book."""
        try:
            return self.explain(question)
        except BookUnavailableError:
            return None

    def _open(self) -> FeedBook:
        if self._book is None:
            raise BookUnavailableError("no feed book is configured", hint="[feed] book = … in the configuration")
        return self._book


def _unavailable(err: OSError | ProtocolError) -> BookUnavailableError:
    if isinstance(err, FileNotFoundError):
        return BookUnavailableError("the feed book is not there yet", hint="omamori-feed compile --book, or book --out")
    logger.error("cannot read the feed book: %s", err)
    return BookUnavailableError(f"the feed book cannot be read: {str(err)[:200]}", hint="omamori-feed book --out FILE")


def look_up_standing(report: ReportFacts, shelf: FeedShelf, boxes: Sequence[BoxFacts]) -> Standing:
    """Return how far a report has come, by the newest book and what boxes have."""
    told = None
    if report.state is ReportState.ACCEPTED and report.accepted_indicator is not None:
        told = shelf.find(ask(report.accepted_indicator))
    return standing(report, told, boxes)
