"""Adds customers and their contracts, heartbeats in spans, what was erased, and what the installation remembers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go to this schema."""
    op.create_table(
        "installation",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "customers",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("alert_days", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "assignments",
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("customer_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"]),
        sa.PrimaryKeyConstraint("device"),
    )
    op.create_index("ix_assignments_customer", "assignments", ["customer_id"])
    op.create_table(
        "heartbeat_spans",
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("length_s", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("beats", sa.BigInteger(), nullable=False),
        sa.Column("inspecting", sa.BigInteger(), nullable=False),
        sa.Column("busy_sum", sa.BigInteger(), nullable=False),
        sa.Column("busy_max", sa.SmallInteger(), nullable=False),
        sa.Column("agent_rss_kib_max", sa.BigInteger(), nullable=False),
        sa.Column("memory_available_kib_min", sa.BigInteger(), nullable=False),
        sa.Column("spool_depth_max", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("uptime_s", sa.BigInteger(), nullable=False),
        sa.Column("firmware", sa.String(length=32), nullable=False),
        sa.Column("feed_serial", sa.BigInteger(), nullable=False),
        sa.Column("uninspected_s", sa.BigInteger(), nullable=False),
        sa.Column("inspected_packets", sa.BigInteger(), nullable=False),
        sa.Column("bypassed_packets", sa.BigInteger(), nullable=False),
        sa.Column("blocked_packets", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("device_id", "length_s", "start_ms"),
    )
    op.create_index("ix_heartbeat_spans_time", "heartbeat_spans", ["length_s", "start_ms"])
    op.create_table(
        "erasures",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("subject", sa.String(length=80), nullable=False),
        sa.Column("rows", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_heartbeats_time", "heartbeats", ["received_ms", "id"])


def downgrade() -> None:
    """Go back to the schema before."""
    op.drop_index("ix_heartbeats_time", table_name="heartbeats")
    op.drop_table("erasures")
    op.drop_index("ix_heartbeat_spans_time", table_name="heartbeat_spans")
    op.drop_table("heartbeat_spans")
    op.drop_index("ix_assignments_customer", table_name="assignments")
    op.drop_table("assignments")
    op.drop_table("customers")
    op.drop_table("installation")
