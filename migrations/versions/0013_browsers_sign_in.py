"""A browser signs in with a one-time token."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | Sequence[str] | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "sign_in_tokens",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_sign_in_tokens_key_id_keys"),
        sa.PrimaryKeyConstraint("sha256", name="pk_sign_in_tokens"),
    )
    op.create_index("ix_sign_in_tokens_key_id", "sign_in_tokens", ["key_id"])


def downgrade() -> None:
    op.drop_table("sign_in_tokens")
