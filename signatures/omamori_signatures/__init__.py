"""Threat feed: sources, parsers, policy, compiler, pack."""
