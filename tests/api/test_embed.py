"""POST /embed: media types, encodings, limits and errors."""

import base64
import io
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from api.app import create
from api.encoder import base64_text
from api.encoder.body_memory import BodyMemory
from api.encoder.request import EmbedRequest
from api.parameters.patterns import BASE64
from service import keys
from service.db import ids
from service.db.models import Dataset, Job, Model
from service.db.session import Database, now
from service.errors import EncoderBusy
from service.settings import Settings
from ssl_core.serialization import saved_model
from tests import logs
from tests.api.conftest import TestClient
from tests.api.responses import check_problem, get_pointers
from tests.worker.encoder import models, pictures, server
from tests.worker.encoder.server import Server

IMAGES = [pictures.png(seed) for seed in range(3)]
JSON = {"Content-Type": "application/json"}
LIMITS = {"embed_max_images": 5, "max_image_bytes": 20_000, "embed_max_body_bytes": 60_000}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = server.data_folder(tmp_path_factory.mktemp("data"))
    models.make(folder / "models" / "a")
    return folder


@pytest.fixture(scope="module")
def encoder(model_folder: Path) -> Iterator[Server]:
    with server.running(Settings(data_dir=model_folder, log_file=model_folder / "encoder.log")) as running:
        yield running


@pytest.fixture
def client(settings: Settings, model_folder: Path, database: Database, tenant: str) -> Iterator[TestClient]:
    """A client of an application with small limits, in the data folder of the encoder."""
    with database.writing() as session:
        secret = keys.create(session, tenant, "test")[1]
    app = create(settings.model_copy(update={"data_dir": model_folder, **LIMITS}))
    with TestClient(app, headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client


@pytest.fixture
def model(database: Database, tenant: str, model_folder: Path) -> str:
    """The id of a model of the tenant, made by a job that succeeded."""
    return create_model(database, tenant, saved_model.load_card(model_folder / "models" / "a"))


def create_model(
    database: Database, tenant: str, card: dict, *, path: str = "models/a", status: str = "succeeded"
) -> str:
    """Insert a job and its model; return the model's id."""
    dataset, job, model = ids.new("ds"), ids.new("job"), ids.new("mdl")
    with database.writing() as session:
        session.add(
            Dataset(
                id=dataset, tenant_id=tenant, name="pictures", status="ready", on_bad_file="reject", sha256="0" * 64,
                size_bytes=1, created_at=now(),
            )
        )  # fmt: skip
        session.flush()
        session.add(
            Model(
                id=model, tenant_id=tenant, job_id=job, name="a", path=path, sha256="0" * 64, size_bytes=1, dim=128,
                card=card, created_at=now(),
            )
        )  # fmt: skip
        session.flush()
        session.add(
            Job(
                id=job, tenant_id=tenant, kind="pretrain", queue="train", dataset_id=dataset, config={},
                user_metadata={}, priority=0, status=status, created_at=now(),
                made_model_id=model if status == "succeeded" else None,
            )
        )  # fmt: skip
    return model


def multipart(images: list[bytes]) -> list:
    return [("images", (f"{index}.png", image, "image/png")) for index, image in enumerate(images)]


def as_text(images: list[bytes]) -> list[str]:
    return [base64.b64encode(image).decode() for image in images]


def test_the_log_of_the_encoder_has_the_id_and_the_owner_of_the_request(
    client: TestClient, model: str, encoder: Server, tenant: str
) -> None:
    order = {"model": model, "images": [base64.b64encode(b"no image").decode()]}
    answer = client.post("/embed", json=order)
    check_problem(answer, 422, "not_an_image")
    assert encoder.settings.log_file is not None
    request_id = answer.headers["x-request-id"]
    record = next(record for record in logs.read(encoder.settings.log_file) if record.get("request") == request_id)
    assert (record["logger"], record["owner"]) == ("worker.encoder.server", tenant)
    assert record["message"].startswith("not_an_image: ")


def test_json_and_multipart_give_the_same_features_in_every_encoding(
    client: TestClient, encoder: Server, model: str, model_folder: Path
) -> None:
    expected = server.features(encoder.encode(IMAGES))
    fields = {"model": model}
    for encoding in ("float", "base64", "npy"):
        fields["encoding_format"] = encoding
        answers = [
            client.post("/embed", data=fields, files=multipart(IMAGES)),
            client.post("/embed", json={**fields, "images": as_text(IMAGES)}),
        ]
        for answer in answers:
            assert answer.status_code == 200, answer.text
            np.testing.assert_allclose(vectors(answer, encoding, model), expected, rtol=1e-4, atol=1e-5)


def vectors(answer, encoding: str, model: str) -> np.ndarray:
    if encoding == "npy":
        assert answer.headers["content-type"] == "application/x-npy"
        return np.load(io.BytesIO(answer.content))
    body = answer.json()
    assert (body["object"], body["model"], body["dim"]) == ("list", model, 128)
    assert [row["index"] for row in body["data"]] == [0, 1, 2]
    rows = [row["embedding"] for row in body["data"]]
    return np.array([np.frombuffer(base64.b64decode(row), "<f4") if encoding == "base64" else row for row in rows])


def test_layer_and_job_id_as_model(client: TestClient, encoder: Server, model: str, database: Database) -> None:
    with database.reading() as session:
        job = session.get_one(Model, model).job_id
    answer = client.post("/embed", data={"model": job, "layer": "projection"}, files=multipart(IMAGES[:1]))
    assert (answer.json()["model"], answer.json()["dim"]) == (model, 32)


def test_undecodable_images_have_pointers(client: TestClient, encoder: Server, model: str) -> None:
    answer = client.post("/embed", data={"model": model}, files=multipart([IMAGES[0], b"no image", IMAGES[1][:99]]))
    assert get_pointers(check_problem(answer, 422, "not_an_image")) == ["/images/1", "/images/2"]


def test_base64_is_read_as_tools_write_it(client: TestClient, encoder: Server, model: str) -> None:
    image = IMAGES[0]
    plain = base64.b64encode(image).decode()
    lines = base64.encodebytes(image).decode()
    variants = [
        plain,
        lines,
        lines.replace("\n", "\r\n"),
        plain + "\n",
        " " + " ".join(plain),
        plain.rstrip("="),
        base64.urlsafe_b64encode(image).decode(),
        base64.urlsafe_b64encode(image).decode().rstrip("=") + "\n",
        f"data:image/png;base64,{plain}",
        f"DATA:image/png;charset=utf-8;Base64,{lines}",
        f"data:;base64,{plain}",
    ]
    answer = client.post("/embed", json={"model": model, "images": variants[:5]})
    rest = client.post("/embed", json={"model": model, "images": variants[5:10]})
    last = client.post("/embed", json={"model": model, "images": variants[10:]})
    rows = [row["embedding"] for each in (answer, rest, last) for row in each.json()["data"]]
    assert len(rows) == len(variants)
    np.testing.assert_allclose(rows, [rows[0]] * len(rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("%%%", "Character 1, '%'"),
        ("AAAA\nAA*A", "Character 8, '*'"),
        ("AA==AAAA", "Character 3, '='"),
        ("data:image/png;base64,AA\u00e9A", "Character 25, '\\xe9'"),
        ("data:image/png,AAAA", "`;base64`"),
        ("AAAAA", "5 characters"),
        ("AA=\n", "1 `=`, where 2"),
        ("AAA==", "2 `=`, where 1"),
        (7, "not a text"),
        (None, "not a text"),
        (["AAAA"], "not a text"),
    ],
)
def test_invalid_base64_has_a_pointer_and_a_place(client: TestClient, model: str, wrong: object, reason: str) -> None:
    answer = client.post("/embed", json={"model": model, "images": [*as_text(IMAGES[:1]), wrong]})
    problem = check_problem(answer, 422, "invalid_request")
    assert get_pointers(problem) == ["/images/1"]
    assert reason in problem["detail"]


def test_every_length_and_byte_is_decoded_in_each_form() -> None:
    for size in range(300):
        data = bytes((size * 7 + index * 31) % 256 for index in range(size))
        for text in (base64.b64encode(data), base64.urlsafe_b64encode(data), base64.encodebytes(data)):
            plain = text.decode()
            for form in (plain, plain.replace("=", ""), f"data:image/png;base64,{plain}"):
                assert base64_text.decode(form) == data
                assert not data or re.search(BASE64, form)


def test_base64_of_many_paddings_takes_linear_time() -> None:
    for text in ("=" * 2_000_000, "= " * 1_000_000 + "A", "\n" * 2_000_000 + "*"):
        with pytest.raises(ValueError, match=r"Character|belong"):
            base64_text.decode(text)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"model": None}, "/model"),
        ({"images": []}, "/images"),
        ({"images": "abc"}, "/images"),
        ({"images": {}}, "/images"),
        ({"encoding_format": "double"}, "/encoding_format"),
        ({"layer": 3}, "/layer"),
        ({"layer": "backbone\r\nX-Model-Path: x"}, "/layer"),
        ({"layers": "backbone"}, "/layers"),
    ],
)
def test_invalid_fields_have_pointers(client: TestClient, model: str, change: dict, pointer: str) -> None:
    body = {"model": model, "images": as_text(IMAGES[:1])} | change
    assert get_pointers(check_problem(client.post("/embed", json=body), 422, "invalid_request")) == [pointer]


def test_invalid_form_fields_have_pointers(client: TestClient, model: str) -> None:
    answer = client.post("/embed", files={"model": (None, model)})
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == ["/images"]
    answer = client.post("/embed", data={"model": model, "picture": "x"}, files=multipart(IMAGES))
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == ["/picture"]
    answer = client.post("/embed", data={"model": [model, "model_other"]}, files=multipart(IMAGES))
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == ["/model"]


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("application/json", b"{", 400, "bad_request"),
        ("application/json", b"[]", 422, "invalid_request"),
        ("text/plain", b"x", 415, "unsupported_media"),
        ("", b"x", 415, "unsupported_media"),
        ("multipart/form-data", b"x", 400, "bad_request"),
        ("multipart/form-data; boundary=b", b"rubbish", 400, "bad_request"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="x', 400, "bad_request"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\n" + b"x" * 2000 + b"\r\n--b--", 422, "invalid_request"),
    ],
)
def test_unreadable_body_is_refused(client: TestClient, kind: str, body: bytes, status: int, code: str) -> None:
    check_problem(client.post("/embed", content=body, headers={"Content-Type": kind}), status, code)


def test_too_many_and_too_large_images_are_413(client: TestClient, model: str) -> None:
    small, large = b"x", b"x" * 20_001
    for images, code in (([small] * 6, "too_many_images"), ([small, large], "image_too_large")):
        form = client.post("/embed", data={"model": model}, files=multipart(images))
        text = client.post("/embed", json={"model": model, "images": as_text(images)})
        for answer in (form, text):
            body = check_problem(answer, 413, code)
            assert get_pointers(body) == (["/images/1"] if code == "image_too_large" else [])


def test_text_that_is_too_long_for_an_image_is_413_before_it_is_decoded(client: TestClient, model: str) -> None:
    answer = client.post("/embed", json={"model": model, "images": ["_" * 45_000]})
    check_problem(answer, 413, "image_too_large")


def test_too_large_body_is_413_with_and_without_content_length(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    check_problem(client.post("/embed", content=b" " * 60_001, headers=headers), 413, "too_large")
    unsaid = client.post("/embed", content=(b" " * 1000 for _ in range(61)), headers=headers)
    check_problem(unsaid, 413, "too_large")


def test_bodies_beyond_the_memory_limit_are_503_and_free_it(client: TestClient, encoder: Server, model: str) -> None:
    client.app.state.embed_memory = BodyMemory(4000)
    large, small = [b"x" * 4000], IMAGES[:1]
    for _ in range(2):
        answer = client.post("/embed", data={"model": model}, files=multipart(large))
        check_problem(answer, 503, "encoder_busy")
        assert int(answer.headers["retry-after"]) > 0
        assert client.post("/embed", data={"model": model}, files=multipart(small)).status_code == 200


def test_one_owner_leaves_memory_to_the_others() -> None:
    memory = BodyMemory(4000)
    with memory.allocation("a") as first:
        first.grow(4000)  # one request alone may take all
        first.shrink(2000)
        with memory.allocation("a") as second, memory.allocation("b") as other:
            second.grow(1000)
            with pytest.raises(EncoderBusy):
                second.grow(1)
            other.grow(1000)
            with pytest.raises(EncoderBusy):
                other.grow(1)
    with memory.allocation("b") as freed:
        freed.grow(4000)


def test_json_counts_its_copies_against_the_memory_limit(client: TestClient, encoder: Server, model: str) -> None:
    body = {"model": model, "images": as_text([IMAGES[0]])}
    size = len(json.dumps(body))
    for held, status in ((2 * size, 503), (4 * size + 1000, 200)):
        client.app.state.embed_memory = BodyMemory(held)
        assert client.post("/embed", json=body).status_code == status


def test_a_large_body_may_have_ascii_characters_only(client: TestClient, model: str) -> None:
    client.app.state.settings = client.app.state.settings.model_copy(
        update={"embed_max_body_bytes": 2**22, "max_image_bytes": 2**20}
    )
    plain = json.dumps({"model": model, "images": ["/" * 15_000] * 5, "x": "A" * 2**20}).encode()
    for wide in ("é".encode(), rb"\u20ac", rb"\ud83d\ude00"):
        answer = client.post("/embed", content=plain[:-2] + wide + b'"}', headers=JSON)
        check_problem(answer, 400, "bad_request")
    escaped = client.post("/embed", content=plain.replace(b"/", rb"\u002f"), headers=JSON)
    assert get_pointers(check_problem(escaped, 422, "invalid_request")) == ["/x"]


@pytest.mark.parametrize("name", ["file", "image", "images[]", "Images", "picture/1", ""])
@pytest.mark.parametrize("size", [2, 2000, 40_000, 300_000])
def test_an_unknown_part_of_any_size_is_named(client: TestClient, model: str, name: str, size: int) -> None:
    part = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'.encode()
    body = part + b"x" * size + b"\r\n--b--\r\n"
    answer = client.post("/embed", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    problem = check_problem(answer, 422, "invalid_request")
    assert get_pointers(problem) == ["/" + name.replace("/", "~1")]
    assert f"There is no field `{name}` here" in problem["detail"]
    assert "`images`" in problem["detail"]


def test_a_text_that_is_too_long_is_named(client: TestClient, model: str) -> None:
    answer = client.post("/embed", data={"model": model, "layer": "x" * 2000}, files=multipart(IMAGES[:1]))
    assert get_pointers(check_problem(answer, 422, "invalid_request")) == ["/layer"]


def test_a_form_with_too_many_images_is_413_however_small(client: TestClient) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n\r\n'
    body = part * 20 + b"--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    check_problem(client.post("/embed", content=body, headers=headers), 413, "too_many_images")


def test_unknown_models_and_those_of_other_tenants_are_404(
    client: TestClient, database: Database, stranger: str
) -> None:
    theirs = create_model(database, stranger, {})
    answers = [
        client.post("/embed", data={"model": name}, files=multipart(IMAGES[:1]))
        for name in (theirs, "mdl_nothing", "job_nothing", "x")
    ]
    bodies = [check_problem(answer, 404, "model_not_found") for answer in answers]
    assert len({body["detail"] for body in bodies}) == 1


def test_model_of_unfinished_job_is_409(client: TestClient, database: Database, tenant: str) -> None:
    model = create_model(database, tenant, {}, status="running")
    with database.reading() as session:
        job = session.get_one(Model, model).job_id
    for name in (model, job):
        check_problem(client.post("/embed", data={"model": name}, files=multipart(IMAGES[:1])), 409, "model_not_ready")


def test_unknown_layer_is_422_without_a_request_to_the_encoder(client: TestClient, model: str) -> None:
    answer = client.post("/embed", data={"model": model, "layer": "block9"}, files=multipart(IMAGES[:1]))
    assert "block4" in check_problem(answer, 422, "layer_not_found")["detail"]


def test_model_with_missing_files_is_409(client: TestClient, encoder: Server, database: Database, tenant: str) -> None:
    model = create_model(database, tenant, {}, path="models/gone")
    check_problem(client.post("/embed", data={"model": model}, files=multipart(IMAGES[:1])), 409, "corrupt")


def test_embed_needs_a_key(client: TestClient) -> None:
    check_problem(client.post("/embed", headers={"Authorization": ""}), 401, "missing_key")
    check_problem(client.post("/embed", headers={"Authorization": "Bearer tv_wrong"}), 401, "wrong_key")


def test_unreachable_encoder_is_503_until_it_restarts(client: TestClient, encoder: Server, model: str) -> None:
    def ask():
        return client.post("/embed", data={"model": model}, files=multipart(IMAGES[:1]))

    assert ask().status_code == 200
    encoder.stop(signal.SIGKILL)
    try:
        answer = ask()
        check_problem(answer, 503, "encoder_away")
        assert int(answer.headers["retry-after"]) > 0
    finally:
        encoder.restart()
    assert ask().status_code == 200


def test_openapi_documents_both_media_types(client: TestClient) -> None:
    body = client.get("/openapi.json").json()["paths"]["/embed"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert set(body["application/json"]["schema"]["properties"]) == set(EmbedRequest.model_fields)
