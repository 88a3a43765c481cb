"""Boards: what a machine looks like, and the abilities it offers.

A board is a data file, never code. This package reads it and names the abilities as small protocols; the
adapters that drive real hardware live with the part that uses them.
"""
