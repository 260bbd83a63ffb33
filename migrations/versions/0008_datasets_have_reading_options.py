"""Datasets have the options with which their upload is read; those read before have none, and are read again."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("reading", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("datasets", "reading")
