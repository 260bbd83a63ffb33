"""Weight import: a job of kind `import` from its row to a saved model, and the process's limits."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from sqlalchemy import update

from service import leases, models
from service.db.models import Job, Model
from service.db.session import now
from service.garbage import live_paths
from service.settings import Settings
from ssl_core.config import Import
from ssl_core.events import Failed, Result, from_line
from ssl_core.models import resnet
from ssl_core.serialization import saved_model
from tests.service import given
from worker.trainer.supervisor import supervise

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The bytes of a state dict of a tiny network."""
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    network = resnet.ResNet("resnet10", width=0.125, stem="cifar")
    torch.save({"state_dict": {f"module.encoder.{name}": value for name, value in network.state_dict().items()}}, path)
    return path.read_bytes()


@pytest.fixture
def submit(database, storage, tenant):
    """Submit the import of a file's bytes, and return the job's id."""

    def submit_import(data, **config):
        sha256 = hashlib.sha256(data).hexdigest()
        storage.upload_path(tenant, sha256).write_bytes(data)
        with database.writing() as session:
            wanted = Import.model_validate_json(json.dumps(config))
            return models.submit_import(
                session, tenant, name="w", sha256=sha256, size_bytes=len(data), config=wanted
            ).id

    return submit_import


def attempt(database, storage, claim=None):
    claim = claim or given.claim_job(database, "data")
    supervise(claim, database, storage, Settings(data_dir=storage.root), lambda: False)
    return given.get_job(database, claim.job_id)


def made_model(database, job):
    with database.reading() as session:
        return session.get_one(Model, job.made_model_id)


def test_uploaded_weights_become_a_saved_model(database, storage, submit, weights):
    submit(weights, image_size=16)
    job = attempt(database, storage)
    assert (job.status, job.dataset_id, job.summary["prefix"]) == ("succeeded", None, "state_dict.encoder.")
    model = made_model(database, job)
    encoder = saved_model.load(storage.absolute(model.path))
    assert (model.name, model.dim, encoder.image_size) == ("w", 64, 16)
    assert (model.card["name"], model.card["job"]) == ("w", job.id)
    assert model.card["imported"]["file"]["sha256"] == hashlib.sha256(weights).hexdigest()


@on_sqlite
def test_a_flipped_byte_of_the_upload_fails_the_job(database, storage, submit, weights):
    submit(weights)
    (upload,) = storage.root.glob("uploads/*/*")
    upload.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    job = attempt(database, storage)
    assert (job.status, job.error["code"], job.error["file"]) == ("failed", "corrupt", "upload")


@on_sqlite
def test_weights_of_another_network_fail_the_job_with_pointers(database, storage, submit, weights):
    submit(weights, backbone="resnet18")
    job = attempt(database, storage)
    assert (job.status, job.attempt, job.made_model_id) == ("failed", 1, None)
    assert job.error["code"] == "missing_weights"
    assert job.error["errors"][0]["pointer"].startswith("/tensors/state_dict.encoder.layer1.1.")


@on_sqlite
def test_the_upload_of_a_killed_attempt_is_kept_for_the_next_attempt(database, storage, tenant, submit, weights):
    job_id = submit(weights)
    upload = f"uploads/{tenant}/{hashlib.sha256(weights).hexdigest()}"
    lost = given.claim_job(database, "data")
    with database.writing() as session:  # as if its worker was killed
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=now() - 1))
        assert leases.reap(session) == [job_id]
        assert upload in live_paths(session)
    job = attempt(database, storage)
    assert (job.status, job.attempt) == ("succeeded", 2)
    assert made_model(database, job).path == f"jobs/{job_id}/a2/model"
    supervise(lost, database, storage, Settings(data_dir=storage.root), lambda: False)  # the lost attempt goes on
    assert made_model(database, given.get_job(database, job_id)).path == f"jobs/{job_id}/a2/model"
    with database.reading() as session:
        assert upload not in live_paths(session)


@on_sqlite
def test_a_job_waits_for_an_import_and_starts_from_its_model(database, storage, tenant, submit, weights):
    dataset = given.create_ready_dataset(database, tenant)
    waiting = given.submit_job(database, tenant, dataset, model=submit(weights))
    assert waiting.status == "waiting"
    job = attempt(database, storage)
    assert given.get_job(database, waiting.id).model_id == job.made_model_id


# --- the process -----------------------------------------------------------------------------------------------------


def run(folder, data, *arguments):
    (folder / "upload").write_bytes(data)
    command = [
        sys.executable,
        "-m",
        "worker.uploads.import_weights",
        folder / "upload",
        "--out",
        folder / "out",
        "--events",
    ]
    child = subprocess.run([*command, *arguments], capture_output=True, check=False)
    return child.returncode, [from_line(line) for line in child.stdout.splitlines()]


def test_the_process_exits_with_0_and_a_result_or_with_1_for_an_invalid_upload(tmp_path, weights):
    status, events = run(tmp_path, weights, "--config", '{"stem": "cifar_stride2"}')
    assert (status, type(events[-1])) == (0, Result)
    assert events[0].card["backbone"]["stem"] == "cifar_stride2"
    status, events = run(tmp_path, b"hello")
    assert (status, type(events[-1]), events[-1].code) == (1, Failed, "not_weights")


def test_the_memory_limit_is_reported(tmp_path):
    torch.save({"w": torch.zeros(50_000_000)}, tmp_path / "large")
    status, events = run(tmp_path, (tmp_path / "large").read_bytes(), "--import-memory-bytes", str(10**8))
    assert (status, events[-1].code) == (1, "out_of_memory")


def test_the_file_size_limit_is_reported(tmp_path, weights):
    status, events = run(tmp_path, weights, "--max-weights-bytes", "10000")
    assert (status, events[-1].code) == (1, "too_much_data")
