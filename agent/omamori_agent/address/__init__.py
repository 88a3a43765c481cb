"""The box's own address: asked for by the agent, made by a small root service, taken back when it does not work.

`part` is the agent's side, `service` the root one (it imports nothing of the daemon), `settings` the file between them,
`drop_in` what networkd reads.
"""

from __future__ import annotations
