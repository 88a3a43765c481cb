"""Values that cross a process or a machine: topics, messages, feed packs, provision files.

Bytes in, values or exceptions out. No clock, no network; files only in `feed_pack`, which unpacks, and in `durable`,
the one way every part writes a file that has to survive a power cut.
"""

from __future__ import annotations
