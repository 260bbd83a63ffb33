"""Routes of /models: import, show and download."""

import base64
import hashlib
import json

import pytest

from api import schemas
from api.app import create
from ssl_core import events
from ssl_core.checksums import document
from tests.api.conftest import TestClient
from tests.api.responses import check_body, check_problem, get_pointers
from tests.service import given

WEIGHTS = bytes(range(256)) * 40
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
CARD = {"method": "simclr", "layers": {"backbone": 64}, "preprocessing": {"image_size": 32}, "backbone": {"name": "r"}}


@pytest.fixture
def job(database, tenant, storage):
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant), name="Gulls").id
    claim = given.claim_job(database)
    folder = storage.attempt_dir(job, 1) / "model"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(WEIGHTS)
    (folder / "model.json").write_text("{}")
    (folder / "README.md").write_text("# Gulls\n")
    given.record_events(database, claim, events.Model("model", SHA256, len(WEIGHTS), 64, CARD), events.Result({}))
    given.finish_job(database, claim)
    return job


@pytest.fixture
def model(client, job):
    return client.get(f"/jobs/{job}").json()["model_id"]


def test_model_is_shown_by_model_id_and_job_id(client, job, model):
    answer = check_body(schemas.Model, client.get(f"/models/{model}"))
    assert client.get(f"/models/{job}").json() == answer
    assert (answer["name"], answer["job_id"], answer["dim"], answer["sha256"]) == ("Gulls", job, 64, SHA256)
    assert (answer["method"], answer["layers"]) == ("simclr", {"backbone": 64})
    page = check_body(schemas.ModelList, client.get("/models"))
    assert page["data"] == [answer]


def test_download_supports_ranges_and_etags(client, job, model):
    place = f"/models/{model}/download"
    whole = client.get(place)
    assert (whole.content, whole.headers["etag"]) == (WEIGHTS, f'"{SHA256}"')
    digest = base64.b64encode(hashlib.sha256(WEIGHTS).digest()).decode()
    assert whole.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert client.get(f"/models/{job}/download", params={"file": "weights"}).content == WEIGHTS
    piece = client.get(place, headers={"Range": "bytes=100-199", "If-Range": whole.headers["etag"]})
    assert (piece.status_code, piece.content) == (206, WEIGHTS[100:200])
    assert client.get(place, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert client.get(place, params={"file": "card"}).json() == {}
    readme = client.get(place, params={"file": "readme"})
    assert (readme.text, readme.headers["content-type"]) == ("# Gulls\n", "text/markdown; charset=utf-8")


@pytest.mark.parametrize("file", ["weights", "readme", "card"])
@pytest.mark.parametrize(
    "sent", [{}, {"Range": "bytes=0-0"}, {"Range": "bytes=99999-"}, {"If-None-Match": f'"{SHA256}"'}]
)
def test_head_of_a_download_is_that_of_get_without_a_body(client, model, file, sent):
    place = f"/models/{model}/download?file={file}"
    got, head = client.get(place, headers=sent), client.head(place, headers=sent)
    assert (head.status_code, head.content) == (got.status_code, b"")
    first, second = ({**answer.headers, "x-request-id": ""} for answer in (got, head))
    assert first == second
    if not sent:
        assert (head.status_code, head.headers["accept-ranges"]) == (200, "bytes")
        assert int(head.headers["content-length"]) == len(got.content) > 0
        assert head.headers["etag"]


def test_head_of_what_is_refused_has_the_status_and_no_body(client, anonymous, model, storage):
    place = f"/models/{model}/download"
    assert [(a.status_code, a.content) for a in (anonymous.head(place), client.head("/models/mdl_x/download"))] == [
        (401, b""),
        (404, b""),
    ]
    answer = client.head(f"/models/{model}")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "DELETE, GET")
    assert client.post(place).headers["allow"] == "GET, HEAD"
    (path,) = storage.root.glob("jobs/*/a1/model/weights.safetensors")
    path.write_bytes(WEIGHTS[:-1] + b"!")
    assert client.head(place).status_code == 409


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9"}])
def test_damaged_weights_are_409_until_they_are_restored(client, model, storage, headers):
    place = f"/models/{model}/download"
    (path,) = storage.root.glob("jobs/*/a1/model/weights.safetensors")
    path.write_bytes(WEIGHTS[:-1] + b"!")
    answer = client.get(place, headers=headers)
    assert "weights.safetensors" in check_problem(answer, 409, "corrupt")["detail"]
    assert str(storage.root) not in answer.text
    path.write_bytes(WEIGHTS[:-1])
    check_problem(client.get(place, headers=headers), 409, "corrupt")
    path.write_bytes(WEIGHTS)
    assert client.get(place, headers=headers).is_success


def test_a_card_without_its_checksum_is_409(client, model, storage):
    (path,) = storage.root.glob("jobs/*/a1/model/model.json")
    path.write_text(json.dumps(document.seal({"dim": 64})))
    assert client.get(f"/models/{model}/download", params={"file": "card"}).json()["dim"] == 64
    path.write_text(path.read_text().replace("64", "65"))
    check_problem(client.get(f"/models/{model}/download", params={"file": "card"}), 409, "corrupt")


@pytest.mark.parametrize("file", ["heads", "readme"])
def test_heads_and_readme_are_compared_with_the_card(client, database, tenant, storage, file):
    name = {"heads": "heads.safetensors", "readme": "README.md"}[file]
    recorded = {"sha256": hashlib.sha256(b"sound").hexdigest(), "size_bytes": 5}
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    claim = given.claim_job(database)
    folder = storage.attempt_dir(job, 1) / "model"
    folder.mkdir(parents=True)
    card = CARD | {"files": {name: recorded}}
    given.record_events(database, claim, events.Model("model", SHA256, 1, 64, card), events.Result({}))
    given.finish_job(database, claim)
    (folder / name).write_bytes(b"sound")
    answer = client.get(f"/models/{job}/download", params={"file": file})
    assert (answer.content, answer.headers["etag"]) == (b"sound", f'"{recorded["sha256"]}"')
    (folder / name).write_bytes(b"round")
    check_problem(client.get(f"/models/{job}/download", params={"file": file}), 409, "corrupt")


def test_unsatisfiable_range_is_416(client, model):
    place = f"/models/{model}/download"
    answer = client.get(place, headers={"Range": "bytes=999999-"})
    check_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(WEIGHTS)}"
    check_problem(client.get(place, headers={"Range": "bytes=x-y"}), 400, "bad_request")


def test_missing_model_file_is_409(client, model):
    check_problem(client.get(f"/models/{model}/download", params={"file": "heads"}), 409, "corrupt")
    body = check_problem(client.get(f"/models/{model}/download", params={"file": "../x"}), 422, "invalid_request")
    assert get_pointers(body) == ["file"]


def test_model_of_unfinished_or_failed_job(client, database, tenant):
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    for place in (f"/models/{job}", f"/models/{job}/download"):
        check_problem(client.get(place), 409, "model_not_ready")
    client.post(f"/jobs/{job}/cancel")
    check_problem(client.get(f"/models/{job}"), 409, "parent_failed")
    check_problem(client.get("/models/mdl_none"), 404, "model_not_found")


def test_model_of_another_tenant_is_404(other, job, model):
    for name in (job, model):
        check_problem(other.get(f"/models/{name}"), 404, "model_not_found")
        check_problem(other.get(f"/models/{name}/download"), 404, "model_not_found")
    assert other.get("/models").json()["data"] == []


def send(client, content=b"weights", *, config=None, **options):
    data = {} if config is None else {"config": config if isinstance(config, str) else json.dumps(config)}
    return client.post("/models", files={"file": ("r18.pt", content)}, data=data, **options)


def test_uploaded_weights_become_an_import_job(client, database, storage, tenant):
    answer = send(client, config={"backbone": "resnet18", "mean": [0.5, 0.5, 0.5]})
    job = check_body(schemas.Job, answer, 202)
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert (job["kind"], job["status"], job["name"], job["dataset"]) == ("import", "queued", "r18.pt", None)
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert job["config"]["upload"] == {"sha256": sha256, "size_bytes": 7}
    assert (job["config"]["backbone"], job["config"]["image_size"]) == ("resnet18", "auto")
    assert storage.upload_path(tenant, sha256).read_bytes() == b"weights"
    check_problem(client.get(f"/models/{job['id']}"), 409, "model_not_ready")
    shown = client.get(f"/jobs/{job['id']}").json() | {"queue": None}
    assert client.get("/jobs", params={"kind": "import"}).json()["data"] == [shown]
    claim = given.claim_job(database, "data")
    given.record_events(database, claim, given.model(imported={"layout": "torchvision"}), events.Result({}))
    given.finish_job(database, claim)
    model = check_body(schemas.Model, client.get(f"/models/{job['id']}"))
    assert (model["job_id"], model["card"]["imported"]) == (job["id"], {"layout": "torchvision"})


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"backbone": "resnet51"}, "/config/backbone"),
        ({"image_size": 7}, "/config/image_size"),
        ({"mean": [0.5, 0.5]}, "/config/std"),
        ({"mean": [0.5] * 17, "std": [0.5] * 17}, "/config/mean"),
        ({"std": [0.5, 0.5, 0.0]}, "/config/std/2"),
        ({"stem": "vgg"}, "/config/stem"),
        ({"width": 2}, "/config/width"),
        ("{", "/config"),
        ("[]", "/config"),
        ('{"image_size": NaN}', "/config"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_invalid_import_config_has_pointers(client, config, pointer):
    body = check_problem(send(client, config=config), 422, "invalid_config")
    assert get_pointers(body)[0].startswith(pointer)
    assert client.get("/jobs").json()["data"] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_invalid_weights_form_is_refused(client):
    check_problem(client.post("/models", json={"file": "x"}), 415, "unsupported_media")
    check_problem(send(client, b""), 422, "empty_upload")
    check_problem(client.post("/models", files={"name": (None, "x")}), 422, "invalid_request")
    check_problem(client.post("/models", files={"file": b"x"}, data={"on_bad_file": "skip"}), 422, "invalid_request")
    check_problem(client.post("/jobs", json={"kind": "import", "dataset": "ds_x"}), 422, "unknown_kind")


def test_too_large_weights_are_413(settings, database, key):
    small = create(settings.model_copy(update={"max_weights_bytes": 1000}))
    with TestClient(small, headers={"Authorization": f"Bearer {key}"}) as client:
        check_problem(send(client, bytes(1001)), 413, "too_large")
        assert send(client, bytes(1000)).status_code == 202


def test_import_is_idempotent(client):
    once = {"Idempotency-Key": "import-1"}
    first, second = send(client, headers=once), send(client, headers=once)
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["idempotent-replayed"] == "true"
    assert len(client.get("/jobs").json()["data"]) == 1
    check_problem(send(client, config={"image_size": 64}, headers=once), 422, "idempotency_mismatch")


def test_import_of_another_tenant_is_404(client, other):
    job = send(client).json()["id"]
    check_problem(other.get(f"/jobs/{job}"), 404, "job_not_found")
    check_problem(other.get(f"/models/{job}"), 404, "model_not_found")
    check_problem(other.post(f"/jobs/{job}/cancel"), 404, "job_not_found")
    assert other.get("/jobs").json()["data"] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_import_can_be_cancelled(client):
    job = send(client).json()["id"]
    assert client.post(f"/jobs/{job}/cancel").json()["status"] == "cancelled"
    check_problem(client.get(f"/models/{job}"), 409, "parent_failed")
