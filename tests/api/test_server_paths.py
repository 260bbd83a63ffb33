"""No answer has a path of the server, whatever goes wrong with its files."""

import hashlib
import json
import shutil
import subprocess
import sys

import pytest

from service import text
from ssl_core import events
from tests.api.responses import check_problem
from tests.service import given

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
WEIGHTS = b"weights" * 1000


@pytest.fixture
def made(database, tenant, storage):
    """A job that has made a model, and the model's folder."""
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    claim = given.claim_job(database)
    folder = storage.attempt_dir(job, 1) / "model"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(WEIGHTS)
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    given.record_events(database, claim, events.Model("model", sha256, len(WEIGHTS), 64, {}), events.Result({}))
    given.finish_job(database, claim)
    return job, folder


def find_paths(content, storage):
    """Return the strings of an answer that have a path of the server, other than the URLs of the API."""
    if isinstance(content, dict):
        return [found for name, item in content.items() if name != "urls" for found in find_paths(item, storage)]
    if isinstance(content, list):
        return [found for item in content for found in find_paths(item, storage)]
    is_path = isinstance(content, str) and (str(storage.root) in content or text.hide_paths(content) != content)
    return [content] if is_path else []


def test_a_missing_or_damaged_model_names_the_file_alone(client, made, storage):
    job, folder = made
    (folder / "weights.safetensors").write_bytes(b"damaged" * 1000)
    damaged = check_problem(client.get(f"/models/{job}/download"), 409, "corrupt")
    shutil.rmtree(folder)
    missing = check_problem(client.get(f"/models/{job}/download"), 409, "corrupt")
    for problem in (damaged, missing):
        assert "/" not in problem["detail"]
        assert "weights.safetensors" in problem["detail"]
        assert find_paths(problem, storage) == []


def test_a_storage_that_cannot_be_written_names_no_path(client, storage, monkeypatch):
    """Its folder is missing, for every user; root writes to a read-only one. Then its disk is full."""
    monkeypatch.setattr(client.app.state, "storage", storage)
    monkeypatch.setattr(storage, "new_upload", lambda: storage.root / "missing" / "a.upload")
    for path in ("/datasets", "/models"):
        problem = check_problem(client.post(path, files={"file": ("a.zip", b"bytes")}), 503, "storage_away")
        assert "/" not in problem["detail"]
    missing = check_problem(client.get("/health/ready"), 503, "not_ready")
    full = storage.tmp_dir / "full.upload"
    full.symlink_to("/dev/full")  # where every write fails with ENOSPC
    monkeypatch.setattr(storage, "new_upload", lambda: full)
    for problem, reason in ((missing, "No such file"), (client.get("/health/ready").json(), "No space left")):
        assert reason in problem["detail"]
        assert "/" not in problem["detail"]


def test_a_crash_of_the_trainer_names_no_path(client, database, tenant, storage, tmp_path):
    """A real training process, whose dataset and model are missing; a Python that fails at once, for its traceback."""
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    claim = given.claim_job(database)
    folder = storage.attempt_dir(job, 1)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(given.PRETRAIN))
    command = ["run", str(folder / "config.json"), "--data", str(storage.root / "missing"), "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "ssl_core", *command, "--events"], capture_output=True, text=True, timeout=120
    )
    said = done.stdout + done.stderr
    assert "The folder of the dataset is missing." in said
    said += f" in {storage.root}/missing"
    crashed = subprocess.run([sys.executable, "-c", "open('/tmp/no such/file')"], capture_output=True, text=True)
    log = events.Log("error", f"The attempt failed: {said}", "attempt_failed", {"stderr": crashed.stderr + said})
    given.record_events(database, claim, log)
    given.finish_job(database, claim, "failed", {"code": "crashed", "detail": said, "errors": [{"pointer": "/a/b"}]})
    shown = [client.get(path).json() for path in (f"/jobs/{job}", f"/jobs/{job}/events", "/jobs")]
    assert "missing" in shown[0]["error"]["detail"]
    assert shown[0]["error"]["errors"] == [{"pointer": "/a/b"}]
    (stderr,) = (event["data"]["stderr"] for event in shown[1]["data"] if event["code"] == "attempt_failed")
    assert "No such file or directory: 'file'" in stderr
    assert find_paths(shown, storage) == []


def test_paths_are_replaced_by_their_last_part(database_url, tmp_path):
    root = f"/{tmp_path.parts[1]}"
    for message, expected in {
        f"No such file: '{root}/my data/a.pt'": "No such file: 'a.pt'",
        f'File "{root}/x/y.py", line 3': 'File "y.py", line 3',
        f"{root}/data/jobs/a1/model: gone.": "model: gone.",
        "/config/method/temperature: too small": "/config/method/temperature: too small",
        f"http://host{root}/x/y and a/b/c": f"http://host{root}/x/y and a/b/c",
    }.items():
        assert text.hide_paths(message) == expected
