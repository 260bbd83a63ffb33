"""Migrations: the migrated schema is that of the models, on both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy.exc import IntegrityError

from service.db import migrate
from service.db.session import Database

ROWS = [
    "INSERT INTO tenants VALUES ('ten_1', 'acme', 1.0)",
    "INSERT INTO datasets VALUES ('ds_1', 'ten_1', 'd', 'ready', 'reject', 'x', 1, 'p', NULL, NULL, 1.0, 1.0, NULL)",
    "INSERT INTO jobs (id, tenant_id, kind, queue, dataset_id, config, user_metadata, priority, status, attempt,"
    " fruitless, attempt_progress, last_event, last_point, created_at)"
    " VALUES ('job_1', 'ten_1', 'pretrain', 'train', 'ds_1', '{}', '{}', 0, 'queued', 0, 0, false, 1, 0, 1.0)",
    "INSERT INTO job_events VALUES ('job_1', 1, 1.0, 0, 'info', 'status', 'Waits.', '{}')",
]


@contextmanager
def fresh(url: str, folder) -> Iterator[Database]:
    """An empty database of the type of the URL."""
    if url.startswith("sqlite"):
        database = Database(f"sqlite:///{folder / 'empty.db'}")
    else:
        database = Database(url)
        with database.engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
    yield database
    database.close()


def test_models_match_the_migrated_schema(database):
    assert migrate.find_differences(database) == []


def test_upgrade_is_idempotent(database):
    migrate.upgrade(database)
    assert migrate.find_differences(database) == []


def test_missing_expression_index_is_found(database):
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_jobs_queue_status_tenant_id_priority_id")
    assert [operation for operation, *_ in migrate.find_differences(database)] == ["add_index"]


def test_concurrent_upgrades(tmp_path):
    databases = [Database(f"sqlite:///{tmp_path / 'new.db'}") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(migrate.upgrade, databases))
    assert migrate.find_differences(databases[0]) == []
    for database in databases:
        database.close()


def test_migrations_keep_rows_and_foreign_keys(database_url, tmp_path):
    with fresh(database_url, tmp_path) as database:
        migrate.upgrade(database, "0001")
        with database.engine.begin() as connection:
            for statement in ROWS:
                connection.exec_driver_sql(statement)
        migrate.upgrade(database)
        assert migrate.find_differences(database) == []
        with database.engine.begin() as connection:
            assert connection.exec_driver_sql("SELECT id, dataset_id FROM jobs").all() == [("job_1", "ds_1")]
            assert connection.exec_driver_sql("SELECT count(*) FROM job_events").scalar() == 1
        with pytest.raises(IntegrityError), database.engine.begin() as connection:
            connection.exec_driver_sql(ROWS[-1].replace("job_1", "job_none"))
