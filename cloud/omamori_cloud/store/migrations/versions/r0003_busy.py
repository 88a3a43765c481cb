"""Adds how busy a box's processors were, and an index for what boxes said about one feed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this schema."""
    with op.batch_alter_table("heartbeats") as table:
        table.add_column(sa.Column("busy_permille", sa.SmallInteger(), server_default="0", nullable=False))
    op.create_index("ix_events_feed", "events", ["feed_serial", "device_id"])


def downgrade() -> None:
    """Go back to the schema before."""
    op.drop_index("ix_events_feed", table_name="events")
    with op.batch_alter_table("heartbeats") as table:
        table.drop_column("busy_permille")
