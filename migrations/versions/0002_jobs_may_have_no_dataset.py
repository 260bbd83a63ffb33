"""Jobs may have no dataset."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_INDEX = (
    "ix_jobs_queue_status_priority_id"  # SQLite, which alters a table by copying it, cannot reflect its expressions
)


def upgrade() -> None:
    _set_nullable(True)


def downgrade() -> None:
    _set_nullable(False)


def _set_nullable(nullable: bool) -> None:
    op.drop_index(_INDEX, "jobs")
    with op.batch_alter_table("jobs") as table:
        table.alter_column("dataset_id", existing_type=sa.String(length=64), nullable=nullable)
    op.create_index(_INDEX, "jobs", ["queue", "status", sa.text("priority DESC"), "id"])
