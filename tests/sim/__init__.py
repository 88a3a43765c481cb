"""Simulators that implement the real interfaces, shared by all tiers of tests."""
