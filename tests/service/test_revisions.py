"""The revision of the schema: a process does not start on a database of another one, and says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import migrations
from service.__main__ import main
from service.db import migrate, revisions
from service.db.session import Database

ROOT = Path(migrations.__path__[0]).parent
OLDER = (
    "has the schema of revision 0006, and this version of Twoviews needs revision {}. Run `python -m service migrate`."
)
NEWER = (
    "has the schema of revision 9999, and this version of Twoviews needs revision {}. "
    "A newer version of Twoviews has migrated it: install that version."
)
EMPTY = "has no schema, and this version of Twoviews needs revision {}. Run `python -m service migrate`."


def set_revision(database: Database, revision: str) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


def sentence(database: Database, end: str) -> str:
    where = database.engine.url.render_as_string(hide_password=True)
    return f"The database {where} {end.format(revisions.newest())}"


def test_the_known_revisions_are_those_of_alembic():
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert [script.revision for script in scripts.walk_revisions()] == revisions.list_known()[::-1]
    assert scripts.get_current_head() == revisions.newest()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("command", "revision", "end"),
    [
        (["api", "--port", "0"], "0006", OLDER),
        (["worker", "--queue", "data"], "9999", NEWER),
        (["worker.keeper"], "0006", OLDER),
    ],
    ids=("api", "worker", "keeper"),
)
def test_a_process_does_not_start_on_another_schema(database, database_url, tmp_path, command, revision, end):
    set_revision(database, revision)
    settings = {
        "DATA_DIR": str(tmp_path),
        "DATABASE_URL": database_url,
        "BROKER_URL": f"redis+socket://{tmp_path}/none",
    }
    environment = (
        os.environ | {"PYTHONPATH": str(ROOT)} | {f"TWOVIEWS_{name}": value for name, value in settings.items()}
    )
    program = [sys.executable, "-P", "-m", *command]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence(database, end) + "\n")


@pytest.mark.parametrize(("revision", "end"), [("0006", OLDER), ("9999", NEWER)])
def test_the_sentence_names_both_revisions_and_what_to_do(database, database_url, revision, end):
    revisions.require_newest(database_url)
    set_revision(database, revision)
    with pytest.raises(SystemExit) as caught:
        revisions.require_newest(database_url)
    assert caught.value.code == sentence(database, end)


def test_what_the_sentence_says_resolves_it(empty_database_url, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    database = Database(empty_database_url)
    with pytest.raises(SystemExit) as caught:
        revisions.require_newest(empty_database_url)
    assert caught.value.code == sentence(database, EMPTY)
    assert list((tmp_path / "elsewhere").iterdir()) == []  # no file was made
    monkeypatch.setenv("TWOVIEWS_DATA_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TWOVIEWS_DATABASE_URL", empty_database_url)
    assert main(["migrate"]) == 0
    revisions.require_newest(empty_database_url)
    database.close()


def test_a_database_that_cannot_be_reached_is_waited_for(tmp_path):
    revisions.require_newest(f"sqlite:///{tmp_path}/unmounted/twoviews.db")
    revisions.require_newest(f"postgresql+psycopg://a:b@/c?host={tmp_path}")
    garbled = tmp_path / "garbled.db"
    garbled.write_bytes(b"this is no database" * 1000)
    revisions.require_newest(f"sqlite:///{garbled}")


def test_each_revision_is_read_as_alembic_writes_it(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    for revision in revisions.list_known():
        migrate.upgrade(database, revision)
        with database.engine.connect() as connection:
            assert revisions.read(connection) == revision
    database.close()
