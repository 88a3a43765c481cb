"""The box's data, carried over to what this version reads, and back when an older version runs again.

The data partition has a version, a number. An image knows the steps up to its own number; an image that finds lower
data takes the steps that are missing, one that finds higher data puts back the copy that was made before those steps.
Nobody else may look at the data meanwhile: this runs before the agent, in a process of its own.

- `step` is what a version adds: which paths it changes, and how.
- `snapshot` is the copy of those paths.
- `carry` is the order of things, such that after a power cut at any point the next start can go on or go back.
"""
