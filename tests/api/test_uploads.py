"""Upload bodies: multipart parsing, limits and cleanup."""

import errno
import hashlib
import random

import pytest

from api import uploads
from service.settings import Settings
from tests.api.responses import check_problem, get_pointers

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
BOUNDARY = "----boundary"


@pytest.fixture
def settings(settings) -> Settings:
    return settings.model_copy(update={"max_upload_bytes": 100_000})


def part(name, content, filename=None):
    suffix = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{suffix}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def post(client, *parts, end=f"--{BOUNDARY}--\r\n".encode(), kind=f"multipart/form-data; boundary={BOUNDARY}"):
    return client.post("/datasets", content=b"".join(parts) + end, headers={"Content-Type": kind})


def list_files(storage):
    """Return every file in the storage."""
    return [path for path in storage.root.rglob("*") if path.is_file()]


def test_parts_in_any_order(client):
    parts = [part("on_bad_file", b"skip"), part("file", b"bytes", "a.zip"), part("name", "Möwen".encode())]
    for order in (parts, parts[::-1]):
        made = post(client, *order).json()
        assert (made["name"], made["on_bad_file"], made["size_bytes"]) == ("Möwen", "skip", 5)


def test_filename_is_optional_and_never_a_path(client):
    assert post(client, part("file", b"bytes")).json()["name"] == "dataset"
    for sent, kept in (("../../etc/passwd", "passwd"), ("C:\\x\\y.zip", "y.zip"), ("a\tb.zip", "ab.zip"), ("..", "..")):
        assert post(client, part("file", b"bytes", sent)).json()["name"] == kept


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ("filename*=UTF-8''M%C3%B6wen.zip", "Möwen.zip"),
        ("filename*=utf-8'de'%E2%82%AC%20rates.zip", "€ rates.zip"),
        ("filename*=ISO-8859-1''M%F6wen.zip", "Möwen.zip"),
        ("filename=\"Mowen.zip\"; filename*=UTF-8''M%C3%B6wen.zip", "Möwen.zip"),
        ("filename*=UTF-8''M%C3%B6wen.zip; filename=\"Mowen.zip\"", "Möwen.zip"),
        ("FileName*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("filename*=UTF-8''a%00%0Ab.zip", "ab.zip"),
        ("filename=\"a.zip\"; filename*=UTF-8''%FF%FE", "a.zip"),
        ("filename=\"a.zip\"; filename*=koi8-r''%EC", "a.zip"),
        ("filename=\"; filename*=UTF-8''b.zip\"", "; filename*=UTF-8''b.zip"),
        ("filename*=broken", "dataset"),
    ],
)
def test_an_extended_filename_names_the_dataset(client, parameters, name):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; {parameters}\r\n\r\nbytes\r\n'
    answer = post(client, head.encode())
    assert (answer.status_code, answer.json()["name"]) == (202, name)


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_are_stored_unchanged_for_any_chunking(client, storage, tenant, monkeypatch, seed):
    draw = random.Random(seed)
    pieces = [b"\r\n", b"--", BOUNDARY.encode(), f"\r\n--{BOUNDARY}"[:-1].encode(), b"\0", draw.randbytes(50)]
    content = b"".join(draw.choice(pieces) for _ in range(500))
    content = content.replace(f"\r\n--{BOUNDARY}".encode(), b"")
    body = part("file", content, "a") + f"--{BOUNDARY}--\r\n".encode()
    monkeypatch.setattr(uploads, "CHUNK_BYTES", draw.choice([1, 7, 300]))

    def cut():
        rest = body
        while rest:
            size = draw.randint(1, 400)
            yield rest[:size]
            rest = rest[size:]

    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = client.post("/datasets", content=cut(), headers=kind)
    sha256 = hashlib.sha256(content).hexdigest()
    assert answer.json()["sha256"] == sha256, answer.text
    assert storage.upload_path(tenant, sha256).read_bytes() == content


FILE = part("file", b"bytes", "a.zip")
BAD = {
    "no file": ([part("name", b"x")], 422, "invalid_request", ["/file"]),
    "empty form": ([], 422, "invalid_request", ["/file"]),
    "empty file": ([part("file", b"", "a.zip")], 422, "empty_upload", ["/file"]),
    "two files": ([FILE, FILE], 422, "invalid_request", ["/file"]),
    "two names": ([part("name", b"a"), part("name", b"b"), FILE], 422, "invalid_request", ["/name"]),
    "unknown field": ([part("nmae", b"a"), FILE], 422, "invalid_request", ["/nmae"]),
    "large unknown field": ([part("images", b"x" * 300_000, "a"), FILE], 422, "invalid_request", ["/images"]),
    "a part without a name": ([b"--" + BOUNDARY.encode() + b"\r\n\r\nx\r\n"], 422, "invalid_request", ["/"]),
    "unknown policy": ([part("on_bad_file", b"ignore"), FILE], 422, "invalid_request", ["/on_bad_file"]),
    "name that is not UTF-8": ([part("name", b"\xff\xfe"), FILE], 422, "invalid_request", ["/name"]),
    "name with a NUL": ([part("name", b"a\0b"), FILE], 422, "invalid_request", ["/name"]),
    "blank name": ([part("name", b"  "), FILE], 422, "invalid_request", ["/name"]),
    "name too long": ([part("name", b"x" * 201), FILE], 422, "invalid_request", ["/name"]),
    "name much too long": ([part("name", b"x" * 5000), FILE], 422, "invalid_request", ["/name"]),
    "too large": ([part("file", b"x" * 100_001, "a")], 413, "too_large", []),
    "much too large": ([part("file", b"x" * 300_000, "a")], 413, "too_large", []),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_form_is_refused(client, storage, case):
    parts, status, code, places = BAD[case]
    body = check_problem(post(client, *parts), status, code)
    assert get_pointers(body) == places
    assert list_files(storage) == []
    assert client.get("/datasets").json()["data"] == []


def test_invalid_multipart_is_refused(client, storage):
    check_problem(post(client, FILE, end=b""), 400, "bad_request")
    check_problem(post(client, b"not multipart", end=b""), 400, "bad_request")
    check_problem(post(client, FILE, kind="multipart/form-data"), 400, "bad_request")
    check_problem(post(client, FILE, kind="multipart/form-data; boundary=" + "x" * 5000), 400, "bad_request")
    check_problem(post(client, FILE, kind="application/zip"), 415, "unsupported_media")
    check_problem(client.post("/datasets", json={"file": "x"}), 415, "unsupported_media")
    check_problem(client.post("/datasets"), 415, "unsupported_media")
    check_problem(post(client, b"--" + BOUNDARY.encode() + b"\r\n" + b"X: y\r\n" * 10_000), 400, "bad_request")
    assert list_files(storage) == []


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_goes_on_behind_its_form_is_refused(client, storage, declared):
    body = part("name", b"x") + b"--" + BOUNDARY.encode() + b"--\r\n" + b"x" * 300_000
    content = body if declared else iter([body])
    answer = client.post(
        "/datasets", content=content, headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    )
    check_problem(answer, 413, "too_large")
    assert list_files(storage) == []


def test_full_disk_is_503(client, storage, monkeypatch):
    def full(self, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads._Form, "feed", full)
    answer = post(client, FILE)
    check_problem(answer, 503, "storage_away")
    assert answer.headers["retry-after"]
    assert list_files(storage) == []


def test_upload_without_key_is_not_stored(anonymous, storage):
    check_problem(post(anonymous, FILE), 401, "missing_key")
    assert list_files(storage) == []
