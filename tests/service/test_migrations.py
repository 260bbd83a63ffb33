"""Migrations: one history, which ends where the models are, on both databases."""

from concurrent.futures import ThreadPoolExecutor

from service.db import migrate
from service.db.session import Database


def test_the_models_are_what_the_migrations_make(database):
    assert migrate.differences(database) == []


def test_migrating_again_changes_nothing(database):
    migrate.upgrade(database)
    assert migrate.differences(database) == []


def test_a_missing_index_over_an_expression_is_noticed(database):
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_jobs_queue_status_priority_id")
    assert [operation for operation, *_ in migrate.differences(database)] == ["add_index"]


def test_many_may_migrate_a_new_database_at_once(tmp_path):
    databases = [Database(f"sqlite:///{tmp_path / 'new.db'}") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(migrate.upgrade, databases))
    assert migrate.differences(databases[0]) == []
    for database in databases:
        database.close()
