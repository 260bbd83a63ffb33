"""Alembic environment: runs the migrations in the transaction opened by `service.db.migrate`."""

from alembic import context
from sqlalchemy import Connection

from service.db.models import Base


def run_migrations(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by copying it
        transactional_ddl=True,  # possible in SQLite without the driver's own BEGIN (service.db.session)
        compare_type=True,
        compare_server_default=True,
        include_object=context.config.attributes.get("include_object"),
    )
    with context.begin_transaction():
        context.run_migrations()


run_migrations(context.config.attributes["connection"])
