"""What a part of the desired state is to the worker that applies them all."""

from __future__ import annotations

from typing import Any, Protocol

from omamori_protocol.reported import PartName


class Part(Protocol):
    """Brings one section of the document into being.

    Called by one thread; may take seconds. The same settings may be given again at any time (after a restart of the
    agent, and while the part is pending) and must then lead to the same end.
    """

    @property
    def name(self) -> PartName:
        """Which section it is."""

    def apply(self, settings: Any) -> None:
        """Make `settings` effective; None means the product's default.

        Returns when they are effective.

        Raises:
            RejectedError: They cannot be used here; the previous ones stay. The text is the reason that is reported.
            TransientError: Not yet; the worker asks again.
        """
