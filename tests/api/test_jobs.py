"""Routes of /jobs, on both databases."""

import hashlib

import pytest

from api import schemas
from service.db.statuses import DatasetStatus, JobStatus
from ssl_core import events
from ssl_core.config import KINDS
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given


@pytest.fixture
def dataset(database, tenant):
    return given.create_ready_dataset(database, tenant)


def new_job(dataset, /, **fields):
    return {"kind": "pretrain", "dataset": dataset, "config": given.PRETRAIN, **fields}


def test_submitted_job_has_location_and_complete_config(client, dataset):
    answer = client.post("/jobs", json=new_job(dataset, name="first", priority=3, metadata={"team": "vision"}))
    job = check_body(schemas.Job, answer, 202)
    assert answer.headers["location"] == f"/jobs/{job['id']}" == job["urls"]["self"]
    assert (job["status"], job["name"], job["priority"], job["metadata"]) == ("queued", "first", 3, {"team": "vision"})
    assert job["config"]["method"]["temperature"] == 0.2
    assert [change["status"] for change in job["transitions"]] == ["queued"]
    assert client.get(answer.headers["location"]).json() | {"queue": None} == job


def test_job_shows_progress_and_results(client, database, tenant, dataset):
    job = client.post("/jobs", json=new_job(dataset)).json()
    claim = given.claim_job(database)
    progress = events.Progress(epoch=1, epochs=4, step=25, total_steps=100, images_per_second=9.5, eta_seconds=60)
    given.record_events(database, claim, events.Resolved(given.PRETRAIN), progress, given.checkpoint(25), given.model())
    running = check_body(schemas.Job, client.get(f"/jobs/{job['id']}"))
    assert (running["status"], running["attempt"], running["progress"]["percent"]) == ("running", 1, 25.0)
    assert running["model_id"] is None
    given.record_events(database, claim, events.Result({"knn": 0.5}))
    given.finish_job(database, claim)
    done = check_body(schemas.Job, client.get(f"/jobs/{job['id']}"))
    assert (done["status"], done["summary"]) == ("succeeded", {"knn": 0.5})
    assert done["model_id"].startswith("mdl_")
    assert [change["status"] for change in done["transitions"]] == ["queued", "running", "succeeded"]
    checkpoints = check_body(schemas.CheckpointList, client.get(f"/jobs/{job['id']}/checkpoints"))
    assert [row["step"] for row in checkpoints["data"]] == [25]


def test_job_shows_supervised_baselines(client, database, tenant):
    def succeed(kind, top1, labels=100, on=None):
        job = given.submit_job(database, tenant, on or dataset, kind, **fields_of(kind))
        claim = given.claim_job(database)
        result = {"top1": top1, "top1_interval": [top1, top1], "labels": labels}
        given.record_events(database, claim, events.Result(result))
        given.finish_job(database, claim)
        return job.id

    def fields_of(kind):
        return {} if kind == "supervised" else {"model": model}

    dataset = given.create_ready_dataset(database, tenant)
    pretrained = given.submit_job(database, tenant, dataset)
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model(classifier={"classes": ["a", "b"]}))
    given.finish_job(database, claim)
    model = pretrained.id
    alone = succeed("linear_eval", 0.7)
    assert client.get(f"/jobs/{alone}").json()["supervised"] == []
    succeed("supervised", 0.5)
    newest = succeed("supervised", 0.6)
    few = succeed("supervised", 0.3, labels=10)
    succeed("supervised", 0.9, on=given.create_ready_dataset(database, tenant, sha256="b" * 64))
    for kind in ("linear_eval", "knn_eval", "finetune", "distill"):
        result = check_body(schemas.Job, client.get(f"/jobs/{succeed(kind, 0.7)}"))["supervised"]
        assert result == [
            {"job": few, "labels": 10, "top1": 0.3, "top1_interval": [0.3, 0.3]},
            {"job": newest, "labels": 100, "top1": 0.6, "top1_interval": [0.6, 0.6]},
        ]
    assert client.get(f"/jobs/{pretrained.id}").json()["supervised"] == []
    assert client.get(f"/jobs/{newest}").json()["supervised"] == []


def test_job_waits_for_its_model(client, database, tenant, dataset):
    parent = client.post("/jobs", json=new_job(dataset)).json()
    child = client.post("/jobs", json={"kind": "knn_eval", "dataset": dataset, "model": parent["id"]}).json()
    assert (child["status"], child["model"]) == ("waiting", parent["id"])


def test_lists_are_filtered_and_paged(client, database, tenant, dataset):
    created = [client.post("/jobs", json=new_job(dataset)).json()["id"] for _ in range(3)]
    client.post(f"/jobs/{created[0]}/cancel")
    page = check_body(schemas.JobList, client.get("/jobs", params={"limit": 2}))
    assert [job["id"] for job in page["data"]] == created[:0:-1]
    assert (page["has_more"], page["next"]) == (True, created[1])
    rest = client.get("/jobs", params={"after": page["next"]}).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"]) == ([created[0]], False)
    for filters in ({"status": "cancelled"}, {"status": "cancelled", "kind": "pretrain", "dataset": dataset}):
        assert [job["id"] for job in client.get("/jobs", params=filters).json()["data"]] == [created[0]]
    assert client.get("/jobs", params={"kind": "knn_eval"}).json()["data"] == []
    for kind in ("ingest", "\x11"):  # an internal kind, whose jobs are not shown, and none
        assert get_pointers(check_problem(client.get("/jobs", params={"kind": kind}), 422, "invalid_request")) == [
            "kind"
        ]
    assert client.get("/jobs", params={"dataset": "\x11"}).json()["data"] == []
    refused = client.get("/jobs", params={"dataset": "\x11", "after": "x"})
    assert get_pointers(check_problem(refused, 422, "invalid_request")) == ["after"]


def test_cancel_is_idempotent(client, database, tenant, dataset):
    job = client.post("/jobs", json=new_job(dataset)).json()["id"]
    first = check_body(schemas.Job, client.post(f"/jobs/{job}/cancel"))
    assert first["status"] == "cancelled"
    assert client.post(f"/jobs/{job}/cancel").json() == first
    running = client.post("/jobs", json=new_job(dataset)).json()["id"]
    given.claim_job(database)
    assert client.post(f"/jobs/{running}/cancel").json()["status"] == "cancelling"


def test_events_are_paged(client, database, tenant, dataset):
    job = client.post("/jobs", json=new_job(dataset)).json()["id"]
    claim = given.claim_job(database)
    given.record_events(database, claim, events.Log("warning", "Features are collapsing.", "collapse", {"std": 0.01}))
    page = check_body(schemas.EventList, client.get(f"/jobs/{job}/events", params={"limit": 2}))
    assert ([event["seq"] for event in page["data"]], page["has_more"]) == ([1, 2], True)
    rest = client.get(f"/jobs/{job}/events", params={"after": page["next"]}).json()
    assert [(event["code"], event["level"], event["data"]) for event in rest["data"]] == [
        ("collapse", "warning", {"std": 0.01})
    ]
    assert rest["has_more"] is False


PNG_SHA = hashlib.sha256(b"png").hexdigest()


def test_artifact_is_downloaded_by_name(client, database, tenant, dataset, storage):
    job = client.post("/jobs", json=new_job(dataset)).json()["id"]
    claim = given.claim_job(database)
    given.record_events(database, claim, events.Artifact("t-SNE plot.png", "plot.png", "image/png", PNG_SHA, 3))
    missing = check_problem(client.get(f"/jobs/{job}/artifacts/t-SNE plot.png"), 404, "artifact_not_found")
    assert "missing" in missing["detail"]
    folder = storage.attempt_dir(job, 1)
    folder.mkdir(parents=True)
    (folder / "plot.png").write_bytes(b"png")
    answer = client.get(f"/jobs/{job}/artifacts/t-SNE plot.png")
    assert (answer.content, answer.headers["content-type"]) == (b"png", "image/png")
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''t-SNE%20plot.png"
    head = client.head(f"/jobs/{job}/artifacts/t-SNE plot.png")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", f'"{PNG_SHA}"')
    assert (head.headers["content-length"], head.headers["accept-ranges"]) == ("3", "bytes")
    (folder / "plot.png").write_bytes(b"pnG")
    check_problem(client.get(f"/jobs/{job}/artifacts/t-SNE plot.png"), 409, "corrupt")
    check_problem(client.get(f"/jobs/{job}/artifacts/other.png"), 404, "artifact_not_found")
    check_problem(client.get(f"/jobs/{job}/artifacts/..%2Fplot.png"), 404, "not_found")


def test_a_name_that_is_not_ascii_is_in_the_disposition(client, database, tenant, dataset, storage):
    job = client.post("/jobs", json=new_job(dataset)).json()["id"]
    claim = given.claim_job(database)
    given.record_events(database, claim, events.Artifact("Möwe €.png", "plot.png", "image/png", PNG_SHA, 3))
    folder = storage.attempt_dir(job, 1)
    folder.mkdir(parents=True)
    (folder / "plot.png").write_bytes(b"png")
    answer = client.get(f"/jobs/{job}/artifacts/Möwe €.png")
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''M%C3%B6we%20%E2%82%AC.png"


def test_artifacts_are_listed_with_urls(client, database, tenant, dataset, storage):
    job = client.post("/jobs", json=new_job(dataset)).json()
    assert check_body(schemas.ArtifactList, client.get(job["urls"]["artifacts"]))["data"] == []
    claim = given.claim_job(database)
    for name in ("views.png", "t-SNE plot.png"):
        given.record_events(database, claim, events.Artifact(name, "plot.png", "image/png", PNG_SHA, 3))
    first, second = check_body(schemas.ArtifactList, client.get(job["urls"]["artifacts"]))["data"]
    assert (first["name"], second["name"]) == ("t-SNE plot.png", "views.png")
    assert (first["media_type"], first["sha256"], first["size_bytes"]) == ("image/png", PNG_SHA, 3)
    folder = storage.attempt_dir(job["id"], 1)
    folder.mkdir(parents=True)
    (folder / "plot.png").write_bytes(b"png")
    assert client.get(first["url"]).content == b"png"


BAD = {
    "unknown field with its nearest name": ({"prority": 1}, "invalid_request", ["/prority"], "`priority`"),
    "unknown kind with its nearest name": ({"kind": "linear_evl"}, "unknown_kind", ["/kind"], "`linear_eval`"),
    "internal kind": ({"kind": "ingest"}, "unknown_kind", ["/kind"], "pretrain"),
    "kind of a wrong type": ({"kind": 3}, "invalid_request", ["/kind"], "string"),
    "no dataset": ({"dataset": None}, "invalid_request", ["/dataset"], "string"),
    "priority out of range": ({"priority": 1001}, "invalid_request", ["/priority"], "1000"),
    "priority of a huge size": ({"priority": 10**30}, "invalid_request", ["/priority"], "integer"),
    "boolean priority": ({"priority": True}, "invalid_request", ["/priority"], "integer"),
    "name too long": ({"name": "x" * 201}, "invalid_request", ["/name"], "200"),
    "name of two lines": ({"name": "a\nb"}, "invalid_request", ["/name"], "control"),
    "metadata of numbers": ({"metadata": {"a/b": 1}}, "invalid_request", ["/metadata/a~1b"], "string"),
    "too much metadata": ({"metadata": {str(i): "x" for i in range(51)}}, "invalid_request", ["/metadata"], "50"),
    "config that is a list": ({"config": []}, "invalid_request", ["/config"], "dictionary"),
    "empty config": ({"config": {}}, "invalid_config", ["/config/method"], "required"),
    "unknown config field with its nearest name": (
        {"config": {"method": {"name": "simclr", "temprature": 0.5}}},
        "invalid_config",
        ["/config/method/temprature"],
        "`temperature`",
    ),
    "config out of range": (
        {"config": {"method": {"name": "simclr", "temperature": -1}, "batch_size": 0}},
        "invalid_config",
        ["/config/batch_size", "/config/method/temperature"],
        "0.001",
    ),
    "config of a wrong type": (
        {"config": {"method": {"name": "simclr"}, "epochs": "100"}},
        "invalid_config",
        ["/config/epochs"],
        "integer",
    ),
    "unknown method": ({"config": {"method": {"name": "simclrr"}}}, "invalid_config", ["/config/method"], "simclr"),
    "two lengths": (
        {"config": {"method": {"name": "simclr"}, "epochs": 1, "minutes": 1.0}},
        "invalid_config",
        ["/config"],
        "not both",
    ),
    "config of another kind": (
        {"config": {"kind": "knn_eval", "method": {"name": "simclr"}}},
        "invalid_config",
        ["/config/kind"],
        "pretrain",
    ),
    "batch larger than the dataset": (
        {"config": {"method": {"name": "simclr"}, "batch_size": 101}},
        "batch_too_large",
        ["/config/batch_size"],
        "100",
    ),
    "batch larger than the subset": (
        {"config": {"method": {"name": "simclr"}, "batch_size": 51, "subset": 50}},
        "invalid_config",
        ["/config"],
        "batch_size 51 is larger than subset 50",
    ),
    "more devices than images": (
        {"config": {"method": {"name": "simclr"}, "subset": 3, "devices": 4}},
        "too_few_images",
        ["/config/devices"],
        "3 training images; the run needs at least 4",
    ),
    "subset larger than the dataset": (
        {"config": {"method": {"name": "simclr"}, "batch_size": 10, "subset": 101}},
        "invalid_config",
        ["/config/subset"],
        "100",
    ),
    "projection without a model": ({"kind": "project", "config": {}}, "model_needed", ["/model"], "odel"),
    "projection of an empty split": (
        {"kind": "project", "config": {"split": "val"}, "model": "mdl_none"},
        "invalid_config",
        ["/config/split"],
        "val split",
    ),
    "embedding of an empty split": (
        {"kind": "embed_dataset", "config": {"splits": ["train", "val"]}, "model": "mdl_none"},
        "invalid_config",
        ["/config/splits/1"],
        "val split",
    ),
    "embedding with a split named twice": (
        {"kind": "embed_dataset", "config": {"splits": ["train", "train"]}, "model": "mdl_none"},
        "invalid_config",
        ["/config/splits"],
        "twice",
    ),
    "embedding by too many workers": (
        {"kind": "embed_dataset", "config": {"workers": 65}, "model": "mdl_none"},
        "invalid_config",
        ["/config/workers"],
        "64",
    ),
    "internal kind of a shared job": ({"kind": "embed_shards"}, "unknown_kind", ["/kind"], "embed_dataset"),
    "labels of an image that is not there": (
        {"kind": "supervised", "config": {"label_rows": [3, 99, 100]}},
        "invalid_config",
        ["/config/label_rows/2"],
        "100 images",
    ),
    "evaluation without a model": ({"kind": "knn_eval", "config": {}}, "model_needed", ["/model"], "odel"),
}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("case", BAD)
def test_invalid_jobs_are_refused(client, database, tenant, dataset, case):
    fields, code, places, hint = BAD[case]
    body = check_problem(client.post("/jobs", json=new_job(dataset, **fields)), 422, code)
    assert get_pointers(body) == places
    assert hint in body["detail"]
    assert client.get("/jobs").json()["data"] == []


SIMCLR = {"method": {"name": "simclr"}}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("pretrain", SIMCLR),
        ("pretrain", {**SIMCLR, "batch_size": "auto", "subset": 2}),
        ("pretrain", {**SIMCLR, "minutes": 1.0}),
        ("pretrain", {**SIMCLR, "devices": 3}),
        ("pretrain", {**SIMCLR, "chunk_size": 4096}),
        ("supervised", {"devices": 3}),
        ("supervised", {"subset": 10, "label_fraction": 0.5}),
    ],
)
def test_a_batch_size_that_nothing_says_fits_a_small_dataset(client, database, tenant, kind, config):
    small = given.create_ready_dataset(database, tenant, "ef" * 32, images=32)
    job = check_body(schemas.Job, client.post("/jobs", json=new_job(small, kind=kind, config=config)), 202)
    assert job["config"]["batch_size"] == "auto"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_single_image_is_too_few_to_train_on(client, database, tenant):
    single = given.create_ready_dataset(database, tenant, "ef" * 32, images=1, classes=1)
    for kind, config in (("pretrain", SIMCLR), ("supervised", {})):
        problem = check_problem(
            client.post("/jobs", json=new_job(single, kind=kind, config=config)), 422, "too_few_images"
        )
        assert get_pointers(problem) == ["/dataset"]
        assert problem["detail"] == "There is 1 training image; the run needs at least 2."


def test_evaluation_without_labels_is_refused(client, database, tenant):
    unlabelled = given.create_ready_dataset(database, tenant, "cd" * 32, classes=0)
    watched = {"method": {"name": "simclr"}, "batch_size": 10, "early_stop": {"metric": "knn"}}
    refused = check_problem(client.post("/jobs", json=new_job(unlabelled, config=watched)), 422, "labels_needed")
    assert get_pointers(refused) == ["/config/early_stop/metric"]
    parent = client.post("/jobs", json=new_job(unlabelled)).json()["id"]
    for kind in ("linear_eval", "knn_eval"):
        answer = client.post("/jobs", json={"kind": kind, "dataset": unlabelled, "model": parent})
        assert get_pointers(check_problem(answer, 422, "labels_needed")) == ["/dataset"]


def test_label_rows_are_counted_over_all_splits(client, database, tenant):
    dataset = given.create_ready_dataset(database, tenant, "cd" * 32, images=100, test=20)
    parent = client.post("/jobs", json=new_job(dataset)).json()["id"]
    evaluation = {"kind": "linear_eval", "dataset": dataset, "model": parent}
    assert client.post("/jobs", json=evaluation | {"config": {"label_rows": [3, 119]}}).status_code == 202
    answer = client.post("/jobs", json=evaluation | {"config": {"label_rows": [3, 120]}})
    assert get_pointers(check_problem(answer, 422, "invalid_config")) == ["/config/label_rows/1"]


def test_dataset_that_is_not_ready_is_409(client, database, tenant):
    dataset = given.create_dataset(database, tenant).id
    check_problem(client.post("/jobs", json=new_job(dataset)), 409, "dataset_not_ready")
    given.finish_job(
        database, given.claim_job(database, "data"), "failed", {"code": "no_images", "detail": "No images."}
    )
    check_problem(client.post("/jobs", json=new_job(dataset)), 409, "dataset_failed")


def test_unavailable_model_is_refused(client, database, tenant, dataset):
    job = client.post("/jobs", json=new_job(dataset)).json()["id"]
    evaluation = {"kind": "knn_eval", "dataset": dataset}
    for unknown in ("mdl_none", "job_none", "nonsense"):
        check_problem(client.post("/jobs", json={**evaluation, "model": unknown}), 404, "model_not_found")
    client.post(f"/jobs/{job}/cancel")
    check_problem(client.post("/jobs", json={**evaluation, "model": job}), 409, "parent_failed")


def test_ids_of_another_tenant_are_404(client, other, database, tenant, dataset):
    job = client.post("/jobs", json=new_job(dataset)).json()["id"]
    for place in ("", "/metrics", "/events", "/checkpoints", "/artifacts", "/artifacts/x"):
        theirs = check_problem(other.get(f"/jobs/{job}{place}"), 404, "job_not_found")
        missing = check_problem(other.get(f"/jobs/job_none{place}"), 404, "job_not_found")
        assert {**theirs, "request_id": ""} == {**missing, "request_id": ""}
    check_problem(other.post(f"/jobs/{job}/cancel"), 404, "job_not_found")
    check_problem(other.post("/jobs", json=new_job(dataset)), 404, "dataset_not_found")
    assert other.get("/jobs").json()["data"] == []
    assert client.get(f"/jobs/{job}").json()["status"] == "queued"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("path", "name", "value", "hint"),
    [
        ("/jobs", "status", "succeded", "`succeeded`"),
        ("/jobs", "status", "Running", "`running`"),
        ("/jobs", "status", "xyz", "there are waiting, queued"),
        ("/jobs", "kind", "pretrian", "`pretrain`"),
        ("/datasets", "status", "redy", "`ready`"),
        ("/datasets", "status", "", "there are validating"),
    ],
)
def test_an_unknown_value_of_a_filter_is_refused_with_the_closest(client, path, name, value, hint):
    problem = check_problem(client.get(path, params={name: value}), 422, "invalid_request")
    assert get_pointers(problem) == [name]
    assert hint in problem["detail"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_every_value_of_a_filter_is_accepted(client):
    for path, name, values in (
        ("/jobs", "status", JobStatus),
        ("/jobs", "kind", [*KINDS, "import"]),
        ("/datasets", "status", DatasetStatus),
    ):
        for value in values:
            assert client.get(path, params={name: str(value)}).status_code == 200
