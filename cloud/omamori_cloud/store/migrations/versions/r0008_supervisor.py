"""Adds what boxes tell of their supervisors: temperature, rail, relay, and what happened to their power."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("devices", "celsius", sa.SmallInteger()),
    ("devices", "celsius_ms", sa.BigInteger()),
    ("devices", "millivolts", sa.Integer()),
    ("devices", "millivolts_ms", sa.BigInteger()),
    ("heartbeats", "celsius", sa.SmallInteger()),
    ("heartbeats", "millivolts", sa.Integer()),
    ("heartbeat_spans", "celsius_max", sa.SmallInteger()),
    ("heartbeat_spans", "millivolts_min", sa.Integer()),
    ("states", "supervisor", sa.JSON()),
    ("returns", "power_before", sa.SmallInteger()),
    ("returns", "power_before_ms", sa.BigInteger()),
    ("events", "power_kind", sa.SmallInteger()),
    ("events", "power_serial", sa.Integer()),
    ("events", "power_ms", sa.BigInteger()),
)


def upgrade() -> None:
    """Go to this schema."""
    for table, name, kind in _COLUMNS:
        op.add_column(table, sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    """Go back to the schema before."""
    for table, name, _kind in reversed(_COLUMNS):
        # Not in a batch: that would make the table anew, and other tables refer to this one.
        op.drop_column(table, name)
