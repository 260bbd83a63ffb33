"""Sessions: how a database is opened, and its clock.

SQLite: WAL, synchronous=FULL (an accepted job survives a power cut), foreign keys, a busy timeout, and `BEGIN
IMMEDIATE` for a transaction that will write, so that it waits its turn at the start, not in the middle.
"""

import sqlite3
import threading
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

BUSY_SECONDS = 30  # how long a writer waits for its turn
_DISK_FULL = "53100"  # PostgreSQL's code


class now(GenericFunction[float]):
    """Unix seconds by the database's clock, as of this very statement."""

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
    """Return the database's time, for rows that are about to be written."""
    return session.execute(_CLOCK).scalar_one()


_CLOCK = select(now())  # built once: to build a statement takes longer than to run it


def away(error: BaseException) -> bool:
    """Tell whether the database could not be reached, or hung up: the same may well succeed a little later."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def full(error: BaseException) -> bool:
    """Tell whether the database answered that its disk has no room."""
    told = getattr(error, "orig", None)
    return (
        getattr(told, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(told, "sqlstate", None) == _DISK_FULL
    )


class Database:
    """An open database: `writing()` and `reading()` give sessions; whoever asked for a session commits it."""

    def __init__(self, url: str, pool_size: int = 10, frozen_seconds: float = 60) -> None:
        """`frozen_seconds`: a transaction that does nothing for so long is ended by PostgreSQL, its rows freed."""
        sqlite = url.startswith("sqlite")
        here = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        there = {name: value for name, value in _MISSED.items() if name not in make_url(url).query}
        self.engine: Engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=40,
            pool_pre_ping=not sqlite,
            connect_args=here if sqlite else there,
        )
        if sqlite:
            turn = _Turn()
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", turn.begin)
            event.listen(self.engine, "checkin", turn.end)
        else:
            event.listen(self.engine, "connect", partial(_thaw, milliseconds=int(frozen_seconds * 1000)))
        self.is_here = sqlite  # read without a network, and without waiting for anybody
        # On PostgreSQL, whose transactions see each other's commits anyway, reads need none: two round trips fewer, and
        # none when the session is closed.
        level = {} if sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._reader = self.engine.execution_options(reading=True, **level)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session whose transaction is committed when the block ends, rolled back when it raises."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that writes nothing and, on SQLite, waits for no writer."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()


# A server that is gone without a word is noticed in half a minute, not in the two hours of TCP's own.
_MISSED = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def _thaw(connection: Any, record: object, *, milliseconds: int) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")
    connection.commit()


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # the `begin` listener says BEGIN, not the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


class _Turn:
    """Whose turn it is to write to SQLite. The threads of a process wait for each other here, where a free turn is
    noticed at once; other processes are waited for by SQLite, which sleeps up to 0.1 s between looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def begin(self, connection: Connection) -> None:
        if connection.get_execution_options().get("reading", False):
            connection.exec_driver_sql("BEGIN")
            return
        if "turn" not in connection.info and self._lock.acquire(timeout=BUSY_SECONDS):
            connection.info["turn"] = True
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def end(self, connection: object, record: ConnectionPoolEntry) -> None:
        """The connection goes back to the pool: its transaction is over, however it ended."""
        if record.info.pop("turn", False):
            self._lock.release()
