"""Sessions: concurrent writers and readers on both databases."""

import sqlite3
import threading

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from service import keys
from service.db import session as sessions
from service.db.session import Database


def test_concurrent_writers_all_commit(database):
    barrier = threading.Barrier(8)

    def write(number):
        barrier.wait()
        for step in range(5):
            with database.writing() as session:
                keys.get_or_create_tenant(session, f"{number}-{step}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with database.reading() as session:
        assert session.execute(text("SELECT count(*) FROM tenants")).scalar_one() == 40


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_failed_writer_releases_the_write_lock(database_url, monkeypatch):
    monkeypatch.setattr(sessions, "BUSY_SECONDS", 0.05)
    mine, other = Database(database_url), Database(database_url)
    with pytest.raises(OperationalError), mine.writing() as session:
        session.execute(text("NONSENSE"))
    with other.writing() as session:
        keys.get_or_create_tenant(session, "b")
        with pytest.raises(OperationalError), mine.writing() as late:
            keys.get_or_create_tenant(late, "c")
    with mine.engine.connect() as connection:
        for _ in range(2):  # two transactions on one connection: it holds the lock for both
            with connection.begin():
                connection.execute(text("SELECT 1"))
    with mine.writing() as session:
        assert keys.get_or_create_tenant(session, "d").name == "d"
    mine.close()
    other.close()


def test_reader_does_not_wait_for_writers(database):
    with database.writing() as writer:
        keys.get_or_create_tenant(writer, "a")
        with database.reading() as reader:
            assert reader.execute(text("SELECT count(*) FROM tenants")).scalar_one() == 0


def test_each_statement_of_a_reader_sees_what_is_committed_before_it(database):
    count = text("SELECT count(*) FROM tenants")
    with database.reading() as session, database.connecting() as connection:
        assert session.execute(count).scalar_one() == connection.execute(count).scalar_one() == 0
        with database.writing() as writer:
            keys.get_or_create_tenant(writer, "a")
        assert session.execute(count).scalar_one() == connection.execute(count).scalar_one() == 1


def test_a_new_sqlite_database_is_opened_while_another_connection_writes_it(tmp_path):
    first = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    first.execute("BEGIN IMMEDIATE")
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    release = threading.Timer(0.3, first.execute, ("COMMIT",))
    release.start()
    with database.reading() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    release.join()
    first.close()
    database.close()
