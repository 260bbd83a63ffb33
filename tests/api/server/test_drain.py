"""The end of the API: what SIGTERM does to its readiness, its connections and the requests in progress."""

import contextlib
import os
import signal
import threading

import pytest

from service import keys
from service.db.session import Database
from service.storage import Storage
from tests import logs
from tests.api.live import read_response, serving_fresh
from tests.api.responses import check_problem
from tests.processes import soon
from tests.service import given

BODY = b"x" * 70_000
END = b"\r\n--x--\r\n"
LENGTH = len(b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n') + len(BODY + END)


@pytest.fixture
def make_server(tmp_path, _sqlite_template, _broker):
    """Starts a server on SQLite; its storage is `server.storage`, its database `server.database`."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            where = (tmp_path, _sqlite_template, _broker)
            server = stack.enter_context(serving_fresh(*where, log_file=tmp_path / "log", **settings))
            server.storage, server.database = Storage(tmp_path), Database(f"sqlite:///{tmp_path / 'twoviews.db'}")
            stack.callback(server.database.close)
            return server

        yield start


def submit_job(server):
    with server.database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "acme").id
    return given.submit_job(server.database, tenant, given.create_ready_dataset(server.database, tenant)).id


def is_refused(server):
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_terminated_server_is_not_ready_answers_what_is_in_progress_and_ends_with_0(make_server, tmp_path):
    server = make_server(http_drain_seconds=3, http_grace_seconds=60)
    path, polled = f"/jobs/{submit_job(server)}/metrics", []
    poll = threading.Thread(target=lambda: polled.append(server.client.get(path, params={"wait": 30})))
    poll.start()
    upload = server.begin_upload(BODY[:-1], LENGTH)
    head, idle = server.connect(), server.connect()
    head.sendall(b"GET /health/live HTTP/1.1\r\n")
    soon(lambda: list(server.storage.root.glob("tmp/*.upload")))
    server.process.send_signal(signal.SIGTERM)

    soon(lambda: server.client.get("/health/ready").json()["errors"][0]["code"] == "stopping", 3)
    assert server.client.get("/health/ready").status_code == 503
    answer = server.client.get("/jobs")
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    poll.join(20)
    assert (polled[0].status_code, polled[0].json()["last"]) == (200, 0)

    soon(lambda: is_refused(server))
    assert idle.recv(1) == b""
    idle.close()
    head.sendall(b"Host: x\r\n\r\n")
    assert read_response(head).json() == {"status": "live"}
    upload.sendall(BODY[-1:] + END)
    created = read_response(upload)
    assert (created.status_code, created.headers["connection"]) == (202, "close")
    assert list(server.storage.root.glob(f"uploads/*/{created.json()['sha256']}"))
    assert server.process.wait(20) == 0
    assert {record["level"] for record in logs.read(tmp_path / "log")} <= {"INFO", "WARNING"}


def test_a_request_that_outlasts_the_grace_time_is_503(make_server):
    server = make_server(http_grace_seconds=0.2)
    upload = server.begin_upload(BODY[:-1], LENGTH)
    soon(lambda: list(server.storage.root.glob("tmp/*.upload")))
    os.kill(server.process.pid, signal.SIGTERM)
    check_problem(read_response(upload), 503, "unavailable")
    assert server.process.wait(20) == 0
    assert list(server.storage.root.glob("tmp/*.upload")) == []
