"""The cloud behind the boxes: takes in what they say, keeps it, and shows it to their owners.

Three parts that meet only in the store: `ingest` (broker → store), `page` (store → browser, scripts) and the command
line. `daemon` wires them together.

There is no login in this version. The page therefore listens on the loopback address only, and refuses any other
address unless it is started with ``--allow-remote``, for an installation that puts its own authentication in front.
"""

from __future__ import annotations
