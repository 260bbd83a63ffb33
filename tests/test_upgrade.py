"""An upgrade: a data folder that commit ce4df91 wrote migrates, its models embed, and its unfinished jobs are resumed.

The folder holds a SQLite database, a dataset of 60 digits, two models, and two jobs that the service was stopped in: a
pretraining at step 34 of 120 and an augmented linear evaluation at step 215 of 1,203. `expected.json` has their ids,
and the embeddings that ce4df91 computed.
"""

import json
import tarfile
from pathlib import Path

import pytest

from tests.test_end_to_end import up

FOLDER = Path(__file__).parent / "fixtures" / "data_folder_ce4df91.tar.xz"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("upgrade")
    with tarfile.open(FOLDER) as archive:
        archive.extractall(folder, filter="data")
    return folder / "data"


@pytest.fixture(scope="module")
def expected(data):
    return json.loads((data / "expected.json").read_text())


@pytest.fixture(scope="module")
def client(data):
    with up(data) as service, service.client() as client:
        yield client


def test_its_models_give_the_same_embeddings(client, data, expected):
    images = sorted(data.glob("image-*.png"))
    for model, layer in (("finished", "backbone"), ("tuned", "logits")):
        rows = client.embed(expected[model], images, layer=layer)
        assert [list(row) for row in rows] == [pytest.approx(row, abs=1e-4) for row in expected[layer]]


@pytest.mark.parametrize(("job", "step", "steps"), [("half_trained", 34, 120), ("half_evaluated", 215, 1203)])
def test_its_unfinished_jobs_are_resumed_from_their_checkpoints(client, expected, job, step, steps):
    done = client.jobs.wait(expected[job], timeout_seconds=120)
    assert (done.status, done.attempt, done.progress["step"]) == ("succeeded", 2, steps)
    resumed = [event for event in client.jobs.events(expected[job]) if event["code"] == "resumed"]
    assert [event["data"]["step"] for event in resumed] == [step]


def test_a_new_job_starts_from_its_model(client, expected):
    job = client.jobs.submit(kind="knn_eval", dataset=expected["dataset"], model=expected["finished"])
    assert client.jobs.wait(job, timeout_seconds=60).summary["top1"] > 0.3
