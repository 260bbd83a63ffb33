"""The administration command: `python -m service migrate | bootstrap | check | verify | backup | restore | keys`."""

import argparse
import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alembic.util import CommandError
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service import audit, garbage, keys
from service.audit import Actor
from service.backup import command as backup
from service.backup.restore import MARK
from service.db import migrate
from service.db.session import Database, clock
from service.errors import Conflict, Error, StorageAway
from service.keys import SCOPES
from service.keys.grants import DAY_SECONDS, MAX_EXPIRY_DAYS
from service.settings import Settings, load_settings
from service.storage import Storage
from service.verify import command
from ssl_core.files import describe, write_atomic

OWNER = "local"  # tenant of the key that bootstrap creates


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except Error as error:
        print(error.detail, file=sys.stderr)  # noqa: T201
    except (DBAPIError, CommandError) as error:
        where = make_url(load_settings().database).render_as_string(hide_password=True)
        print(f"{where} cannot be used: {getattr(error, 'orig', error)}", file=sys.stderr)  # noqa: T201
    except OSError as error:
        path = error.filename or load_settings().data_dir
        print(f"{path} cannot be read or written: {describe(error)}.", file=sys.stderr)  # noqa: T201
    except KeyboardInterrupt:
        return 130  # as a shell reports SIGINT
    return 1


def _migrate(options: argparse.Namespace) -> int:
    settings = load_settings()
    Storage(settings.data_dir).check_writable()
    with _open_database(settings) as database:
        migrate.upgrade(database)
    return 0


def _bootstrap(options: argparse.Namespace) -> int:
    """Migrate, create the first tenant and its key, and write the URL of the API and the key to credentials.json."""
    settings = load_settings()
    if (settings.data_dir / MARK).exists():
        raise Conflict(f"A restoration into {settings.data_dir} was interrupted. Repeat it, or empty the folder.")
    Storage(settings.data_dir).check_writable()
    with _locked(settings.data_dir), _open_database(settings) as database:
        migrate.upgrade(database)
        path = settings.data_dir / "credentials.json"
        with database.writing() as session:
            key = _read_valid_key(session, path)
            if key is None:
                _check_folder(session, settings, adopt=options.adopt)
                tenant = keys.get_or_create_tenant(session, OWNER)
                made, key = keys.create(session, tenant.id, "first", "operator")
                audit.record(session, Actor(tenant.id), "key.create", made.id, name=made.name, role=made.role)
                _keep_old(path)
        content = json.dumps({"url": options.url, "key": key})
        write_atomic(path, content.encode(), mode=0o600)
    return 0


def _create_key(options: argparse.Namespace) -> int:
    with _open_database(load_settings()) as database, database.writing() as session:
        tenant = keys.get_or_create_tenant(session, options.owner)
        expires_at = None if options.days is None else clock(session) + options.days * DAY_SECONDS
        scopes = options.scopes or list(SCOPES)
        key, secret = keys.create(session, tenant.id, options.name, options.role, scopes=scopes, expires_at=expires_at)
        audit.record(session, Actor(tenant.id), "key.create", key.id, name=key.name, role=key.role, scopes=scopes)
    print(secret)  # noqa: T201
    return 0


def _check(options: argparse.Namespace) -> int:
    """Return 0 if the migrations produce the schema of the models; else print the differences and return 1."""
    with _open_scratch_database() as database:
        found = migrate.find_differences(database)
    for difference in found:
        print(difference, file=sys.stderr)  # noqa: T201
    return 1 if found else 0


def _verify(options: argparse.Namespace) -> int:
    settings = _load_existing()
    with _open_database(settings) as database:
        return command.run(database, Storage(settings.data_dir), restart=options.restart, recording=options.record)


def _backup(options: argparse.Namespace) -> int:
    settings = _load_existing()
    with _open_database(settings) as database:
        return backup.run_backup(database, Storage(settings.data_dir), options.out, options.since)


def _restore(options: argparse.Namespace) -> int:
    return backup.run_restore(options.backup, load_settings(), keep_damaged=options.keep_damaged)


def _revision(options: argparse.Namespace) -> int:
    """Write a revision from the newest one to the schema of the models."""
    with _open_scratch_database() as database:
        migrate.revise(database, options.message)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service", description="Administer the service, by its TWOVIEWS_* settings."
    )
    commands = parser.add_subparsers(required=True)
    commands.add_parser("migrate", help="bring the schema to the newest revision").set_defaults(run=_migrate)
    bootstrap = commands.add_parser("bootstrap", help="migrate, and write the first key to credentials.json")
    bootstrap.add_argument("--url", required=True, help="URL of the API")
    bootstrap.add_argument("--adopt", action="store_true", help="start although the folder is of another database")
    bootstrap.set_defaults(run=_bootstrap)
    check = commands.add_parser("check", help="compare the models with the migrations")
    check.set_defaults(run=_check)
    verify = commands.add_parser("verify", help="compare every stored file with its recorded SHA-256")
    verify.add_argument("--restart", action="store_true", help="check again what an interrupted verification checked")
    verify.add_argument("--record", action="store_true", help="record the SHA-256 of models of earlier versions")
    verify.set_defaults(run=_verify)
    _add_backup_parsers(commands)
    revision = commands.add_parser("revision", help="write a migration for the changes of the models")
    revision.add_argument("message")
    revision.set_defaults(run=_revision)
    key_commands = commands.add_parser("keys", help="bearer keys").add_subparsers(required=True)
    create = key_commands.add_parser("create", help="print a new key of that owner")
    create.add_argument("owner")
    create.add_argument("--name", default="key")
    create.add_argument(
        "--operator",
        dest="role",
        action="store_const",
        const="operator",
        default="owner",
        help="let it read the metrics of all owners",
    )
    create.add_argument(
        "--scope", dest="scopes", action="append", choices=list(SCOPES), help="what it may be used for; default: all"
    )
    create.add_argument("--expires-in-days", dest="days", type=_parse_days, help="default: it does not expire")
    create.set_defaults(run=_create_key)
    return parser


def _load_existing() -> Settings:
    """Return the settings. Raises Conflict when their data folder is missing: it is probably another one."""
    settings = load_settings()
    if not settings.data_dir.is_dir():
        raise Conflict(f"There is no data folder {settings.data_dir.absolute()}.")
    return settings


def _add_backup_parsers(commands: Any) -> None:
    create = commands.add_parser("backup", help="write a backup of the database and the files to a new folder")
    create.add_argument("out", type=Path)
    create.add_argument("--since", type=Path, help="earlier backup, to whose unchanged files hard links are made")
    create.set_defaults(run=_backup)
    restore = commands.add_parser("restore", help="restore a backup into an empty data folder and database")
    restore.add_argument("backup", type=Path)
    restore.add_argument("--keep-damaged", action="store_true", help="restore a backup with damaged files")
    restore.set_defaults(run=_restore)


def _parse_days(value: str) -> int:
    days = int(value)
    if not 1 <= days <= MAX_EXPIRY_DAYS:
        raise ValueError
    return days


@contextmanager
def _open_database(settings: Settings) -> Iterator[Database]:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageAway(f"{settings.data_dir} cannot be the data folder: {error.strerror}.") from error
    database = Database(settings.database)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _open_scratch_database() -> Iterator[Database]:
    """Open a temporary SQLite database with the newest schema."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{quote(folder)}/scratch.db")
        try:
            migrate.upgrade(database)
            yield database
        finally:
            database.close()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on the folder; the operating system releases it with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_valid_key(session: Session, path: Path) -> str | None:
    """Return the key in the file, or None if it is missing or no longer valid."""
    try:
        key = json.loads(path.read_bytes())["key"]
        keys.authenticate(session, key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Error):
        return None
    return str(key)


def _check_folder(session: Session, settings: Settings, *, adopt: bool) -> None:
    """Raise Conflict when the folder's datasets and jobs are of another database, unless they are adopted."""
    found = set(Storage(settings.data_dir).list_folders())
    if found and not adopt and garbage.known_folders(session).isdisjoint(found):
        where = make_url(settings.database).render_as_string(hide_password=True)
        raise Conflict(
            f"{settings.data_dir} has data of another database: {where} knows none of its {len(found)} datasets and "
            "jobs. Restore that database, choose another folder, or start with --adopt; the data is then kept unused."
        )


def _keep_old(path: Path) -> None:
    """Keep a file with a key that is replaced."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}.old"))


if __name__ == "__main__":
    sys.exit(main())
