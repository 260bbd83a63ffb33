"""Keys have scopes, an expiry and a last use; there is an audit trail."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_REFUSE_UPDATES = {
    "sqlite": [
        "CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit"
        " BEGIN SELECT RAISE(ABORT, 'entries of the audit trail are not changed'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION refuse_update_of_audit() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'entries of the audit trail are not changed'; END $$",
        "CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_update_of_audit()",
    ],
}


def upgrade() -> None:
    op.add_column(
        "keys", sa.Column("scopes", sa.String(length=64), server_default="read embed train admin", nullable=False)
    )
    op.add_column("keys", sa.Column("expires_at", sa.Double(), nullable=True))
    op.add_column("keys", sa.Column("last_used_at", sa.Double(), nullable=True))
    op.create_table(
        "audit",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=300), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=True),
        sa.Column("key_name", sa.String(length=200), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_audit_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_tenant_id_id", "audit", ["tenant_id", "id"])
    op.create_index(op.f("ix_audit_at"), "audit", ["at"])
    for statement in _REFUSE_UPDATES[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_update_of_audit()")
    for column in ("last_used_at", "expires_at", "scopes"):
        op.drop_column("keys", column)
