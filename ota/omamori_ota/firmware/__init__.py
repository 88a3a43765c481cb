"""Firmware releases: bundles made and signed, ways to fetch them, and their publication by several people."""
