"""Adds absences of boxes and what is needed to judge them, and signs of our own workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Go to this schema."""
    with op.batch_alter_table("states") as batch:
        batch.add_column(sa.Column("trouble", sa.SmallInteger(), nullable=True))
        batch.add_column(sa.Column("leaving", sa.SmallInteger(), nullable=True))
        batch.add_column(sa.Column("quiet_s", sa.Integer(), nullable=True))
    op.create_table(
        "returns",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("session", sa.LargeBinary(length=8), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("is_same_run", sa.SmallInteger(), nullable=False),
        sa.Column("uptime_s", sa.BigInteger(), nullable=True),
        sa.Column("last_end", sa.SmallInteger(), nullable=True),
        sa.Column("away_s", sa.BigInteger(), nullable=True),
        sa.Column("trouble", sa.SmallInteger(), nullable=True),
        sa.Column("heard_ms", sa.BigInteger(), nullable=True),
        sa.Column("left_ms", sa.BigInteger(), nullable=True),
        sa.Column("leaving", sa.SmallInteger(), nullable=True),
        sa.Column("quiet_s", sa.Integer(), nullable=True),
        sa.Column("judged", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device_id", "session", name="uq_returns_session"),
    )
    op.create_index("ix_returns_judged", "returns", ["judged", "id"])
    op.create_index("ix_returns_device", "returns", ["device_id", "id"])
    op.create_table(
        "outages",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("known_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=True),
        sa.Column("left_ms", sa.BigInteger(), nullable=True),
        sa.Column("leaving", sa.SmallInteger(), nullable=True),
        sa.Column("quiet_s", sa.Integer(), nullable=False),
        sa.Column("reason", sa.SmallInteger(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("noticed_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_outages_device", "outages", ["device_id", "id"])
    op.create_index("ix_outages_start", "outages", ["start_ms", "id"])
    op.create_index("ix_outages_end", "outages", ["end_ms"])
    op.create_table(
        "service_outages",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_service_outages_end", "service_outages", ["end_ms"])
    op.create_table(
        "worker_signs",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=True),
        sa.Column("trouble", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:
    """Go back to the schema before."""
    op.drop_table("worker_signs")
    op.drop_index("ix_service_outages_end", table_name="service_outages")
    op.drop_table("service_outages")
    for index in ("ix_outages_end", "ix_outages_start", "ix_outages_device"):
        op.drop_index(index, table_name="outages")
    op.drop_table("outages")
    op.drop_index("ix_returns_device", table_name="returns")
    op.drop_index("ix_returns_judged", table_name="returns")
    op.drop_table("returns")
    with op.batch_alter_table("states") as batch:
        for name in ("quiet_s", "leaving", "trouble"):
            batch.drop_column(name)
