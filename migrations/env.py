"""Environment: how Alembic meets the database; `service.db.migrate` hands it an open transaction."""

from alembic import context
from sqlalchemy import Connection

from service.db.models import Base


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by copying it
        transactional_ddl=True,  # SQLite can, once the driver's own BEGIN is out of the way (service.db.session)
        compare_type=True,
        compare_server_default=True,
        include_object=context.config.attributes.get("include_object"),
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
