"""Datasets are embedded in shards, which several workers compute."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "embedding_shards",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_row", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("holder_id", sa.String(64), nullable=True),
        sa.Column("holder_attempt", sa.Integer(), nullable=True),
        sa.Column("claimed_at", sa.Double(), nullable=True),
        sa.Column("done_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_embedding_shards_job_id_jobs"),
        sa.ForeignKeyConstraint(["holder_id"], ["jobs.id"], name="fk_embedding_shards_holder_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_embedding_shards"),
    )


def downgrade() -> None:
    op.drop_table("embedding_shards")
