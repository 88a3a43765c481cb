"""Adds the uninspected ledger with its sums, and what boxes report about their settings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go to this schema."""
    op.create_table(
        "ledger_entries",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("occurred_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.SmallInteger(), nullable=False),
        sa.Column("seconds", sa.BigInteger(), nullable=False),
        sa.Column("packets", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device_id", "boot", "seq", name="uq_ledger_origin"),
    )
    op.create_index("ix_ledger_device", "ledger_entries", ["device_id", "id"])
    op.create_index("ix_ledger_time", "ledger_entries", ["device_id", "occurred_ms", "id"])
    op.create_table(
        "ledger_totals",
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("seconds", sa.BigInteger(), nullable=False),
        sa.Column("packets", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("latest_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("device_id", "reason"),
    )
    op.create_table(
        "settings",
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("refused_version", sa.BigInteger(), nullable=True),
        sa.Column("refused_reason", sa.String(length=200), nullable=True),
        sa.Column("command_id", sa.LargeBinary(length=8), nullable=True),
        sa.Column("command_state", sa.SmallInteger(), nullable=True),
        sa.Column("command_reason", sa.String(length=200), nullable=True),
        sa.Column("bypass_until_s", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("device_id"),
    )


def downgrade() -> None:
    """Go back to the schema before."""
    op.drop_table("settings")
    op.drop_table("ledger_totals")
    op.drop_index("ix_ledger_time", table_name="ledger_entries")
    op.drop_index("ix_ledger_device", table_name="ledger_entries")
    op.drop_table("ledger_entries")
