"""A snapshot of the database: one transaction that sees one moment, and its copy as an SQLite file.

PostgreSQL is read by SELECTs in one REPEATABLE READ transaction, not by `pg_dump`: that program is not a dependency and
must be at least as new as the server, and the SQLite file restores into both kinds of database.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import JSON, Connection, Table, Text, cast, select
from sqlalchemy.orm import Session

from service.db import migrate, revisions
from service.db.models import Base
from service.db.session import Database
from service.errors import Conflict

_ROWS = 5_000  # read and written at a time


class Snapshot:
    """The database at one moment."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def kind(self) -> str:
        """The kind of database: sqlite or postgresql."""
        return str(self._connection.dialect.name)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that sees the snapshot."""
        with Session(self._connection, join_transaction_mode="create_savepoint", autoflush=False) as session:
            yield session

    def write(self, path: Path) -> None:
        """Write the snapshot to a new SQLite file, durably. Raises OSError and sqlite3.Error."""
        path.unlink(missing_ok=True)
        if self.kind == "sqlite":
            self._copy_pages(path)
        else:
            self._copy_rows(path)
        with closing(sqlite3.connect(path)) as target:
            target.execute("PRAGMA journal_mode=DELETE")

    def _copy_pages(self, path: Path) -> None:
        """Copy the pages by SQLite's online backup, within the transaction that is open: it sees the same moment."""
        source: Any = self._connection.connection.driver_connection
        with closing(sqlite3.connect(path)) as target:
            source.backup(target)

    def _copy_rows(self, path: Path) -> None:
        database = Database(f"sqlite:///{quote(str(path))}")
        try:
            migrate.upgrade(database)
        finally:
            database.close()
        with closing(sqlite3.connect(path)) as target:
            target.execute("PRAGMA foreign_keys=OFF")  # a job may come before its parent
            for table in Base.metadata.sorted_tables:
                self._copy_table(table, target)
            target.commit()

    def _copy_table(self, table: Table, target: sqlite3.Connection) -> None:
        columns = [cast(column, Text) if isinstance(column.type, JSON) else column for column in table.columns]
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        insert = f'INSERT INTO "{table.name}" ({names}) VALUES ({", ".join("?" * len(columns))})'
        with self._connection.execution_options(yield_per=_ROWS).execute(select(*columns)) as rows:
            for part in rows.partitions():
                target.executemany(insert, [tuple(row) for row in part])


@contextmanager
def open_snapshot(database: Database) -> Iterator[Snapshot]:
    """Open a snapshot; writers go on. Raises Conflict when the schema is not that of this version."""
    options = {} if database.is_local else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with database.engine.execution_options(transaction="read", **options).connect() as connection, connection.begin():
        revision = revisions.read(connection)  # the first statement fixes the moment
        if revision != revisions.newest():
            raise Conflict(
                f"The schema of the database is at revision {revision}, and this version of Twoviews backs up revision "
                f"{revisions.newest()}. Back up with the version that wrote it, or run `python -m service "
                "migrate` first."
            )
        if not database.is_local:
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield Snapshot(connection)
