"""The first schema: devices, heartbeats, states, events, refusals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go to this schema."""
    op.create_table(
        "devices",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("first_seen_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_contact_ms", sa.BigInteger(), nullable=True),
        sa.Column("latest_heartbeat_id", sa.BigInteger(), nullable=True),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "refusals",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_refusals_device", "refusals", ["device", "id"])
    op.create_table(
        "events",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("occurred_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("severity", sa.SmallInteger(), nullable=False),
        sa.Column("function", sa.SmallInteger(), nullable=True),
        sa.Column("direction", sa.SmallInteger(), nullable=True),
        sa.Column("action", sa.SmallInteger(), nullable=True),
        sa.Column("terminal_ip", sa.String(length=45), nullable=True),
        sa.Column("terminal_mac", sa.LargeBinary(length=6), nullable=True),
        sa.Column("destination", sa.String(length=255), nullable=True),
        sa.Column("remote_ip", sa.String(length=45), nullable=True),
        sa.Column("remote_port", sa.Integer(), nullable=True),
        sa.Column("protocol", sa.String(length=16), nullable=True),
        sa.Column("rule_id", sa.BigInteger(), nullable=True),
        sa.Column("rule", sa.String(length=200), nullable=True),
        sa.Column("category", sa.String(length=40), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("feed_serial", sa.BigInteger(), nullable=True),
        sa.Column("feed_state", sa.SmallInteger(), nullable=True),
        sa.Column("text", sa.String(length=300), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device_id", "boot", "seq", name="uq_events_origin"),
    )
    op.create_index("ix_events_device", "events", ["device_id", "id"])
    op.create_index("ix_events_time", "events", ["kind", "occurred_ms", "id"])
    op.create_table(
        "heartbeats",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("sent_s", sa.BigInteger(), nullable=False),
        sa.Column("uptime_s", sa.BigInteger(), nullable=False),
        sa.Column("firmware", sa.String(length=32), nullable=False),
        sa.Column("slot", sa.SmallInteger(), nullable=False),
        sa.Column("feed_serial", sa.BigInteger(), nullable=False),
        sa.Column("feed_state", sa.SmallInteger(), nullable=False),
        sa.Column("engine", sa.SmallInteger(), nullable=False),
        sa.Column("agent_rss_kib", sa.BigInteger(), nullable=False),
        sa.Column("memory_available_kib", sa.BigInteger(), nullable=False),
        sa.Column("spool_depth", sa.BigInteger(), nullable=False),
        sa.Column("uninspected_s", sa.BigInteger(), nullable=False),
        sa.Column("inspected_packets", sa.BigInteger(), nullable=False),
        sa.Column("bypassed_packets", sa.BigInteger(), nullable=False),
        sa.Column("blocked_packets", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_heartbeats_device", "heartbeats", ["device_id", "id"])
    op.create_table(
        "states",
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("presence_ms", sa.BigInteger(), nullable=False),
        sa.Column("session", sa.LargeBinary(length=8), nullable=False),
        sa.Column("presence", sa.SmallInteger(), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("since_s", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(length=32), nullable=False),
        sa.Column("firmware", sa.String(length=32), nullable=False),
        sa.Column("flavour", sa.String(length=16), nullable=False),
        sa.Column("slot", sa.SmallInteger(), nullable=False),
        sa.Column("feed_serial", sa.BigInteger(), nullable=False),
        sa.Column("feed_state", sa.SmallInteger(), nullable=False),
        sa.Column("feed_reason", sa.String(length=300), nullable=True),
        sa.Column("certificate_expires_s", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
        ),
        sa.PrimaryKeyConstraint("device_id"),
    )


def downgrade() -> None:
    """Go back to the schema before."""
    op.drop_table("states")
    op.drop_index("ix_heartbeats_device", table_name="heartbeats")
    op.drop_table("heartbeats")
    op.drop_index("ix_events_time", table_name="events")
    op.drop_index("ix_events_device", table_name="events")
    op.drop_table("events")
    op.drop_index("ix_refusals_device", table_name="refusals")
    op.drop_table("refusals")
    op.drop_table("devices")
