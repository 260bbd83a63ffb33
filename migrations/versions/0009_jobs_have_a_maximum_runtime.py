"""Jobs have a maximum runtime, and the time for which they have run."""

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


def downgrade() -> None:
    op.drop_column("jobs", "run_seconds")
    op.drop_column("jobs", "max_runtime")
