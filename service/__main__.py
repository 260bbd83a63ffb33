"""The command line of whoever runs the service: `python -m service migrate | bootstrap | check | keys | revision`."""

import argparse
import fcntl
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic.util import CommandError
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from service import keys
from service.db import migrate
from service.db.session import Database
from service.errors import Error
from service.settings import Settings

OWNER = "local"  # of the key that bootstrap makes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    asked = _parser().parse_args(arguments)
    try:
        return int(asked.run(asked))
    except Error as error:
        print(error.detail, file=sys.stderr)  # noqa: T201
    except (DBAPIError, CommandError) as error:
        where = make_url(Settings().database).render_as_string(hide_password=True)
        print(f"{where} cannot be used: {getattr(error, 'orig', error)}", file=sys.stderr)  # noqa: T201
    return 1


def _migrate(asked: argparse.Namespace) -> int:
    with _database(Settings()) as database:
        migrate.upgrade(database)
    return 0


def _bootstrap(asked: argparse.Namespace) -> int:
    """Make the schema, the first tenant and its key; write where the service is and the key to credentials.json."""
    settings = Settings()
    with _alone(settings.data_dir), _database(settings) as database:
        migrate.upgrade(database)
        path = settings.data_dir / "credentials.json"
        with database.writing() as session:
            key = _known_key(session, path) or keys.create(session, keys.tenant(session, OWNER).id, "first")[1]
        _write_private(path, {"url": asked.url, "key": key})
    return 0


def _create_key(asked: argparse.Namespace) -> int:
    with _database(Settings()) as database, database.writing() as session:
        _, secret = keys.create(session, keys.tenant(session, asked.owner).id, asked.name)
    print(secret)  # noqa: T201
    return 0


def _check(asked: argparse.Namespace) -> int:
    """Tell whether the migrations lead to what the models say."""
    with _scratch() as database:
        found = migrate.differences(database)
    for difference in found:
        print(difference, file=sys.stderr)  # noqa: T201
    return 1 if found else 0


def _revision(asked: argparse.Namespace) -> int:
    """Write a revision that leads from the newest one to what the models say."""
    with _scratch() as database:
        migrate.revise(database, asked.message)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service", description="Runs on TWOVIEWS_* settings.")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("migrate", help="bring the schema to the newest revision").set_defaults(run=_migrate)
    bootstrap = commands.add_parser("bootstrap", help="migrate, and leave the first key in credentials.json")
    bootstrap.add_argument("--url", required=True, help="where the API will be")
    bootstrap.set_defaults(run=_bootstrap)
    check = commands.add_parser("check", help="compare the models with the migrations")
    check.set_defaults(run=_check)
    revision = commands.add_parser("revision", help="write the migration that the models ask for")
    revision.add_argument("message")
    revision.set_defaults(run=_revision)
    create = commands.add_parser("keys", help="bearer keys").add_subparsers(required=True)
    created = create.add_parser("create", help="print a new key of that owner")
    created.add_argument("owner")
    created.add_argument("--name", default="key")
    created.set_defaults(run=_create_key)
    return parser


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _scratch() -> Iterator[Database]:
    """A fresh SQLite database with the newest schema."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/scratch.db")
        try:
            migrate.upgrade(database)
            yield database
        finally:
            database.close()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder while nobody else does; the lock goes with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _known_key(session: Any, path: Path) -> str | None:
    """Return the key that the file holds, if it still opens the door."""
    try:
        key = json.loads(path.read_bytes())["key"]
        keys.authenticate(session, key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Error):
        return None
    return str(key)


def _write_private(path: Path, content: dict[str, str]) -> None:
    """Write the file in one step, for its owner's eyes only."""
    tmp = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(path)


if __name__ == "__main__":
    sys.exit(main())
