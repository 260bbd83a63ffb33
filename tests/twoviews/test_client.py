"""The client against a real API without workers, and against a scripted server for the results of workers."""

import base64
import hashlib
import io
import json
import struct
import tarfile

import pytest

from tests.twoviews.scripted import Response
from twoviews import ApiError, Client, Corrupt, DatasetFailed, Job, JobFailed, JobStatus, WaitTimeout
from twoviews.client import id_of


@pytest.fixture
def scripted_client(script):
    with Client(script.url, "tv_secret", retries=0) as client:
        yield client


def photos(folder):
    for name in ("cat/b.png", "cat/a.png", "dog/c.png", ".hidden/d.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def test_an_upload_is_accepted_and_listed(client, tmp_path):
    source = tmp_path / "photos.zip"
    source.write_bytes(b"not a real archive, 24 B")
    sent = []
    dataset = client.datasets.upload(source, name="mine", progress=lambda done, total: sent.append((done, total)))
    assert (dataset.name, dataset.status, dataset.size_bytes) == ("mine", "validating", 24)
    assert sent[-1] == (24, 24)
    assert client.datasets.get(dataset) == dataset
    assert [item.id for item in client.datasets.list()] == [dataset.id]
    assert list(client.datasets.list(status="ready")) == []


def test_wait_raises_after_its_timeout(client, tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"x")
    dataset = client.datasets.upload(tmp_path / "photos.zip")
    with pytest.raises(WaitTimeout, match="still being validated"):
        client.datasets.wait(dataset, timeout_seconds=0.1)


def test_a_missing_file_raises_before_a_request(client, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        client.datasets.upload(tmp_path / "nothing.zip")


def test_a_folder_is_packed_sorted_without_hidden_files_and_reproducibly(script, scripted_client, tmp_path):
    script.responses = [Response(202, {"id": "ds_1"}), Response(202, {"id": "ds_1"})]
    folder = photos(tmp_path / "photos")
    scripted_client.datasets.upload(folder)
    scripted_client.datasets.upload(folder)
    bodies = [_file(request.body) for request in script.requests]
    assert bodies[0] == bodies[1]
    with tarfile.open(fileobj=io.BytesIO(bodies[0])) as tar:
        assert tar.getnames() == ["cat/a.png", "cat/b.png", "dog/c.png"]


def test_a_retried_upload_is_sent_from_its_start(script, tmp_path):
    script.responses = [Response(503, {}), Response(202, {"id": "ds_1"})]
    (tmp_path / "a.zip").write_bytes(bytes(range(256)) * 1000)
    with Client(script.url, "tv_secret") as client:
        client.datasets.upload(tmp_path / "a.zip")
    assert [_file(request.body) for request in script.requests] == [(tmp_path / "a.zip").read_bytes()] * 2


def test_a_rejected_request_raises_an_api_error_with_pointers(client):
    with pytest.raises(ApiError) as caught:
        client.jobs.submit(dataset="ds_missing", config={"method": {"name": "simclr"}, "epochz": 3})
    assert (caught.value.status, caught.value.code) == (422, "invalid_config")
    assert [(fault["pointer"], fault["code"]) for fault in caught.value.errors] == [
        ("/config/epochz", "extra_forbidden")
    ]
    with pytest.raises(ApiError) as caught:
        client.jobs.submit(dataset="ds_missing", config={"method": {"name": "simclr"}})
    assert (caught.value.status, caught.value.code) == (404, "dataset_not_found")
    with pytest.raises(ApiError) as caught:
        client.jobs.get("job_missing")
    assert (caught.value.status, caught.value.code) == (404, "job_not_found")


def test_the_catalogue_lists_methods_backbones_and_recipes(client):
    assert {"simclr", "simsiam"} <= {method["name"] for method in client.methods()}
    assert "resnet18" in {backbone["name"] for backbone in client.backbones()}
    assert {"simclr-digits", "simsiam-digits"} <= {recipe["name"] for recipe in client.recipes()}


def test_a_new_key_is_accepted_and_a_revoked_one_rejected(client):
    key = client.keys.create("laptop")
    assert key.key not in repr(key)
    with Client(client.url, key.key) as other:
        assert key.id in {item.id for item in other.keys.list()}
        client.keys.revoke(key)
        with pytest.raises(ApiError) as caught:
            list(other.datasets.list())
    assert caught.value.status == 401


def test_unknown_fields_are_kept_in_raw():
    job = Job.of({"id": "job_1", "status": "running", "colour": "blue"})
    assert (job.id, job.done, job.raw["colour"]) == ("job_1", False, "blue")


def test_job_statuses_are_strings_with_a_description():
    assert [status for status in JobStatus if Job.of({"id": "job_1", "status": str(status)}).done] == [
        "succeeded",
        "failed",
        "cancelled",
    ]
    assert all(status.description.endswith(".") for status in JobStatus)


def test_waiting_for_a_failed_job_raises_its_error(script, scripted_client):
    failed = {"id": "job_1", "status": "failed", "error": {"code": "diverged", "detail": "The loss is not a number."}}
    script.responses = [Response(body={"id": "job_1", "status": "running"}), Response(body=failed)]
    with pytest.raises(JobFailed, match="The loss is not a number") as caught:
        scripted_client.jobs.wait("job_1")
    assert caught.value.status == "failed"


def test_waiting_for_a_failed_dataset_raises_its_error(script, scripted_client):
    script.responses = [Response(body={"id": "ds_1", "status": "failed", "error": {"detail": "No images are in it."}})]
    with pytest.raises(DatasetFailed, match="No images are in it"):
        scripted_client.datasets.wait("ds_1")


def test_watch_requests_each_point_once_and_ends_with_the_job(script, scripted_client):
    def points(steps, last):
        columns = {name: list(steps) for name in ("step", "epoch", "time", "value")}
        return Response(body={"series": [{"name": "train/loss", **columns}] if steps else [], "last": last})

    running, done = ({"id": "job_1", "status": status} for status in ("running", "succeeded"))
    script.responses = [
        Response(body=running),
        points([1, 2], 2),
        Response(body=running),
        points([], 2),
        Response(body=done),
    ]
    script.responses += [points([3], 3)]
    updates = list(scripted_client.jobs.watch("job_1", names=["train/loss"]))
    assert [update.job.status for update in updates] == ["running", "running", "succeeded"]
    seen = [step for update in updates for series in update.metrics.series.values() for step in series.step]
    assert seen == [1, 2, 3]
    requested = [request.path for request in script.requests if "metrics" in request.path]
    assert ["after=0" in requested[0], "after=2" in requested[1], "after=2" in requested[2]] == [True] * 3
    assert "wait" in requested[0]
    assert "wait" not in requested[2]


def test_embeddings_are_in_the_order_of_the_images(script, scripted_client, tmp_path):
    def rows(*values):
        data = [{"index": place, "embedding": _row(value)} for place, value in enumerate(values)]
        return Response(body={"object": "list", "model": "mdl_1", "dim": 2, "data": data[::-1]})

    (tmp_path / "b.png").write_bytes(b"second")
    script.responses = [rows(1.0, 2.0), rows(3.0)]
    found = scripted_client.embed("mdl_1", [b"first", tmp_path / "b.png", b"third"], batch=2, layer="projection")
    assert [list(row) for row in found] == [[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]]
    assert b"first" in script.requests[0].body
    assert b"second" in script.requests[0].body
    assert b"third" in script.requests[1].body
    assert b"projection" in script.requests[0].body


def test_a_dataset_is_embedded_by_a_job(script, scripted_client):
    script.responses = [Response(202, body={"id": "job_2", "kind": "embed_dataset"})]
    assert scripted_client.embed_dataset("job_1", "ds_1", workers=4, dtype="float16").id == "job_2"
    assert json.loads(script.requests[0].body) == {
        "kind": "embed_dataset",
        "dataset": "ds_1",
        "model": "job_1",
        "config": {"workers": 4, "dtype": "float16"},
        "priority": 0,
        "metadata": {},
    }


@pytest.mark.parametrize("matches", [True, False])
def test_weights_are_written_only_with_the_expected_sha256(script, scripted_client, tmp_path, matches):
    weights = b"weights" * 1000
    model = {"id": "mdl_1", "sha256": hashlib.sha256(weights if matches else b"other").hexdigest()}
    script.responses = [Response(body=model), Response(body=weights)]
    if matches:
        path = scripted_client.models.download("mdl_1", tmp_path)
        assert path.read_bytes() == weights
    else:
        with pytest.raises(Corrupt, match="instead of"):
            scripted_client.models.download("mdl_1", tmp_path)
        assert list(tmp_path.iterdir()) == []


def artifacts(*names, data=b"png", digest=None):
    """Return the list of artifacts with those names and the same content."""
    digest = digest or hashlib.sha256(data).hexdigest()
    items = [{"name": name, "media_type": "image/png", "sha256": digest, "size_bytes": len(data)} for name in names]
    return Response(body={"data": items, "has_more": False, "next": None})


def test_the_artifacts_of_a_job_are_saved_under_their_names(script, scripted_client, tmp_path):
    script.responses = [artifacts("views.png", "t-SNE plot.png"), Response(body=b"png"), Response(body=b"png")]
    paths = scripted_client.jobs.download("job_1", tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["views.png", "t-SNE plot.png"]
    assert all(path.read_bytes() == b"png" for path in paths)
    assert script.requests[-1].path == "/jobs/job_1/artifacts/t-SNE%20plot.png"


def test_an_artifact_of_another_sha256_is_not_saved(script, scripted_client, tmp_path):
    script.responses = [artifacts("views.png", digest="ab" * 32), Response(body=b"png")]
    with pytest.raises(Corrupt):
        scripted_client.jobs.download("job_1", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a\\b", "..", ".", "", "a\nb"])
def test_an_artifact_name_with_a_path_is_rejected(script, scripted_client, tmp_path, name):
    script.responses = [artifacts(name)]
    with pytest.raises(ValueError, match="not a file name"):
        scripted_client.jobs.download("job_1", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_id_with_a_path_is_rejected():
    assert id_of("ds_01k") == "ds_01k"
    for name in ("", "../keys", "a/b", "a?b"):
        with pytest.raises(ValueError, match="not an id"):
            id_of(name)


def _row(value):
    return base64.b64encode(struct.pack("<2f", value, -value)).decode()


def _file(body):
    """Return the content of the last part of a multipart body."""
    boundary = body[: body.index(b"\r\n")]
    part = body.split(boundary)[-2]
    return part[part.index(b"\r\n\r\n") + 4 : -2]
