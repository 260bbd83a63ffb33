"""The API as a process: start, streaming uploads, protocol limits, SIGKILL."""

import hashlib
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from service import jobs, keys
from service.db import ids
from service.db.models import Artifact, Dataset, Job, JobEvent
from service.db.session import Database
from service.storage import Storage
from tests.api.live import serving, serving_fresh
from tests.api.responses import check_problem
from tests.processes import soon
from tests.service import given

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HEAVY = ("torch", "torchvision", "numpy", "PIL", "pyarrow", "sklearn", "pandas")


def test_api_starts_without_torch(tmp_path):
    program = f"""
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import api.app
application = api.app.create()
assert application.openapi()["paths"]
print(sorted(name for name in sys.modules if name.split(".")[0] in {HEAVY}))
"""
    environment = {"TWOVIEWS_DATA_DIR": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2]
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.fixture
def server(settings, key):
    with serving(settings, key) as server:
        yield server


@pytest.fixture(scope="module")
def shared(tmp_path_factory, _sqlite_template, _broker):
    """A server on SQLite, shared by several tests; its storage is `shared.storage`."""
    data = tmp_path_factory.mktemp("live")
    with serving_fresh(data, _sqlite_template, _broker) as server:
        server.storage = Storage(data)
        yield server


def test_large_upload_is_streamed_to_disk(shared):
    server, storage = shared, shared.storage
    before, piece = server.peak_bytes, random.Random(0).randbytes(1 << 20)

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
        for _ in range(128):
            yield piece
        yield b"\r\n--x--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    created = server.client.post("/datasets", content=body(), headers=kind).json()
    assert created["size_bytes"] == 128 << 20
    (stored,) = storage.root.glob(f"uploads/*/{created['sha256']}")
    assert stored.stat().st_size == 128 << 20
    stored.unlink()
    assert server.peak_bytes - before < 32 << 20


def test_a_damaged_large_file_is_cut_off_and_then_refused(shared):
    data, job = random.Random(1).randbytes(3 << 20), ids.new("job")
    folder, place = shared.storage.attempt_dir(job, 1), f"/jobs/{job}/artifacts/a.bin"
    folder.mkdir(parents=True)
    database = Database(f"sqlite:///{shared.storage.root / 'twoviews.db'}")
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "acme").id
        row = {"tenant_id": tenant, "kind": "pretrain", "queue": "train", "config": {}, "user_metadata": {}}
        session.add(Job(id=job, priority=0, status="succeeded", created_at=1.0, **row))
        session.flush()
        file = {"path": shared.storage.relative(folder / "a.bin"), "media_type": "application/octet-stream"}
        file |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        session.add(Artifact(job_id=job, name="a.bin", created_at=1.0, **file))
    database.close()
    (folder / "a.bin").write_bytes(data)
    assert shared.client.get(place).content == data
    assert shared.client.get(place, headers={"Range": "bytes=5-9"}).content == data[5:10]
    (folder / "a.bin").write_bytes(b"!" + data[1:])
    with pytest.raises(httpx.RemoteProtocolError):
        shared.client.get(place)
    for headers in ({}, {"Range": "bytes=5-9"}):
        check_problem(shared.client.get(place, headers=headers), 409, "corrupt")
    (folder / "a.bin").write_bytes(data)
    assert shared.client.get(place).content == data


def test_interrupted_upload_leaves_no_file(shared):
    storage, known = shared.storage, shared.client.get("/datasets").json()
    for sent in (b"", b"x" * 3_000_000):
        connection = shared.begin_upload(sent)
        soon(lambda: list(storage.tmp_dir.iterdir()))
        connection.close()
        soon(lambda: not list(storage.tmp_dir.iterdir()))
    assert shared.client.get("/datasets").json() == known
    assert list(storage.root.glob("uploads/*/*")) == []


def test_too_large_body_is_refused_before_it_is_sent(shared):
    connection = shared.begin_upload(b"", length=2**60)
    assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    connection.close()


def test_upload_of_a_killed_server_is_swept(server, storage, database):
    connection = server.begin_upload(b"x" * 3_000_000)
    soon(lambda: any(path.stat().st_size > 1_000_000 for path in storage.tmp_dir.iterdir()))
    server.kill()
    connection.close()
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 0
    assert len(storage.sweep([], frozenset(), before=time.time() + 1)) == 1
    server.start()
    assert server.client.post("/datasets", files={"file": ("a.zip", b"bytes")}).status_code == 202


def test_kills_neither_lose_nor_duplicate_jobs(server, database, tenant):
    dataset, accepted, stop = given.create_ready_dataset(database, tenant), {}, threading.Event()

    def ask(worker):
        with httpx.Client(base_url=server.url, headers=dict(server.client.headers), timeout=30) as client:
            while not stop.is_set():
                name = f"{worker}-{len(accepted)}"
                body = {"dataset": dataset, "config": given.PRETRAIN, "name": name}
                accepted[name] = submit_with_retries(client, body)

    askers = [threading.Thread(target=ask, args=(worker,)) for worker in range(2)]
    for asker in askers:
        asker.start()
    for _ in range(2):
        goal = len(accepted) + 7
        soon(lambda goal=goal: len(accepted) >= goal)
        server.kill()
        server.start()
    stop.set()
    for asker in askers:
        asker.join(30)
    with database.reading() as session:
        rows = session.execute(select(Job.name, Job.id).where(Job.kind == "pretrain")).all()
        there = {row.name: row.id for row in rows}
        histories = jobs.transitions_by_job(session, list(there.values()))
        orphans = select(func.count()).select_from(JobEvent).where(JobEvent.job_id.not_in(select(Job.id)))
        assert session.scalar(orphans) == 0
    assert len(accepted) >= 14
    assert (there, len(rows)) == (accepted, len(accepted))
    assert all(len(history) == 1 for history in histories.values())


def submit_with_retries(client, body):
    """Submit a job, with retries as of the client; return its id."""
    while True:
        try:
            answer = client.post("/jobs", json=body, headers={"Idempotency-Key": body["name"]})
        except httpx.TransportError:  # killed
            time.sleep(0.02)
            continue
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]


@on_sqlite
def test_unresponsive_broker_delays_no_response(settings, key, database, tenant):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        calls = []

        def listen():
            while True:
                try:
                    calls.append(silent.accept())
                except OSError:
                    return

        threading.Thread(target=listen, daemon=True).start()
        deaf = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{silent.getsockname()[1]}/0"})
        dataset = given.create_ready_dataset(database, tenant)
        with serving(deaf, key) as server:
            for _ in range(20):
                body = {"dataset": dataset, "config": given.PRETRAIN}
                assert server.client.post("/jobs", json=body).status_code == 202
            soon(lambda: calls)
            assert len(calls) < 10  # without batching there would be twenty
            assert len(server.client.get("/jobs").json()["data"]) == 20
        silent.shutdown(socket.SHUT_RDWR)
        for connection, _ in calls:
            connection.close()
