"""What people and scripts see over HTTP. Reads the store, changes nothing, sets one cookie (the language).

`views` modules make values ready for a person; templates only arrange them; `web` holds the routes.
"""

from __future__ import annotations
