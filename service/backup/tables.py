"""The rows of all tables: whether there are any, and their way from an SQLite file into PostgreSQL."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Connection, Table, inspect, select

from service.db.models import Base
from service.db.session import Database

_ROWS = 5_000  # read at a time


def are_empty(connection: Connection) -> bool:
    """Whether the database has none of the service's tables, or no row in them."""
    existing = set(inspect(connection).get_table_names())
    tables = [table for table in Base.metadata.sorted_tables if table.name in existing]
    return all(connection.execute(select(*table.primary_key).limit(1)).first() is None for table in tables)


def load(path: Path, database: Database) -> None:
    """Load the rows of an SQLite file into an empty PostgreSQL database of the same schema, in one transaction.

    Each table is one COPY, which checks foreign keys at its end: a job may come before its parent. Raises sqlite3.Error
    and SQLAlchemy's errors.
    """
    with closing(sqlite3.connect(path)) as source, database.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        for table in Base.metadata.sorted_tables:
            _load_table(source, table, connection)


def _load_table(source: sqlite3.Connection, table: Table, connection: Connection) -> None:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    flags = [place for place, column in enumerate(table.columns) if isinstance(column.type, Boolean)]
    rows = source.execute(f'SELECT {names} FROM "{table.name}"')
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({names}) FROM STDIN') as copy:
        while part := rows.fetchmany(_ROWS):
            for row in part:
                values = list(row)
                for place in flags:
                    values[place] = None if values[place] is None else bool(values[place])
                copy.write_row(values)
    _set_sequence(table, connection)


def _set_sequence(table: Table, connection: Connection) -> None:
    """Make the numbers that the database gives out go on after the loaded ones."""
    column = table.autoincrement_column
    if column is None:
        return
    connection.exec_driver_sql(
        f"SELECT setval(pg_get_serial_sequence('{table.name}', '{column.name}'), "
        f'(SELECT COALESCE(MAX("{column.name}"), 0) + 1 FROM "{table.name}"), false)'
    )
