"""There are sweeps, whose trials are jobs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | Sequence[str] | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=True),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("status_detail", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("dataset_id", sa.String(64), nullable=False),
        sa.Column("model_id", sa.String(64), nullable=True),
        sa.Column("parent_id", sa.String(64), nullable=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("space", sa.JSON(), nullable=False),
        sa.Column("search", sa.JSON(), nullable=False),
        sa.Column("parallel", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(100), nullable=False),
        sa.Column("goal", sa.String(64), nullable=False),
        sa.Column("pruner", sa.JSON(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("max_runtime", sa.Integer(), nullable=True),
        sa.Column("user_metadata", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_sweeps_tenant_id_tenants"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_sweeps_dataset_id_datasets"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_sweeps_model_id_models"),
        sa.ForeignKeyConstraint(["parent_id"], ["jobs.id"], name="fk_sweeps_parent_id_jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    for columns in (["tenant_id", "id"], ["status"], ["dataset_id"], ["model_id"], ["parent_id"]):
        op.create_index(f"ix_sweeps_{'_'.join(columns)}", "sweeps", columns)
    op.create_table(
        "trials",
        sa.Column("sweep_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=True),
        sa.Column("reports", sa.JSON(), nullable=False),
        sa.Column("pruner_state", sa.JSON(), nullable=True),
        sa.Column("pruned_at", sa.Double(), nullable=True),
        sa.Column("retried_at", sa.Double(), nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_trials_sweep_id_sweeps"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_trials_job_id_jobs"),
        sa.PrimaryKeyConstraint("sweep_id", "number", name="pk_trials"),
        sa.UniqueConstraint("job_id", name="uq_trials_job_id"),
    )
    op.add_column("jobs", sa.Column("sweep_id", sa.String(64), nullable=True))
    op.create_index("ix_jobs_sweep_id", "jobs", ["sweep_id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_sweep_id", table_name="jobs")
    op.drop_column("jobs", "sweep_id")
    op.drop_table("trials")
    op.drop_table("sweeps")
