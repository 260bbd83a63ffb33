"""Writers of the service: uploads, an attempt's inputs, the state of verify, credentials, and the sweep itself."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import Request

from api import uploads
from service import __main__ as administration
from service.db import migrate
from service.db.session import Database
from service.errors import Error
from service.leases import Claim
from service.settings import Settings
from service.storage import Storage
from service.verify import state
from ssl_core import files
from tests.faults.syscalls.writer import Writer
from worker.trainer import command

# --- an upload -------------------------------------------------------------------------------------------------------

_ARCHIVE = bytes(range(256)) * 8000  # two chunks
_TENANT, _SHA256 = "ten_1", hashlib.sha256(_ARCHIVE).hexdigest()
_UPLOAD = f"uploads/{_TENANT}/{_SHA256}"


def _receive(folder: Path) -> dict[str, Any]:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
    body = head + _ARCHIVE + b"\r\n--b--\r\n"
    messages = iter(
        {"type": "http.request", "body": body[start : start + 2**20], "more_body": start + 2**20 < len(body)}
        for start in range(0, len(body), 2**20)
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"multipart/form-data; boundary=b")]}
    try:
        asyncio.run(uploads.receive(Request(scope, receive), Storage(folder), _TENANT, [], 2**30, lambda *_: None))
    except Error as error:
        return {"code": error.code, "detail": error.detail}
    return {}


def _look_at_upload(folder: Path) -> str:
    path = folder / _UPLOAD
    if not path.exists():
        return "absent"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == _SHA256
    return "new"


# --- the inputs of an attempt ----------------------------------------------------------------------------------------

_CONFIG = {"kind": "pretrain", "method": {"name": "simclr"}}
_CLAIM = Claim(
    job_id="job_1", tenant_id=_TENANT, kind="pretrain", attempt=1, config=_CONFIG, dataset_id="ds_1",
    dataset_path="datasets/ds_1/a1", upload=None, model_path=None, checkpoints=(), provenance={"job": "job_1"},
)  # fmt: skip


class _NoEvents:
    def flush(self) -> None: ...


def _write_inputs(folder: Path) -> dict[str, Any]:
    """As the supervisor does, which releases the job with the reason when the trainer cannot be started."""
    settings = Settings(data_dir=folder, _env_file=None)  # type: ignore[call-arg]
    try:
        command.build(_CLAIM, Storage(folder), settings, _NoEvents())  # type: ignore[arg-type]
    except OSError as error:
        return {"code": "not_started", "detail": f"The trainer could not be started: {files.describe(error)}."}
    return {}


def _look_at_inputs(folder: Path) -> str:
    found = [folder / f"jobs/job_1/a1/{name}.json" for name in ("config", "provenance")]
    contents = [json.loads(path.read_bytes()) for path in found if path.exists()]
    assert contents == [_CONFIG, {"job": "job_1"}][: len(contents)]
    return "new" if len(contents) == 2 else "absent"


# --- the state of verify ---------------------------------------------------------------------------------------------


def _prepare_state(folder: Path) -> None:
    state.save(folder, state.State(1.0, ["model", "a"], items=1))


def _write_state(folder: Path) -> dict[str, Any]:
    """As `Walk` does: a state that cannot be written costs a killed verification its start."""
    with suppress(OSError):
        state.save(folder, state.State(1.0, ["model", "b"], items=2, damaged=[["model", "b", "", "corrupt"]] * 100))
    return {}


def _look_at_state(folder: Path) -> str:
    found = state.load(folder)
    assert found is not None
    return {1: "old", 2: "new"}[found.items]


# --- credentials -----------------------------------------------------------------------------------------------------


def _prepare_database(folder: Path) -> None:
    database = Database(f"sqlite:///{folder / 'twoviews.db'}")
    migrate.upgrade(database)
    database.close()


def _bootstrap(folder: Path) -> dict[str, Any]:
    os.environ["TWOVIEWS_DATA_DIR"] = str(folder)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = administration.main(["bootstrap", "--url", "http://127.0.0.1:1"])
    return {"code": "exit_status", "detail": said.getvalue().strip()} if status else {}


def _look_at_credentials(folder: Path) -> str:
    path = folder / "credentials.json"
    if not path.exists():
        return "absent"
    assert path.stat().st_mode & 0o777 == 0o600
    found = json.loads(path.read_bytes())
    assert found["url"] == "http://127.0.0.1:1"
    database = Database(f"sqlite:///{folder / 'twoviews.db'}")
    with database.reading() as session:
        assert administration._read_valid_key(session, path) == found["key"]
    database.close()
    return "new"


# --- the sweep -------------------------------------------------------------------------------------------------------

_KNOWN = "datasets/ds_1", "jobs/job_1"
_LIVE, _DEAD = "datasets/ds_1/a2", ("datasets/ds_1/a1", "jobs/job_1/a1")


def _prepare_garbage(folder: Path) -> None:
    for path in (_LIVE, *_DEAD):
        (folder / path / "model").mkdir(parents=True)
        for name in ("one", "model/two"):
            (folder / path / name).write_bytes(b"bytes")


def _sweep(folder: Path) -> dict[str, Any]:
    """As the keeper does, which logs an error and sweeps again an hour later."""
    with suppress(OSError):
        Storage(folder).sweep({_LIVE}, frozenset(_KNOWN), time.time() + 3600)
    return {}


def _look_at_garbage(folder: Path) -> str:
    """A folder is whole under its name, or not there."""
    assert all((folder / _LIVE / name).exists() for name in ("one", "model/two"))
    left = [path for path in _DEAD if (folder / path).exists()]
    for path in left:
        assert all((folder / path / name).exists() for name in ("one", "model/two"))
    return "old" if left else "new"


def _all() -> Iterator[Writer]:
    yield Writer("upload", "api/uploads.py", _receive, _look_at_upload, live=(_UPLOAD,), known=("uploads/ten_1",))
    yield Writer(
        "attempt_inputs", "worker/trainer/command.py", _write_inputs, _look_at_inputs,
        live=("jobs/job_1/a1",), known=("jobs/job_1",),
    )  # fmt: skip
    yield Writer("verify_state", "service/verify/state.py", _write_state, _look_at_state, _prepare_state, ("old",))
    yield Writer(
        "credentials", "service/__main__.py", _bootstrap, _look_at_credentials, _prepare_database,
        ignored=("twoviews.db", "twoviews.db-wal", "twoviews.db-shm", "twoviews.db-journal"), paths_in_errors=True,
    )  # fmt: skip
    yield Writer("sweep", "service/storage.py", _sweep, _look_at_garbage, _prepare_garbage, ("old",), (_LIVE,), _KNOWN)


WRITERS = tuple(_all())
