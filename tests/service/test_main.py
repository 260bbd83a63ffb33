"""The administration command: bootstrap, keys, migrate and check."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import service
from service import audit, keys
from service.__main__ import main
from service.db import migrate
from service.db.session import Database, clock
from service.errors import WrongKey

ROOT = Path(service.__path__[0]).parent


@pytest.fixture
def data(tmp_path, monkeypatch, database_url):
    """A data folder that does not exist, and an empty database."""
    monkeypatch.setenv("TWOVIEWS_DATA_DIR", str(tmp_path / "deep" / "data"))
    monkeypatch.setenv("TWOVIEWS_DATABASE_URL", database_url)
    return tmp_path / "deep" / "data"


def credentials(data):
    return json.loads((data / "credentials.json").read_text())


def test_bootstrap_writes_a_valid_key(data, database):
    assert main(["bootstrap", "--url", "http://127.0.0.1:1234"]) == 0
    found = credentials(data)
    assert found["url"] == "http://127.0.0.1:1234"
    assert stat.S_IMODE(os.stat(data / "credentials.json").st_mode) == 0o600
    with database.reading() as session:
        assert keys.authenticate(session, found["key"]).role == "operator"


@pytest.mark.parametrize(("options", "role"), [([], "owner"), (["--operator"], "operator")])
def test_new_keys_have_the_role(data, database, capsys, options, role):
    assert main(["keys", "create", "acme", *options]) == 0
    with database.reading() as session:
        assert keys.authenticate(session, capsys.readouterr().out.strip()).role == role


def test_second_bootstrap_keeps_the_key_and_updates_the_url(data, database):
    main(["bootstrap", "--url", "http://127.0.0.1:1"])
    first = credentials(data)
    main(["bootstrap", "--url", "http://127.0.0.1:2"])
    assert credentials(data) == {"url": "http://127.0.0.1:2", "key": first["key"]}
    assert [path.name for path in data.iterdir() if "credentials" in path.name] == ["credentials.json"]


def test_bootstrap_replaces_an_invalid_key(data, database):
    data.mkdir(parents=True)
    for broken in ("", "[]", "{", '{"key": 5}', '{"key": "tv_revoked"}'):
        (data / "credentials.json").write_text(broken)
        main(["bootstrap", "--url", "http://127.0.0.1:1"])
        with database.reading() as session:
            keys.authenticate(session, credentials(data)["key"])


def test_data_of_another_database_is_not_adopted_unasked(data, database, capsys):
    (data / "jobs" / "job_06h1t0z3vverpnyjwphwrdam67" / "a1").mkdir(parents=True)
    (data / "credentials.json").write_text('{"key": "tv_of_the_other"}')
    assert main(["bootstrap", "--url", "http://127.0.0.1:1"]) == 1
    assert "knows none of its 1 datasets and jobs" in capsys.readouterr().err
    assert credentials(data) == {"key": "tv_of_the_other"}
    assert main(["bootstrap", "--url", "http://127.0.0.1:1", "--adopt"]) == 0
    assert credentials(data)["url"] == "http://127.0.0.1:1"
    assert json.loads((data / "credentials.json.old").read_text()) == {"key": "tv_of_the_other"}
    assert main(["bootstrap", "--url", "http://127.0.0.1:2"]) == 0  # its key is valid from now on


def test_created_key_authenticates_as_its_owner(data, database, capsys):
    assert main(["keys", "create", "acme", "--name", "laptop"]) == 0
    secret = capsys.readouterr().out.strip()
    with database.writing() as session:
        assert keys.authenticate(session, secret).tenant_id == keys.get_or_create_tenant(session, "acme").id
        with pytest.raises(WrongKey):
            keys.authenticate(session, secret + "x")


def test_invalid_name_prints_an_error(data, capsys):
    assert main(["keys", "create", "a\nb"]) == 1
    assert "control characters" in capsys.readouterr().err


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("damage", ["garbled", "newer"])
def test_unusable_database_prints_an_error(data, database, capsys, damage):
    file = Path(str(database.engine.url.database))
    if damage == "garbled":
        database.close()
        file.write_bytes(b"this is no database" * 1000)
    else:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'of_tomorrow'")
    assert main(["bootstrap", "--url", "http://127.0.0.1:1234"]) == 1
    output = capsys.readouterr().err
    assert f"{file} cannot be used: " in output
    assert ("not a database" if damage == "garbled" else "of_tomorrow") in output
    assert "Traceback" not in output


@pytest.mark.parametrize("command", [["migrate"], ["bootstrap", "--url", "http://127.0.0.1:1"]])
def test_a_data_folder_that_cannot_be_written_is_a_sentence(tmp_path, command):
    """A process that may write no byte to a file stands for a full or read-only disk."""
    environment = {**os.environ, "TWOVIEWS_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    code = "import resource as r, sys, service.__main__ as m; r.setrlimit(r.RLIMIT_FSIZE, (0, 0)); sys.exit(m.main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"The data folder {tmp_path} cannot be written: File too large.\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_check_finds_no_differences():
    assert main(["check"]) == 0


def test_concurrent_migrations_from_any_folder(tmp_path):
    environment = {**os.environ, "TWOVIEWS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    environment.pop("TWOVIEWS_DATABASE_URL", None)
    command = [sys.executable, "-m", "service", "bootstrap", "--url", "http://127.0.0.1:1"]
    started = [subprocess.Popen(command, cwd=tmp_path, env=environment) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    database = Database(f"sqlite:///{tmp_path / 'data' / 'twoviews.db'}")
    assert migrate.find_differences(database) == []
    with database.reading() as session:
        keys.authenticate(session, credentials(tmp_path / "data")["key"])
        assert (
            len(keys.list_(session, keys.authenticate(session, credentials(tmp_path / "data")["key"]).tenant_id)) == 1
        )
    database.close()


def test_keys_of_the_command_have_scopes_and_an_expiry_and_are_recorded(data, database, capsys):
    assert main(["keys", "create", "acme", "--scope", "read", "--scope", "embed", "--expires-in-days", "7"]) == 0
    with database.reading() as session:
        found = keys.authenticate(session, capsys.readouterr().out.strip())
        assert (found.scopes, found.expires_at - clock(session)) == (
            {"read", "embed"},
            pytest.approx(7 * 86_400, abs=60),
        )
        (entry,) = audit.list_(session, found.tenant_id).items
    assert (entry.action, entry.target, entry.key_id) == ("key.create", found.key_id, None)
    with pytest.raises(SystemExit):
        main(["keys", "create", "acme", "--expires-in-days", "0"])
    assert "--expires-in-days" in capsys.readouterr().err
