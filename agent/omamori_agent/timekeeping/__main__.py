"""``python3 -m omamori_agent.timekeeping``: the time service."""

import sys

from .service import main

sys.exit(main())
