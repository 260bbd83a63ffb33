"""Jobs have the time at which they were queued, and an index with all that is counted of them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | Sequence[str] | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_COUNTED = "ix_jobs_tenant_id_kind_status_attempt_queued_at"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("queued_at", sa.Double(), nullable=True))
    op.execute("UPDATE jobs SET queued_at = created_at WHERE status = 'queued'")
    op.create_index(_COUNTED, "jobs", ["tenant_id", "kind", "status", "attempt", "queued_at"])


def downgrade() -> None:
    op.drop_index(_COUNTED, "jobs")
    op.drop_column("jobs", "queued_at")
