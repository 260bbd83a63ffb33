"""There are indexes of embeddings."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | Sequence[str] | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "indexes",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=True),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("build_id", sa.String(64), nullable=False),
        sa.Column("dataset_id", sa.String(64), nullable=True),
        sa.Column("model_id", sa.String(64), nullable=True),
        sa.Column("layer", sa.String(100), nullable=False),
        sa.Column("user_metadata", sa.JSON(), nullable=False),
        sa.Column("path", sa.String(400), nullable=True),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ready_at", sa.Double(), nullable=True),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_indexes_tenant_id_tenants"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_indexes_job_id_jobs"),
        sa.ForeignKeyConstraint(["build_id"], ["jobs.id"], name="fk_indexes_build_id_jobs"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_indexes_dataset_id_datasets"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_indexes_model_id_models"),
        sa.PrimaryKeyConstraint("id", name="pk_indexes"),
        sa.UniqueConstraint("build_id", name="uq_indexes_build_id"),
    )
    op.create_index("ix_indexes_tenant_id_id", "indexes", ["tenant_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_indexes_tenant_id_id", table_name="indexes")
    op.drop_table("indexes")
