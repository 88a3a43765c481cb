"""Threat feed: sources, parsers, compiler, pack.

A directory of lists and rules that people review goes in; one feed pack comes out, the same bytes for the same input.
Publishing it is `omamori_ota`'s part, taking it the agent's.
"""

from __future__ import annotations
