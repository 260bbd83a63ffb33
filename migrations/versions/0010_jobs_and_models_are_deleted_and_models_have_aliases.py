"""Jobs and models may be deleted, series may have no job, and models have aliases."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_COUNTED = ["tenant_id", "kind", "status", "attempt", "queued_at"]
_WITHOUT_DELETED = f"ix_jobs_{'_'.join(_COUNTED)}"
_WITH_DELETED = f"{_WITHOUT_DELETED}_deleted_at"


def upgrade() -> None:
    op.add_column("models", sa.Column("deleted_at", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("deleted_at", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("freed_at", sa.Double(), nullable=True))
    op.create_index(op.f("ix_jobs_freed_at"), "jobs", ["freed_at"])
    op.drop_index(_WITHOUT_DELETED, "jobs")
    op.create_index(_WITH_DELETED, "jobs", [*_COUNTED, "deleted_at"])
    _let_series_have_no_job(True)
    op.create_table(
        "aliases",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("model_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("moved_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_aliases_tenant_id_tenants"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_aliases_model_id_models"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name="pk_aliases"),
    )
    op.create_index(op.f("ix_aliases_model_id"), "aliases", ["model_id"])


def downgrade() -> None:
    op.drop_table("aliases")
    op.execute("DELETE FROM points WHERE series_id IN (SELECT id FROM series WHERE job_id IS NULL)")
    op.execute("DELETE FROM series WHERE job_id IS NULL")
    _let_series_have_no_job(False)
    op.drop_index(_WITH_DELETED, "jobs")
    op.create_index(_WITHOUT_DELETED, "jobs", _COUNTED)
    op.drop_index(op.f("ix_jobs_freed_at"), "jobs")
    op.drop_column("jobs", "freed_at")
    op.drop_column("jobs", "deleted_at")
    op.drop_column("models", "deleted_at")


def _let_series_have_no_job(nullable: bool) -> None:
    with op.batch_alter_table("series") as table:
        table.alter_column("job_id", existing_type=sa.String(length=64), nullable=nullable)
