"""Keys have a role: owner or operator."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("role", sa.String(length=64), server_default="owner", nullable=False))


def downgrade() -> None:
    op.drop_column("keys", "role")
