"""Owners take turns: jobs have the time of their last claim, and the queue is read by owner."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BY_AGE = "ix_jobs_queue_status_priority_id"
_BY_OWNER = "ix_jobs_queue_status_tenant_id_priority_id"
_BY_CLAIM = "ix_jobs_tenant_id_queue_claimed_at"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("claimed_at", sa.Double(), nullable=True))
    op.execute("UPDATE jobs SET claimed_at = started_at WHERE started_at IS NOT NULL")
    op.drop_index(_BY_AGE, "jobs")
    op.create_index(_BY_OWNER, "jobs", ["queue", "status", "tenant_id", sa.text("priority DESC"), "id"])
    op.create_index(_BY_CLAIM, "jobs", ["tenant_id", "queue", "claimed_at"])


def downgrade() -> None:
    op.drop_index(_BY_CLAIM, "jobs")
    op.drop_index(_BY_OWNER, "jobs")
    op.create_index(_BY_AGE, "jobs", ["queue", "status", sa.text("priority DESC"), "id"])
    op.drop_column("jobs", "claimed_at")
