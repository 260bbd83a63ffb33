"""An audit of the jobs table by triggers: every change of a status or an attempt, whatever the service's own log says.

Times are by the database's clock.
"""

from dataclasses import dataclass

from sqlalchemy import text

from service.db.session import Database

_COLUMNS = "job_id, at, old_status, status, old_attempt, attempt, old_lease"
_VALUES = "NEW.id, {now}, OLD.status, NEW.status, OLD.attempt, NEW.attempt, OLD.lease_until"
_INSERT = f"INSERT INTO nemesis_audit ({_COLUMNS}) VALUES ({_VALUES});"
_SQLITE_NOW = "(julianday('now') - 2440587.5) * 86400.0"
_POSTGRESQL_NOW = "CAST(extract(epoch from clock_timestamp()) AS double precision)"
_TABLE = """CREATE TABLE nemesis_audit (seq {serial}, job_id TEXT, at DOUBLE PRECISION, old_status TEXT, status TEXT,
    old_attempt INTEGER, attempt INTEGER, old_lease DOUBLE PRECISION)"""
_SQLITE = (
    _TABLE.format(serial="INTEGER PRIMARY KEY AUTOINCREMENT"),
    f"""CREATE TRIGGER nemesis_audit_jobs AFTER UPDATE ON jobs
        WHEN OLD.status <> NEW.status OR OLD.attempt <> NEW.attempt
        BEGIN {_INSERT.format(now=_SQLITE_NOW)} END""",
)
_POSTGRESQL = (
    _TABLE.format(serial="BIGSERIAL PRIMARY KEY"),
    f"""CREATE FUNCTION nemesis_audit_job() RETURNS trigger AS $$
        BEGIN {_INSERT.format(now=_POSTGRESQL_NOW)} RETURN NULL; END $$ LANGUAGE plpgsql""",
    """CREATE TRIGGER nemesis_audit_jobs AFTER UPDATE ON jobs FOR EACH ROW
        WHEN (OLD.status <> NEW.status OR OLD.attempt <> NEW.attempt) EXECUTE FUNCTION nemesis_audit_job()""",
)


@dataclass(frozen=True)
class Change:
    """A change of a job's row; `old_lease` is the end of the lease that it had before."""

    job_id: str
    at: float
    old_status: str
    status: str
    old_attempt: int
    attempt: int
    old_lease: float | None


def install(database: Database) -> None:
    """Create the table and its trigger, before the first job."""
    is_sqlite = database.engine.url.get_backend_name() == "sqlite"
    with database.writing() as session:
        for statement in _SQLITE if is_sqlite else _POSTGRESQL:
            session.connection().exec_driver_sql(statement)


def read(database: Database) -> list[Change]:
    """Return all changes in order."""
    with database.reading() as session:
        return [Change(*row) for row in session.execute(text(f"SELECT {_COLUMNS} FROM nemesis_audit ORDER BY seq"))]
