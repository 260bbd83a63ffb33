"""Jobs have a maximum runtime, and the time for which they have run; retried jobs are counted."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | Sequence[str] | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("max_runtime", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("run_seconds", sa.Double(), server_default="0", nullable=False))
    op.execute(
        "UPDATE jobs SET run_seconds = finished_at - claimed_at"
        " WHERE finished_at IS NOT NULL AND claimed_at IS NOT NULL"
    )
    op.create_table(
        "retried",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_retried_tenant_id_tenants"),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "status", name="pk_retried"),
    )


def downgrade() -> None:
    op.drop_table("retried")
    op.drop_column("jobs", "run_seconds")
    op.drop_column("jobs", "max_runtime")
