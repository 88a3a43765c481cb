"""``python3 -m omamori_agent.address``: the settings service."""

import sys

from .service import main

sys.exit(main())
