"""Schema migrations by Alembic: upgrade a database, compare its schema with the models, write revisions.

The revisions are the installed package `migrations`; the working directory does not matter.
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
from sqlalchemy import Column, Connection, Index

import migrations
from service.db import revisions
from service.db.models import Base
from service.db.session import Database

_LOCK = 7_483_920_115  # an arbitrary constant
_SCRIPTS = str(Path(migrations.__path__[0])).replace("%", "%%")


def upgrade(database: Database, revision: str = "head") -> None:
    """Upgrade the schema to that revision in one transaction; concurrent calls wait for it."""
    with _migrating(database) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        command.upgrade(_build_config(connection), revision)


def find_differences(database: Database) -> list[Any]:
    """Return the differences of the models from the migrated schema, as Alembic's list of operations."""
    options = {"compare_type": True, "compare_server_default": True, "include_object": _is_comparable}
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "autogenerate skipping metadata-specified expression-based index")
            found = list(compare_metadata(context, Base.metadata))
        return found + _find_missing_indexes(connection)


def revise(database: Database, message: str) -> None:
    """Write a new revision with the differences of the models from the migrated schema."""
    with database.engine.begin() as connection:
        config = _build_config(connection)
        number = int(revisions.newest()) + 1
        config.attributes["include_object"] = _is_comparable
        command.revision(config, message, autogenerate=True, rev_id=f"{number:04}")


@contextmanager
def _migrating(database: Database) -> Iterator[Connection]:
    """Open a transaction that may copy tables. SQLite: BEGIN IMMEDIATE is the lock, and foreign keys are off while a
    referenced table is replaced by its copy; within a transaction they cannot be turned off."""
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
                assert not connection.exec_driver_sql("PRAGMA foreign_key_check").all(), "a row violates a foreign key"
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _build_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def _expression_indexes() -> dict[str | None, Index]:
    """Return the indexes over expressions, by name; SQLite cannot reflect them fully."""
    indexes = [index for table in Base.metadata.sorted_tables for index in table.indexes]
    return {index.name: index for index in indexes if any(not isinstance(part, Column) for part in index.expressions)}


def _is_comparable(item: object, name: str | None, kind: str, *rest: object) -> bool:
    """Exclude indexes over expressions, which `_find_missing_indexes` compares."""
    return kind != "index" or name not in _expression_indexes()


def _find_missing_indexes(connection: Connection) -> list[Any]:
    table = "sqlite_master WHERE type = 'index'" if connection.dialect.name == "sqlite" else "pg_indexes"
    column = "name" if connection.dialect.name == "sqlite" else "indexname"
    existing = set(connection.exec_driver_sql(f"SELECT {column} FROM {table}").scalars())
    return [("add_index", index) for name, index in _expression_indexes().items() if name not in existing]
