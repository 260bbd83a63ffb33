"""The revision of the schema: which this version needs, and which a database has. Imports no Alembic.

A revision is a file `<number>_<what it does>.py` in `migrations/versions/`; each follows the one before.
"""

import sys
from pathlib import Path

from sqlalchemy import Connection, column, inspect, make_url, select, table
from sqlalchemy.exc import SQLAlchemyError

import migrations
from service.db.session import Database

_VERSIONS = table("alembic_version", column("version_num"))


def list_known() -> list[str]:
    """Return the revisions of this version, from the first to the newest."""
    return sorted(path.name.partition("_")[0] for path in Path(migrations.__path__[0], "versions").glob("[0-9]*.py"))


def newest() -> str:
    """Return the revision that this version needs."""
    return list_known()[-1]


def read(connection: Connection) -> str | None:
    """Return the revision of the database's schema; None for a database without one."""
    if not inspect(connection).has_table(_VERSIONS.name):
        return None
    return connection.scalar(select(_VERSIONS.c.version_num))


def require_newest(url: str) -> None:
    """Exit with a sentence unless the schema of the database is the one that this version needs.

    A database that cannot be reached is no reason: the process waits for it.
    """
    try:
        found = _read(url)
    except (SQLAlchemyError, OSError):
        return
    if found == newest():
        return
    where = make_url(url).render_as_string(hide_password=True)
    state = "has no schema" if found is None else f"has the schema of revision {found}"
    advice = "Run `python -m service migrate`."
    if found is not None and found not in list_known():
        advice = "A newer version of Twoviews has migrated it: install that version."
    sys.exit(f"The database {where} {state}, and this version of Twoviews needs revision {newest()}. {advice}")


def _read(url: str) -> str | None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(str(parsed.database))
        if path.parent.is_dir() and not path.exists():  # opening it would create it
            return None
    database = Database(url, pool_size=1)
    try:
        with database.engine.execution_options(transaction="read").connect() as connection:
            return read(connection)
    finally:
        database.close()
