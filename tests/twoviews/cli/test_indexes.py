"""`twoviews indexes` and `twoviews search` against a scripted server."""

import json

import pytest

from tests.twoviews.scripted import Response

INDEX = {
    "id": "idx_1", "name": "photos", "status": "ready", "job": "job_1", "dataset": "ds_1", "model": "mdl_1",
    "layer": "backbone", "error": None, "created_at": "2026-11-28T09:00:00.000Z",
    "report": {"vectors": 12_000, "dim": 512, "method": "exact", "recall_at_10": 1.0, "bytes": 25_000_000},
}  # fmt: skip


def image(row: int, **fields) -> dict:
    return {
        "row": row,
        "label": "cat",
        "split": "val",
        "path": f"val/cat/{row}.png",
        "urls": {"thumbnail": None},
    } | fields


def listed(*data: dict) -> Response:
    return Response(body={"object": "list", "index": "idx_1", "data": list(data), "has_more": False, "next": None})


def test_an_index_is_built_and_shown(run_scripted, script):
    script.responses = [Response(202, INDEX | {"status": "building", "report": None}), Response(body=INDEX)]
    shown = run_scripted("indexes", "create", "job_1", "--name", "photos").stdout
    assert json.loads(script.requests[0].body) == {"job": "job_1", "metadata": {}, "name": "photos"}
    assert "12,000" in shown
    script.responses = [Response(body={"data": [INDEX], "has_more": False, "next": None})]
    assert "idx_1" in run_scripted("indexes", "list").stdout
    script.responses = [Response(204)]
    assert run_scripted("indexes", "delete", "idx_1").exit_code == 0
    assert (script.requests[-1].method, script.requests[-1].path) == ("DELETE", "/indexes/idx_1")


def test_a_build_that_fails_exits_with_1_and_the_reason(run_scripted, script):
    failed = INDEX | {"status": "failed", "report": None, "error": {"code": "corrupt", "detail": "A file is damaged."}}
    script.responses = [Response(202, failed), Response(body=failed)]
    done = run_scripted("indexes", "create", "job_1")
    assert (done.exit_code, "A file is damaged." in done.stderr) == (1, True)


def test_a_search_by_row_sends_json_and_one_by_an_image_sends_its_file(run_scripted, script, tmp_path):
    script.responses = [listed(image(7, similarity=0.91234))]
    shown = run_scripted("search", "idx_1", "--row", "3", "-k", "5", "--split", "val").stdout
    assert json.loads(script.requests[0].body) == {"k": 5, "split": "val", "row": 3, "exclude_self": True}
    assert "0.9123" in shown
    assert "val/cat/7.png" in shown
    (tmp_path / "cat.png").write_bytes(b"the file")
    script.responses = [listed(image(7, similarity=0.9))]
    done = run_scripted("search", "idx_1", str(tmp_path / "cat.png"), "--json")
    assert json.loads(done.stdout) == [image(7, similarity=0.9)]
    assert b"the file" in script.requests[1].body
    assert script.requests[1].path == "/indexes/idx_1/search"
    for words in ([], [str(tmp_path / "cat.png"), "--row", "3"]):
        assert run_scripted("search", "idx_1", *words).exit_code == 2


@pytest.mark.parametrize(
    ("words", "query", "item", "shown"),
    [
        (
            ["duplicates", "--threshold", "0.9", "--across-splits"],
            "duplicates?threshold=0.9&limit=100&across_splits=true",
            {"similarity": 0.98765, "images": [image(1), image(2)]},
            "0.9877",
        ),
        (["outliers", "--k", "3"], "outliers?k=3&limit=100", image(4, distance=0.5), "0.5000"),
        (
            ["select", "20", "--unlabelled", "--seed", "2"],
            "select?n=20&seed=2&unlabelled=true",
            image(5, radius=0.25, label=None),
            "0.2500",
        ),
        (
            ["labels", "--split", "train"],
            "labels?limit=100&k=20&temperature=0.1&split=train",
            image(6, label=None, predicted="dog", confidence=0.75),
            "dog",
        ),
    ],
)
def test_questions_are_sent_as_they_are_asked(run_scripted, script, words, query, item, shown):
    verb, *options = words
    words = [verb, "idx_1", *options]
    script.responses = [listed(item), listed(item)]
    assert shown in run_scripted("indexes", *words).stdout
    assert script.requests[0].path == f"/indexes/idx_1/{query}"
    assert json.loads(run_scripted("indexes", *words, "--json").stdout) == [item]
