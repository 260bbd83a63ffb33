"""Routes of /health and /metrics."""

import shutil
import socket
import threading
from functools import partial
from pathlib import Path

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError

from api.app import create
from api.routes import health
from service import keys, workers
from service.db.session import is_damaged, is_disk_full
from service.monitoring import last_runs
from tests.api.responses import check_problem, get_pointers
from tests.service import given


def figures(client):
    text = client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_liveness_has_no_dependencies(anonymous):
    assert anonymous.get("/health/live").json() == {"status": "live"}


def test_readiness_names_missing_dependencies(anonymous, database, settings, app):
    answer = anonymous.get("/health/ready")
    assert get_pointers(check_problem(answer, 503, "not_ready")) == ["worker"]
    assert answer.headers["retry-after"]
    with database.writing() as session:
        workers.record_heartbeat(session, "worker-1", "train")
    assert anonymous.get("/health/ready").json() == {"status": "ready"}
    assert list((settings.data_dir / "tmp").iterdir()) == []
    shutil.rmtree(settings.data_dir)
    settings.data_dir.write_text("a file where the folder was")
    assert get_pointers(check_problem(anonymous.get("/health/ready"), 503, "not_ready")) == ["storage"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_readiness_names_what_hangs(settings, storage, monkeypatch):
    from tests.api.conftest import TestClient

    monkeypatch.setattr(health, "_PROBE_SECONDS", 0.2)
    answered = threading.Event()
    new_upload = storage.new_upload
    monkeypatch.setattr(storage, "new_upload", lambda: answered.wait() and new_upload())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://me@127.0.0.1:{silent.getsockname()[1]}/twoviews?connect_timeout=30"
        with TestClient(create(settings.model_copy(update={"database_url": url}))) as client:
            client.app.state.storage = storage
            for _ in range(6):  # more than the probes that may hang
                faults = check_problem(client.get("/health/ready"), 503, "not_ready")["errors"]
                assert [fault["pointer"] for fault in faults] == ["database", "storage"]
                assert all("has not answered within" in fault["detail"] for fault in faults)
            assert client.get("/health/live").is_success
            answered.set()


def test_unreachable_database_is_503(settings, tmp_path):
    from tests.api.conftest import TestClient

    away = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}"})
    with TestClient(create(away), headers={"Authorization": "Bearer tv_x"}) as client:
        assert get_pointers(check_problem(client.get("/health/ready"), 503, "not_ready")) == ["database"]
        answer = client.get("/jobs")
        check_problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"]
        assert client.get("/health/live").is_success


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_full_database_is_503_without_loss(app, client, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    ask = partial(client.post, "/jobs", json={"dataset": dataset, "config": given.PRETRAIN})
    accepted = [ask().json()["id"]]
    with app.state.database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one() + 1
    event.listen(
        app.state.database.engine, "begin", lambda found: found.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    )
    while (answer := ask()).status_code == 202:
        accepted.append(answer.json()["id"])
    check_problem(answer, 503, "database_full")
    assert [job["id"] for job in client.get("/jobs", params={"limit": 100}).json()["data"]] == accepted[::-1]


def test_disk_full_error_is_recognised():
    assert is_disk_full(OperationalError("INSERT", {}, psycopg.errors.DiskFull()))
    assert not is_disk_full(OperationalError("INSERT", {}, psycopg.errors.AdminShutdown()))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_damaged_database_is_unavailable(client, app):
    path = Path(app.state.database.engine.url.database)
    app.state.database.engine.dispose()
    path.write_bytes(bytes(reversed(path.read_bytes())))
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    check_problem(client.get("/jobs"), 503, "database_damaged")
    assert is_damaged(DBAPIError("SELECT", {}, psycopg.errors.DataCorrupted()))


def test_full_disk_is_not_ready(client, storage, monkeypatch):
    full = storage.tmp_dir / "full.upload"
    full.symlink_to("/dev/full")  # where every write fails with ENOSPC
    monkeypatch.setattr(storage, "new_upload", lambda: full)
    monkeypatch.setattr(client.app.state, "storage", storage)
    faults = check_problem(client.get("/health/ready"), 503, "not_ready")["errors"]
    assert [fault["detail"] for fault in faults if fault["pointer"] == "storage"] == [
        "The storage cannot be written: No space left on device."
    ]
    assert not full.is_symlink()


@pytest.fixture
def operator(app, anonymous, database, tenant):
    """A client with an operator's key of the tenant."""
    with database.writing() as session:
        _, secret = keys.create(session, tenant, "operator", "operator")
    return type(anonymous)(app, headers={"Authorization": f"Bearer {secret}"})


def test_an_owner_reads_metrics_of_their_own_and_an_operator_those_of_all(client, other, operator, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    given.submit_job(database, tenant, dataset)
    with database.writing() as session:
        workers.record_heartbeat(session, "worker-1", "train")
    mine, others, all_ = figures(client), figures(other), figures(operator)
    assert mine["twoviews_jobs", "pretrain", "queued"] == all_["twoviews_jobs", "pretrain", "queued"] == 1
    assert mine["twoviews_queue_depth", "pretrain", "train"] == all_["twoviews_queue_depth", "pretrain", "train"] == 1
    assert {name: value for name, value in others.items() if value} == {}
    assert all_["twoviews_workers", "train"] == 1
    for seen in (mine, others):
        assert not any(name[0].startswith(("twoviews_request", "twoviews_workers")) for name in seen)


def test_prometheus_metrics(operator, client, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    given.submit_job(database, tenant, dataset)
    given.submit_job(database, tenant, dataset)
    given.claim_job(database)
    with database.writing() as session:
        workers.record_heartbeat(session, "worker-1", "train")
    for _ in range(3):
        client.get("/jobs/job_none")
    client.get("/nowhere")
    client.request("BREW", "/jobs")
    seen = figures(operator)
    assert seen["twoviews_jobs", "pretrain", "queued"] == seen["twoviews_jobs", "pretrain", "running"] == 1
    assert seen["twoviews_datasets", "ready"] == 1
    assert (seen["twoviews_queue_depth", "pretrain", "train"], seen["twoviews_queue_depth", "ingest", "data"]) == (1, 0)
    assert 0 <= seen["twoviews_queue_oldest_seconds", "pretrain", "train"] < 3600
    assert seen["twoviews_queue_oldest_seconds", "ingest", "data"] == 0
    assert (seen["twoviews_workers", "train"], seen["twoviews_workers", "data"]) == (1, 0)
    assert seen["twoviews_requests_total", "GET", "/jobs/{job_id}", "404"] == 3
    assert seen["twoviews_request_seconds_count", "GET", "/jobs/{job_id}"] == 3
    assert seen["twoviews_requests_total", "GET", "none", "404"] == 1
    assert seen["twoviews_requests_total", "other", "/jobs", "405"] == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_operator_reads_what_is_down_and_what_was_refused(operator, anonymous, settings, database):
    with database.writing() as session:
        workers.record_heartbeat(session, "keeper@host:1", workers.KEEPER)
    before = figures(operator)
    assert before["twoviews_problems_total", "wrong_key", "401"] == 0
    assert before["twoviews_problems_total", "encoder_busy", "503"] == 0
    assert before["twoviews_encoder_up",] == 0
    assert 0 < before["twoviews_storage_free_bytes",] <= before["twoviews_storage_size_bytes",]
    assert before["twoviews_keepers",] == 1
    assert 0 <= before["twoviews_keeper_heartbeat_age_seconds",] < 60
    assert before["twoviews_database_answer_seconds",] > 0
    assert ("twoviews_maintenance_age_seconds", "verify") not in before
    anonymous.get("/jobs", headers={"Authorization": "Bearer tv_wrong"})
    anonymous.get("/jobs")
    operator.post("/jobs", content=b"x" * 2**21, headers={"Content-Type": "application/json"})
    anonymous.get("/nowhere%00")
    last_runs.record(settings.data_dir, "verify", damaged=3)
    (settings.data_dir / "last_backup.json").write_text("[]")
    after = figures(operator)
    found = {name[1:]: value for name, value in after.items() if name[0] == "twoviews_problems_total" and value}
    assert found == {
        ("wrong_key", "401"): 1,
        ("missing_key", "401"): 1,
        ("too_large", "413"): 1,
        ("bad_request", "400"): 1,
    }
    assert 0 <= after["twoviews_maintenance_age_seconds", "verify"] < 60
    assert after["twoviews_verify_damaged_files",] == 3
    assert after["process_open_fds",] > 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_data_disk_that_hangs_is_shown_as_down(operator, monkeypatch):
    monkeypatch.setattr(health, "_PROBE_SECONDS", 0.2)
    answered = threading.Event()
    monkeypatch.setattr(health.disk, "read", lambda root: answered.wait())
    seen = figures(operator)
    assert seen["twoviews_storage_up",] == 0
    assert ("twoviews_storage_free_bytes",) not in seen
    answered.set()


def test_a_scrape_takes_seven_queries(app, operator, database, tenant):
    dataset = given.create_ready_dataset(database, tenant)
    for _ in range(3):
        given.submit_job(database, tenant, dataset)
    statements = []
    event.listen(
        app.state.database.engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, *rest: statements.append(statement),
    )
    assert operator.get("/metrics").is_success
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 7
