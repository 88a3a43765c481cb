"""Values that cross a process or a machine: topics, messages, feed packs, provision files.

Pure: bytes in, values or exceptions out. No clock, no network; files only where `feed_pack` unpacks.
"""

from __future__ import annotations
