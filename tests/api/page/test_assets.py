"""The page's files: safe headers, cached by ETag, nothing inline and nothing from other hosts."""

import gzip
import re

import pytest

from api.web import assets
from tests.api.responses import check_problem

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
OWN = sorted(assets.list_names() - {assets.PLOTLY})
SCRIPTS = [name for name in OWN if name.endswith(".js")]


def read(name):
    return assets.load(name).content.decode()


@on_sqlite
def test_the_page_is_served_without_a_key_under_a_strict_policy(anonymous):
    answer = anonymous.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in str(policy)
    assert "http" not in str(policy)
    assert answer.headers["referrer-policy"] == "no-referrer"


@on_sqlite
def test_only_the_frame_of_maps_may_evaluate_text_and_it_is_a_sandbox_without_requests(anonymous):
    evaluating = [name for name in OWN if "unsafe" in anonymous.get(f"/page/{name}").headers["content-security-policy"]]
    assert evaluating == ["frame.html"]
    policy = anonymous.get("/page/frame.html").headers["content-security-policy"].split("; ")
    assert "sandbox allow-scripts" in policy
    assert "default-src 'none'" in policy
    assert [part for part in policy if part.startswith(("connect-src", "frame-src"))] == []


@on_sqlite
def test_every_file_is_served_with_its_type_and_revalidated(anonymous):
    for name in assets.list_names():
        answer = anonymous.get(f"/page/{name}", headers={"Accept-Encoding": "identity"})
        assert answer.status_code == 200, name
        assert answer.content == assets.load(name).content
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = anonymous.get(f"/page/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@on_sqlite
def test_a_client_that_accepts_gzip_gets_less(app, anonymous):
    with anonymous.stream("GET", f"/page/{assets.PLOTLY}", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        packed = b"".join(answer.iter_raw())
    content = assets.load(assets.PLOTLY).content
    assert gzip.decompress(packed) == content
    assert len(packed) < len(content) / 2


@on_sqlite
@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "../assets.py",
        "..%2fassets.py",
        "%2e%2e/%2e%2e/app.py",
        "views",
        "views/",
        "/etc/passwd",
        "x" * 5000,
    ],
)
def test_other_names_are_404(anonymous, name):
    check_problem(anonymous.get(f"/page/{name}"), 404, "not_found")


def test_nothing_is_inline_and_nothing_comes_from_another_host():
    html = read("index.html")
    assert re.findall(r"<script(?![^>]* src=)", html) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", html) == []
    for name in OWN:
        addresses = set(re.findall(r"https?://[\w.-]+", read(name))) - {"http://www.w3.org"}  # a namespace
        assert addresses == set(), name


def test_no_script_parses_html_or_evaluates_text():
    assert len(SCRIPTS) > 15
    for name in SCRIPTS:
        found = re.findall(
            r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|srcdoc)", read(name)
        )
        assert found == [], name


def test_every_imported_script_and_every_linked_file_exists():
    for name in SCRIPTS:
        folder = name.rpartition("/")[0]
        for path in re.findall(r"(?:from |import\()[^\"]*\"(\.{1,2}/[^\"]+)\"", read(name)):
            parts = [part for part in folder.split("/") if part]
            for part in path.split("/"):
                parts = parts[:-1] if part == ".." else parts if part == "." else [*parts, part]
            assert "/".join(parts) in assets.list_names(), f"{name} imports {path}"
    for path in re.findall(r"(?:src|href)=\"page/([^\"]+)\"", read("index.html")):
        assert path in assets.list_names()


def test_every_script_says_what_it_is_in_its_first_line():
    assert [name for name in SCRIPTS if not read(name).startswith("// ")] == []
