"""Datasets have the size of their packed files."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("stored_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("datasets", "stored_bytes")
