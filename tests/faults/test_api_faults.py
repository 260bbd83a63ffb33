"""Faults of the API: killed during a request, and a broker that does not answer."""

import http.client
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service import keys
from service.db.session import Database
from service.storage import Storage
from tests import sample_archives
from tests.faults.fleet import Fleet, kill
from tests.faults.nemesis.experiment import Experiment
from tests.faults.nemesis.injector import Injector
from tests.faults.workload import Workload, toy_config
from tests.processes import soon

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def key(database: Database, tenant: str) -> str:
    with database.writing() as session:
        return keys.create(session, tenant, "test")[1]


@pytest.fixture
def silent_broker() -> Iterator[socket.socket]:
    """A broker that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield listener


@on_postgresql
def test_an_api_killed_during_post_jobs_creates_each_job_once(
    fleet: Fleet, workload: Workload, rng: random.Random
) -> None:
    experiment = Experiment(fleet, workload, ["pretrain"] * 7, has_network=False)
    injector = Injector(experiment, rng)
    injector.inject_all(["kill: api in a POST"] * 3)
    experiment.submit()  # again, if the last kill has cut it off
    fleet.hold.unlink(missing_ok=True)
    submitted = [entry.id for entry in experiment.acknowledged]
    soon(lambda: workload.has_ended(submitted))
    assert injector.missed == []
    assert sorted(map(str, workload.names())) == [f"number {n}" for n in range(len(submitted))]
    assert [fault for job in submitted for fault in workload.faults(job)] == []
    assert experiment.unexpected == []
    assert experiment.stop() == []


@on_sqlite
def test_an_api_killed_during_an_upload_leaves_no_file_and_accepts_it_again(fleet: Fleet, key: str) -> None:
    folder, headers = fleet.settings.data_dir / "tmp", {"Authorization": f"Bearer {key}"}
    api = fleet.api()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(fleet.door))
        request = http.client.HTTPConnection("api")
        request.sock = line
        kind = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(2**30)}
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
        request.request("POST", "/datasets", head + bytes(2**22), headers | kind)
        soon(lambda: [path for path in folder.glob("*") if path.stat().st_size > 0])
        kill(api.pid)

    fleet.keeper()
    fleet.worker("data")
    fleet.api()
    soon(lambda: not list(folder.iterdir()))  # the keeper removes temporary files
    answer = fleet.http.post("/datasets", headers=headers, files={"file": ("a.zip", sample_archives.make_zip())})
    assert answer.status_code == 202
    made = answer.json()["id"]
    soon(lambda: fleet.http.get(f"/datasets/{made}", headers=headers).json()["status"] == "ready")
    assert [row["id"] for row in fleet.http.get("/datasets", headers=headers).json()["data"]] == [made]


@on_sqlite
def test_post_jobs_is_answered_while_the_broker_is_silent(
    database_url: str, database: Database, tenant: str, key: str, silent_broker: socket.socket, tmp_path: Path
) -> None:
    broker_url = f"redis://127.0.0.1:{silent_broker.getsockname()[1]}/0"
    with closing(Fleet(tmp_path, database_url, broker_url=broker_url)) as fleet:
        fleet.api()
        dataset = Workload(database, Storage(fleet.settings.data_dir), tenant).dataset
        body = {"kind": "pretrain", "dataset": dataset, "config": toy_config(1, 2)}
        assert fleet.http.post("/jobs", json=body, headers={"Authorization": f"Bearer {key}"}).status_code == 202
        heard, _ = silent_broker.accept()
        with heard:
            assert heard.recv(1000)  # the API has rung, and did not wait for the broker's answer
            heard.setblocking(False)
            with pytest.raises(BlockingIOError):
                heard.recv(1)
