"""The API killed while a request is on its way, and a broker that never answers it."""

import http.client
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service import keys
from service.db.session import Database
from service.storage import Storage
from tests import servers
from tests.faults import arena
from tests.faults.arena import Arena
from tests.faults.fleet import Fleet, kill, soon
from tests.faults.injector import Injector
from tests.faults.workload import Workload, toy
from tests.worker import uploads

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def key(database: Database, tenant: str) -> str:
    with database.writing() as session:
        return keys.create(session, tenant, "test")[1]


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A broker that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield listener


@on_postgresql
def test_an_api_killed_during_post_jobs_makes_each_job_once(
    database_url: str, database: Database, tenant: str, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path, database_url, environment=arena.environment(tmp_path))
    try:
        fleet.broker.start()
        workload = Workload(database, Storage(fleet.settings.data_dir), tenant)
        ring = Arena(fleet, workload, jobs=4, real=())
        injector = Injector(ring, random.Random())
        injector.carry_out(["api in POST /jobs"] * 2)
        ring.hold.unlink(missing_ok=True)
        soon(lambda: not ring.unfinished)
        assert injector.unhappened == []
        assert sorted(map(str, workload.names())) == [f"number {n}" for n in range(len(ring.submitted))]
        assert [fault for job in ring.submitted for fault in workload.faults(job)] == []
        assert ring.stop() == []
    finally:
        fleet.close()


@on_sqlite
def test_an_api_killed_during_an_upload_leaves_nothing_and_takes_it_again(fleet: Fleet, key: str) -> None:
    port, data = servers.free_port(), fleet.settings.data_dir
    api = start_api(fleet, port)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("POST", "/datasets")
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Content-Length", str(2**30))
    connection.endheaders()
    connection.send(b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n' + bytes(2**22))
    soon(lambda: [path for path in (data / "tmp").glob("*") if path.stat().st_size > 0])
    kill(api.pid)
    connection.close()

    fleet.keeper()
    fleet.worker("data")
    start_api(fleet, port)
    soon(lambda: not list((data / "tmp").iterdir()))  # the keeper has swept
    url, headers = f"http://127.0.0.1:{port}/datasets", {"Authorization": f"Bearer {key}"}
    answer = httpx.post(url, headers=headers, files={"file": ("a.zip", uploads.zipped())}, timeout=30)
    assert answer.status_code == 202
    made = answer.json()["id"]
    soon(lambda: httpx.get(f"{url}/{made}", headers=headers).json()["status"] == "ready")
    assert [row["id"] for row in httpx.get(url, headers=headers).json()["data"]] == [made]


@on_sqlite
def test_post_jobs_is_answered_while_the_broker_is_silent(
    database_url: str, database: Database, tenant: str, key: str, mute: socket.socket, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path, database_url, broker_url=f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
    try:
        port = servers.free_port()
        start_api(fleet, port)
        dataset = Workload(database, Storage(fleet.settings.data_dir), tenant).dataset
        body = {"kind": "pretrain", "dataset": dataset, "config": toy(1, 2)}
        url, headers = f"http://127.0.0.1:{port}/jobs", {"Authorization": f"Bearer {key}"}
        assert httpx.post(url, json=body, headers=headers, timeout=30).status_code == 202
        heard, _ = mute.accept()
        with heard:
            assert heard.recv(1000)  # it rang, and the answer came although it still waits to be heard
            heard.setblocking(False)
            with pytest.raises(BlockingIOError):
                heard.recv(1)
    finally:
        fleet.close()


def start_api(fleet: Fleet, port: int):
    api = fleet.api(port)

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    soon(answers)
    return api
