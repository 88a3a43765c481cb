"""`python -m omamori_agent.migration`: what omamori-migrate.service runs before the agent.

Exit code 0: the data are of this image's version. 1: they are not, and why is in the journal.
"""

from __future__ import annotations

import logging
import sys

from omamori_agent.config import Paths

from .carry import Carrier
from .errors import MigrationError
from .step import load_steps


def main() -> int:
    """Carry the data over and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        Carrier(Paths().state, load_steps()).carry()
    except (MigrationError, OSError) as err:
        sys.stderr.write(f"data not carried over: {err}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
