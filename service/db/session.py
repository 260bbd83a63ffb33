"""Database engine, sessions and clock.

SQLite: WAL, synchronous=FULL (an accepted job survives a power cut), foreign keys, a busy timeout, and `BEGIN
IMMEDIATE` for writing transactions, so that they wait for the lock at their start.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, Double, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.functions import GenericFunction

Reader = Session | Connection  # of functions that select from tables, not with the ORM
BUSY_SECONDS = 30  # how long a writer waits for the lock
_BUSY_POLL_SECONDS = 0.01
_DISK_FULL = "53100"  # PostgreSQL's error code
_DAMAGED = frozenset({"XX001", "XX002"})  # PostgreSQL's: a block, or an index, that cannot be read


class now(GenericFunction[float]):
    """Unix seconds by the database's clock, at the time of the statement."""

    type = Double()
    inherit_cache = True
    name = "twoviews_now"


@compiles(now, "sqlite")
def _sqlite_now(element: Any, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(element: Any, compiler: Any, **kw: Any) -> str:
    return "CAST(extract(epoch from clock_timestamp()) AS double precision)"


def clock(session: Session) -> float:
    """Return the time of the database's clock in Unix seconds."""
    return session.execute(_SELECT_NOW).scalar_one()


_SELECT_NOW = select(now())  # built once: building a statement takes longer than running it


def is_unreachable(error: BaseException) -> bool:
    """Whether the database was unreachable or closed the connection: a retry may succeed."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout) or is_damaged(error):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_disk_full(error: BaseException) -> bool:
    """Whether the database reported that its disk is full."""
    original = getattr(error, "orig", None)
    return (
        getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(original, "sqlstate", None) == _DISK_FULL
    )


def is_damaged(error: BaseException) -> bool:
    """Whether the database could not make sense of what it read; SQLite also reports some failures of the disk so."""
    original = getattr(error, "orig", None)
    primary = getattr(original, "sqlite_errorcode", 0) & 0xFF
    return primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or getattr(original, "sqlstate", None) in _DAMAGED


class Database:
    """An open database, with `writing()` and `reading()` sessions."""

    def __init__(self, url: str, pool_size: int = 10, frozen_seconds: float = 60) -> None:
        """frozen_seconds: PostgreSQL aborts a transaction that is idle for this long."""
        sqlite = url.startswith("sqlite")
        sqlite_arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        postgresql_arguments = {name: value for name, value in _KEEPALIVE.items() if name not in make_url(url).query}
        self.engine: Engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=40,
            pool_pre_ping=not sqlite,
            connect_args=sqlite_arguments if sqlite else postgresql_arguments,
        )
        if sqlite:
            lock = _WriteLock()
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", lock.begin)
            event.listen(self.engine, "checkin", lock.end)
        else:
            event.listen(self.engine, "connect", partial(_set_idle_timeout, milliseconds=int(frozen_seconds * 1000)))
        self.is_local = sqlite  # reads need no network and wait for no lock
        # Every statement reads committed data, so reads need no transaction: autocommit saves two statements on SQLite,
        # and two round trips on PostgreSQL. What must be of one moment is read by one statement, or from a snapshot.
        autocommit: dict[str, Any] = {"transaction": "none"} if sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._reader = self.engine.execution_options(**autocommit)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session whose transaction is committed when the block ends, rolled back when it raises."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a read-only session, whose statements see what is committed; on SQLite it waits for no writer."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def connecting(self) -> Iterator[Connection]:
        """Open a connection for what `reading` is for, without the ORM: it takes half the time."""
        with self._reader.connect() as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()


# A lost server is detected in half a minute, not after the two hours of TCP's default keepalive.
_KEEPALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def _set_idle_timeout(connection: Any, record: object, *, milliseconds: int) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")
    connection.commit()


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # the `begin` listener begins transactions, not the driver
    _enter_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _enter_wal(connection: Any) -> None:
    """Set the journal mode, for which SQLite does not wait while another connection begins to write a new database."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_BUSY_POLL_SECONDS)


class _WriteLock:
    """The lock of a process's SQLite writers. Its threads wait here and wake at once; SQLite itself, which makes
    processes wait for each other, sleeps up to 0.1 s between attempts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def begin(self, connection: Connection) -> None:
        kind = connection.get_execution_options().get("transaction", "write")  # or "read", or "none"
        if kind == "write":
            if "write_lock" not in connection.info and self._lock.acquire(timeout=BUSY_SECONDS):
                connection.info["write_lock"] = True
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif kind == "read":
            connection.exec_driver_sql("BEGIN")

    def end(self, connection: object, record: ConnectionPoolEntry) -> None:
        """Release the lock when the connection returns to the pool, after its transaction."""
        if record.info.pop("write_lock", False):
            self._lock.release()
