"""Fuzzing of every route with Hypothesis: no request gives a server error."""

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.indexes import registry
from tests.service import given as factories
from tests.worker.indexes import embedded

ROUNDS = int(os.environ.get("FUZZING_ROUNDS", "100"))
SLOW_IS_FINE = settings(
    max_examples=ROUNDS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)

TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "\0", "\ud800", "../../etc/passwd", "%", "' OR 1=1 --", "\u202e", "job_", "NaN", "💥" * 99]
    ),
    st.text(max_size=80),
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        "kind",
        "dataset",
        "config",
        "model",
        "name",
        "priority",
        "metadata",
        "method",
        "views",
        "images",
        "job",
        "row",
        "k",
    ]
)
BODIES = st.one_of(VALUES, st.dictionaries(st.one_of(NAMES, TEXTS), VALUES, max_size=6))


@pytest.fixture
def target(client, database, storage, tenant, app):
    """A client, existing ids, and every (method, route) of the service except the OpenAPI routes."""
    dataset = factories.create_ready_dataset(database, tenant)
    job = factories.submit_job(database, tenant, dataset).id
    claim = factories.claim_job(database)
    factories.record_events(database, claim, factories.metrics(1), factories.checkpoint(1), factories.model())
    embedded_job = embedded.add_job(database, storage, tenant, embedded.draw(3))
    with database.writing() as session:
        index = registry.create(session, tenant, embedded_job).id
    routes = [(method.upper(), route) for route, item in app.openapi()["paths"].items() for method in item]
    return (
        client,
        {"dataset_id": dataset, "job_id": job, "model_id": job, "key_id": "key_x", "index_id": index, "name": "x"},
        routes,
    )


def send(target, draw, body=None, **kwargs):
    client, ids, routes = target
    method, route = draw.draw(st.sampled_from(routes))
    for name, value in ids.items():
        wild = draw.draw(TEXTS.map(lambda text: text.encode("utf-8", "replace").hex()[:100] or "x"))
        route = route.replace("{" + name + "}", draw.draw(st.sampled_from([value, wild, "..", "%00", "%ff", "a%2fb"])))
    answer = client.request(method, route, **kwargs)
    assert answer.status_code < 500 or (route, answer.status_code) in AWAY, (method, route, kwargs, answer.text)
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", (method, route, answer.text)
        assert answer.json()["status"] == answer.status_code
    return answer


AWAY = {("/health/ready", 503)}  # no worker runs here
ALIVE = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@ALIVE
def test_any_json_gives_no_server_error(target):
    @SLOW_IS_FINE
    @given(st.data(), BODIES)
    def attack(draw, body):
        send(target, draw, json=_make_sendable(body))

    attack()


@ALIVE
def test_any_parameters_and_headers_give_no_server_error(target):
    parameters = st.sampled_from(["after", "limit", "status", "kind", "dataset", "names", "max_points", "file", "name"])
    headers = st.sampled_from(["Idempotency-Key", "X-Request-ID", "If-None-Match", "Range", "Content-Type", "If-Range"])
    plain = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)

    @SLOW_IS_FINE
    @given(st.data(), st.dictionaries(parameters, st.one_of(TEXTS, plain)), st.dictionaries(headers, plain))
    def attack(draw, params, head):
        clean = {name: value.encode("utf-8", "replace").decode() for name, value in params.items()}
        send(target, draw, params=clean, headers=head, content=b"{}")

    attack()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_any_bytes_give_no_server_error(target):
    kinds = ["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain", ""]
    good = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nbytes\r\n--x--\r\n'
    draw_bytes = random.Random(7)

    def mutate_body():
        body = bytearray(good if draw_bytes.random() < 0.7 else b'{"kind":"pretrain","dataset":"x","config":{"a":1e5}}')
        for _ in range(draw_bytes.randint(0, 6)):
            place = draw_bytes.randrange(len(body))
            body[place : place + draw_bytes.randint(0, 3)] = draw_bytes.randbytes(draw_bytes.randint(0, 3)) or b"\r\n"
            body = body or bytearray(b"-")
        return bytes(body)

    @SLOW_IS_FINE
    @given(st.data(), st.sampled_from(kinds))
    def attack(draw, kind):
        client, _, _ = target
        for place in ("/datasets", "/jobs", "/embed"):
            answer = client.post(place, content=mutate_body(), headers={"Content-Type": kind})
            assert answer.status_code < 500, answer.text

    attack()


def _make_sendable(body):
    """Return the body with texts that httpx cannot send replaced."""
    if isinstance(body, str):
        return body.encode("utf-8", "replace").decode()
    if isinstance(body, list):
        return [_make_sendable(item) for item in body]
    if isinstance(body, dict):
        return {_make_sendable(name): _make_sendable(item) for name, item in body.items()}
    return body
