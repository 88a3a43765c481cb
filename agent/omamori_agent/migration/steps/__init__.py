"""The steps, one module for each version of the data from 2 on: `step_0002`, `step_0003`, and so on.

A module has `PATHS`, a tuple of what it changes below the agent's state directory (`desired/current.json`), and
`apply(state)`, which changes it. A step touches nothing else, and what it names comes back as it was when an older
version runs again: whatever was written there since is lost. The spool is therefore never in a step; a new form of
records gets a new file.
"""
