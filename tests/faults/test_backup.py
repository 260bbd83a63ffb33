"""A backup during an upload and a running job; then kill -9 of everything, and a restoration elsewhere."""

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from service import keys
from service.__main__ import main
from service.db.models import Dataset
from service.db.session import Database
from service.storage import Storage
from tests import sample_archives
from tests.faults.fleet import Fleet, kill
from tests.faults.workload import Workload
from tests.processes import soon


@pytest.fixture
def administer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs the administration command with the settings of a fleet."""

    def run(fleet: Fleet, *arguments: str) -> None:
        for name in ("data_dir", "database_url"):
            monkeypatch.setenv(f"TWOVIEWS_{name.upper()}", str(getattr(fleet.settings, name)))
        assert main(arguments) == 0

    return run


@pytest.mark.parametrize(
    ("database_url", "empty_database_url"), [("sqlite", "sqlite"), ("postgresql", "postgresql")], indirect=True
)
def test_a_running_job_goes_on_from_its_checkpoint(
    fleet: Fleet, workload: Workload, empty_database_url: str, tmp_path: Path, administer: Callable[..., None]
) -> None:
    prepare_dataset(workload)
    fleet.hold.touch()  # the job runs until the restored service lets it end
    running, queued = workload.submit(seed=1, epochs=5), workload.submit(seed=2, epochs=1)
    worker = fleet.worker()
    fleet.ring()
    soon(lambda: 48 in workload.steps(running))
    administer(fleet, "backup", str(tmp_path / "backup"))
    kill(worker.pid)
    assert (workload.job(running).status, workload.job(running).attempt) == ("running", 1)
    with restored_elsewhere(tmp_path, empty_database_url, administer) as (other, database):
        restored = Workload(database, Storage(other.settings.data_dir), workload.tenant, workload.dataset)
        assert [restored.job(job).status for job in (running, queued)] == ["queued", "queued"]
        other.worker()
        other.ring()
        soon(lambda: restored.has_ended([running, queued]))
        assert [fault for job in (running, queued) for fault in restored.faults(job)] == [], other.logs()
        assert restored.job(running).attempt == 2
        # From the checkpoint of step 40: one from the start would have written those of 40 and 50.
        written = restored.storage.attempt_dir(running, 2).glob("checkpoint-*.pt")
        assert [path.name for path in written] == ["checkpoint-000000050.pt"]


@pytest.mark.parametrize(("database_url", "empty_database_url"), [("postgresql", "sqlite")], indirect=True)
def test_an_acknowledged_upload_is_restored_and_one_that_is_being_received_is_not(
    fleet: Fleet, workload: Workload, empty_database_url: str, tmp_path: Path, administer: Callable[..., None]
) -> None:
    prepare_dataset(workload)
    with workload.database.writing() as session:
        key = keys.create(session, workload.tenant, "test")[1]
    headers = {"Authorization": f"Bearer {key}"}
    api = fleet.api()
    answer = fleet.http.post("/datasets", headers=headers, files={"file": ("a.zip", sample_archives.make_zip())})
    assert answer.status_code == 202
    with socket.socket(socket.AF_UNIX) as line:
        begin_upload(line, fleet, headers)
        administer(fleet, "backup", str(tmp_path / "backup"))
    kill(api.pid)
    with restored_elsewhere(tmp_path, empty_database_url, administer) as (other, database):
        assert list(Storage(other.settings.data_dir).tmp_dir.iterdir()) == []
        other.worker("data")
        other.ring("data")
        soon(lambda: statuses(database)[answer.json()["id"]] == "ready")
        assert statuses(database).keys() == {answer.json()["id"], workload.dataset}
        with database.reading() as session:
            assert keys.authenticate(session, key).tenant_id == workload.tenant


@contextmanager
def restored_elsewhere(
    folder: Path, database_url: str, administer: Callable[..., None]
) -> Iterator[tuple[Fleet, Database]]:
    """Restore `folder`/backup into a fleet of another folder and database, whose broker is started."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    with closing(Fleet(elsewhere, database_url)) as fleet, closing(Database(database_url)) as database:
        administer(fleet, "restore", str(folder / "backup"))
        fleet.broker.start()
        yield fleet, database


def statuses(database: Database) -> dict[str, str]:
    with database.reading() as session:
        return {row.id: row.status for row in session.scalars(select(Dataset))}


def prepare_dataset(workload: Workload) -> None:
    """Write a dataset of an earlier version, without checksums, for the toy trainer, which reads none."""
    folder = workload.storage.dataset_dir(workload.dataset, 1)
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text('{"format": 1}')
    (folder / "images.arrow").write_bytes(b"images")


def begin_upload(line: socket.socket, fleet: Fleet, headers: dict[str, str]) -> None:
    """Send a part of an upload, and wait until it is on the disk."""
    line.connect(str(fleet.door))
    request = http.client.HTTPConnection("api")
    request.sock = line
    kind = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(2**30)}
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
    request.request("POST", "/datasets", head + bytes(2**22), headers | kind)
    soon(lambda: [path for path in fleet.settings.data_dir.glob("tmp/*.upload") if path.stat().st_size > 0])
