"""Migration: bringing a database's schema to the newest revision, and telling whether the models agree with it.

The revisions are the package `migrations`, found where it is installed; the working directory does not matter.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Index

import migrations
from service.db.models import Base
from service.db.session import Database

_LOCK = 7_483_920_115  # any number, but always this one


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema to that revision, in one transaction; whoever comes second waits and finds it done."""
    with _changing(database) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        command.upgrade(_config(connection), revision)


def differences(database: Database) -> list[Any]:
    """Return what the models say and the migrated schema does not, as Alembic's list of operations."""
    options = {"compare_type": True, "compare_server_default": True, "include_object": _comparable}
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "autogenerate skipping metadata-specified expression-based index")
            found = list(compare_metadata(context, Base.metadata))
        return found + _missing_indexes(connection)


def revise(database: Database, message: str) -> None:
    """Write a new revision holding what the models say and the (migrated) schema does not."""
    with database.engine.begin() as connection:
        config = _config(connection)
        number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1
        config.attributes["include_object"] = _comparable
        command.revision(config, message, autogenerate=True, rev_id=f"{number:04}")


@contextmanager
def _changing(database: Database) -> Iterator[Connection]:
    """A transaction that may copy tables. SQLite: BEGIN IMMEDIATE is the lock, and while a table that others refer to
    is replaced by its copy, nobody may mind that it is away; a transaction cannot ask for that any more."""
    with database.engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            with connection.begin():
                yield connection
            return
        driver = connection.connection.cursor()
        driver.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
                assert not connection.exec_driver_sql("PRAGMA foreign_key_check").all(), "a row refers to none"
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def _over_expressions() -> dict[str | None, Index]:
    """Indexes over more than plain columns, by name; SQLite does not tell all about such a one."""
    indexes = [index for table in Base.metadata.sorted_tables for index in table.indexes]
    return {index.name: index for index in indexes if any(not isinstance(part, Column) for part in index.expressions)}


def _comparable(item: object, name: str | None, kind: str, *rest: object) -> bool:
    """Alembic leaves indexes over expressions to `_missing_indexes`."""
    return kind != "index" or name not in _over_expressions()


def _missing_indexes(connection: Connection) -> list[Any]:
    table = "sqlite_master WHERE type = 'index'" if connection.dialect.name == "sqlite" else "pg_indexes"
    column = "name" if connection.dialect.name == "sqlite" else "indexname"
    there = set(connection.exec_driver_sql(f"SELECT {column} FROM {table}").scalars())
    return [("add_index", index) for name, index in _over_expressions().items() if name not in there]
