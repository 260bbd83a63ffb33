"""The client against the real API (which here has no workers), and against a scripted one for what workers leave."""

import base64
import hashlib
import io
import struct
import tarfile

import pytest

from tests.twoviews.scripted import Answer
from twoviews import ApiError, Client, Corrupt, DatasetFailed, Job, JobFailed, Waited
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


def test_an_upload_is_accepted_and_found_again(client, tmp_path):
    source = tmp_path / "photos.zip"
    source.write_bytes(b"not yet opened by anyone")
    sent = []
    dataset = client.datasets.upload(source, name="mine", progress=lambda done, total: sent.append((done, total)))
    assert (dataset.name, dataset.status, dataset.size_bytes) == ("mine", "validating", 24)
    assert sent[-1] == (24, 24)
    assert client.datasets.get(dataset) == dataset
    assert [item.id for item in client.datasets.list()] == [dataset.id]
    assert list(client.datasets.list(status="ready")) == []


def test_waiting_ends_when_its_time_is_over(client, tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"x")
    dataset = client.datasets.upload(tmp_path / "photos.zip")
    with pytest.raises(Waited, match="still being validated"):
        client.datasets.wait(dataset, timeout_seconds=0.1)


def test_a_missing_file_is_told_before_anything_is_sent(client, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        client.datasets.upload(tmp_path / "nothing.zip")


def test_a_folder_is_packed_in_order_without_hidden_files_and_to_equal_bytes(script, scripted_client, tmp_path):
    script.answers = [Answer(202, {"id": "ds_1"}), Answer(202, {"id": "ds_1"})]
    folder = photos(tmp_path / "photos")
    scripted_client.datasets.upload(folder)
    scripted_client.datasets.upload(folder)
    bodies = [_file(asked.body) for asked in script.asked]
    assert bodies[0] == bodies[1]
    with tarfile.open(fileobj=io.BytesIO(bodies[0])) as tar:
        assert tar.getnames() == ["cat/a.png", "cat/b.png", "dog/c.png"]


def test_an_upload_that_broke_off_is_sent_again_from_its_start(script, tmp_path):
    script.answers = [Answer(503, {}), Answer(202, {"id": "ds_1"})]
    (tmp_path / "a.zip").write_bytes(bytes(range(256)) * 1000)
    with Client(script.url, "tv_secret") as client:
        client.datasets.upload(tmp_path / "a.zip")
    assert [_file(asked.body) for asked in script.asked] == [(tmp_path / "a.zip").read_bytes()] * 2


def test_another_kind_of_wrong_is_an_api_error_with_its_place(client):
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


def test_a_new_key_opens_and_a_revoked_one_does_not(client):
    key = client.keys.create("laptop")
    assert key.key not in repr(key)
    with Client(client.url, key.key) as other:
        assert key.id in {item.id for item in other.keys.list()}
        client.keys.revoke(key)
        with pytest.raises(ApiError) as caught:
            list(other.datasets.list())
    assert caught.value.status == 401


def test_unknown_fields_are_kept_and_in_nobodys_way():
    job = Job.of({"id": "job_1", "status": "running", "colour": "blue"})
    assert (job.id, job.done, job.raw["colour"]) == ("job_1", False, "blue")


def test_waiting_for_a_job_raises_its_error(script, scripted_client):
    failed = {"id": "job_1", "status": "failed", "error": {"code": "diverged", "detail": "The loss is not a number."}}
    script.answers = [Answer(body={"id": "job_1", "status": "running"}), Answer(body=failed)]
    with pytest.raises(JobFailed, match="The loss is not a number") as caught:
        scripted_client.jobs.wait("job_1")
    assert caught.value.status == "failed"


def test_waiting_for_a_dataset_raises_its_error(script, scripted_client):
    script.answers = [Answer(body={"id": "ds_1", "status": "failed", "error": {"detail": "No images are in it."}})]
    with pytest.raises(DatasetFailed, match="No images are in it"):
        scripted_client.datasets.wait("ds_1")


def test_watching_asks_for_each_point_once_and_ends_with_the_job(script, scripted_client):
    def points(steps, last):
        columns = {name: list(steps) for name in ("step", "epoch", "time", "value")}
        return Answer(body={"series": [{"name": "train/loss", **columns}] if steps else [], "last": last})

    running, done = ({"id": "job_1", "status": status} for status in ("running", "succeeded"))
    script.answers = [Answer(body=running), points([1, 2], 2), Answer(body=running), points([], 2), Answer(body=done)]
    script.answers += [points([3], 3)]
    updates = list(scripted_client.jobs.watch("job_1", names=["train/loss"]))
    assert [update.job.status for update in updates] == ["running", "running", "succeeded"]
    seen = [step for update in updates for series in update.metrics.series.values() for step in series.step]
    assert seen == [1, 2, 3]
    asked = [request.path for request in script.asked if "metrics" in request.path]
    assert ["after=0" in asked[0], "after=2" in asked[1], "after=2" in asked[2]] == [True] * 3
    assert "wait" in asked[0]
    assert "wait" not in asked[2]


def test_embeddings_come_in_the_order_of_the_images_batch_by_batch(script, scripted_client, tmp_path):
    def rows(*values):
        data = [{"index": place, "embedding": _row(value)} for place, value in enumerate(values)]
        return Answer(body={"object": "list", "model": "mdl_1", "dim": 2, "data": data[::-1]})

    (tmp_path / "b.png").write_bytes(b"second")
    script.answers = [rows(1.0, 2.0), rows(3.0)]
    found = scripted_client.embed("mdl_1", [b"first", tmp_path / "b.png", b"third"], batch=2, layer="projection")
    assert [list(row) for row in found] == [[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]]
    assert b"first" in script.asked[0].body
    assert b"second" in script.asked[0].body
    assert b"third" in script.asked[1].body
    assert b"projection" in script.asked[0].body


@pytest.mark.parametrize("honest", [True, False])
def test_weights_appear_whole_with_the_promised_sha256_or_not_at_all(script, scripted_client, tmp_path, honest):
    weights = b"weights" * 1000
    model = {"id": "mdl_1", "sha256": hashlib.sha256(weights if honest else b"other").hexdigest()}
    script.answers = [Answer(body=model), Answer(body=weights)]
    if honest:
        path = scripted_client.models.download("mdl_1", tmp_path)
        assert path.read_bytes() == weights
    else:
        with pytest.raises(Corrupt, match="was promised"):
            scripted_client.models.download("mdl_1", tmp_path)
        assert list(tmp_path.iterdir()) == []


def artifacts(*names, data=b"png", digest=None):
    """A list of files with those names, all with the same content."""
    digest = digest or hashlib.sha256(data).hexdigest()
    items = [{"name": name, "media_type": "image/png", "sha256": digest, "size_bytes": len(data)} for name in names]
    return Answer(body={"data": items, "has_more": False, "next": None})


def test_the_files_of_a_job_are_saved_under_their_names(script, scripted_client, tmp_path):
    script.answers = [artifacts("views.png", "t-SNE plot.png"), Answer(body=b"png"), Answer(body=b"png")]
    paths = scripted_client.jobs.download("job_1", tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["views.png", "t-SNE plot.png"]
    assert all(path.read_bytes() == b"png" for path in paths)
    assert script.asked[-1].path == "/jobs/job_1/artifacts/t-SNE%20plot.png"


def test_a_file_that_is_not_as_promised_is_not_saved(script, scripted_client, tmp_path):
    script.answers = [artifacts("views.png", digest="ab" * 32), Answer(body=b"png")]
    with pytest.raises(Corrupt):
        scripted_client.jobs.download("job_1", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a\\b", "..", ".", "", "a\nb"])
def test_a_file_never_leaves_its_folder(script, scripted_client, tmp_path, name):
    script.answers = [artifacts(name)]
    with pytest.raises(ValueError, match="not a file's name"):
        scripted_client.jobs.download("job_1", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_id_never_leaves_its_place_in_the_path():
    assert id_of("ds_01k") == "ds_01k"
    for name in ("", "../keys", "a/b", "a?b"):
        with pytest.raises(ValueError, match="not an id"):
            id_of(name)


def _row(value):
    return base64.b64encode(struct.pack("<2f", value, -value)).decode()


def _file(body):
    """The content of the multipart body's last part."""
    boundary = body[: body.index(b"\r\n")]
    part = body.split(boundary)[-2]
    return part[part.index(b"\r\n\r\n") + 4 : -2]
