"""Adds customers' reports of false alarms."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go to this schema."""
    op.create_table(
        "reports",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("indicator", sa.String(length=1400), nullable=False),
        sa.Column("note", sa.String(length=500), nullable=False),
        sa.Column("reporter", sa.String(length=60), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("alert_id", sa.BigInteger(), nullable=True),
        sa.Column("terminal_ip", sa.String(length=45), nullable=True),
        sa.Column("terminal_mac", sa.LargeBinary(length=6), nullable=True),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("decided_ms", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.String(length=60), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("accepted_kind", sa.String(length=8), nullable=True),
        sa.Column("accepted_indicator", sa.String(length=1400), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_reports_state", "reports", ["state", "id"])


def downgrade() -> None:
    """Go back to the schema before."""
    op.drop_index("ix_reports_state", table_name="reports")
    op.drop_table("reports")
