"""POST /datasets in the API, with its database: the file is received, and the row that names it is committed.

The calls of SQLite on the database are counted too. Afterwards the API is started again: the dataset is in the list and
becomes ready, or it is not there and the keeper removes the file.
"""

import hashlib
import time
import warnings
from pathlib import Path
from typing import Any

from api.app import create
from service import datasets, garbage, keys
from service.db import migrate
from service.db.session import Database
from service.db.statuses import DatasetStatus
from service.settings import Settings
from service.storage import Storage
from ssl_core.config import Reading
from tests import sample_archives
from tests.faults.syscalls.writer import Writer, error_of
from tests.faults.syscalls.writers.dataset import LIMITS
from tests.service import given
from worker.uploads.ingest import ingest

with warnings.catch_warnings():  # it recommends httpx2; `twoviews` uses httpx, and so do the tests
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

_ARCHIVE = sample_archives.make_zip()
_SHA256 = hashlib.sha256(_ARCHIVE).hexdigest()


def _open(folder: Path) -> Database:
    return Database(f"sqlite:///{folder / 'twoviews.db'}")


def _prepare(folder: Path) -> None:
    database = _open(folder)
    migrate.upgrade(database)
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "owner").id
        secret = keys.create(session, tenant, "key")[1]
    database.close()
    (folder / "key").write_text(f"{tenant} {secret}")


def _post(folder: Path) -> dict[str, Any]:
    """Send the request to the application in this process; return its problem, or {} for 202."""
    secret = (folder / "key").read_text().split()[1]
    settings = Settings(data_dir=folder, broker_url="redis://127.0.0.1:1/0", _env_file=None)  # type: ignore[call-arg]
    with TestClient(create(settings), raise_server_exceptions=False) as client:
        headers = {"Authorization": f"Bearer {secret}"}
        answer = client.post("/datasets", headers=headers, files={"file": ("a.zip", _ARCHIVE)})
    if answer.status_code == 202:
        return {}
    assert answer.status_code == 503, answer.text
    return {"code": answer.json()["code"], "detail": answer.json()["detail"]}


def _look(folder: Path) -> str:
    """After a restart: the file of a dataset in the list can be ingested; without a dataset there is no file."""
    tenant = (folder / "key").read_text().split()[0]
    database, storage = _open(folder), Storage(folder)
    try:
        with database.reading() as session:
            rows = datasets.list_(session, tenant).items
        upload = storage.root / f"uploads/{tenant}/{_SHA256}"
        if not rows:
            assert not upload.exists()
            return "absent"
        if rows[0].status == DatasetStatus.VALIDATING:
            assert hashlib.sha256(upload.read_bytes()).hexdigest() == _SHA256
            _ingest(database, storage, upload)
        with database.reading() as session:
            assert {row.status for row in datasets.list_(session, tenant).items} == {DatasetStatus.READY}
        return "new"
    finally:
        database.close()


def _ingest(database: Database, storage: Storage, upload: Path) -> None:
    """As a worker does."""
    claim = given.claim_job(database, "data")
    assert claim.dataset_id is not None
    events = list(ingest(upload, storage.dataset_dir(claim.dataset_id, claim.attempt), Reading(), LIMITS, _SHA256))
    assert error_of(events) == {}
    given.record_events(database, claim, events[-1])
    given.finish_job(database, claim)


def _sweep(folder: Path) -> None:
    """As the keeper does."""
    database = _open(folder)
    with database.reading() as session:
        live, known = garbage.live_paths(session), garbage.known_folders(session)
    database.close()
    Storage(folder).sweep(live, known, time.time() + 3600)


WRITERS = (
    Writer(
        "post_datasets", "api/routes/datasets.py", _post, _look, _prepare, sweep=_sweep, ignored=("/key",), is_slow=True
    ),
)
