"""Questions to an index, with the real encoder process: answers, filters, limits, owners, bad bodies."""

import base64
import json
import shutil

import numpy as np
import pytest

from api import schemas
from service import keys
from tests.api.responses import check_body, check_problem, get_pointers
from tests.worker.encoder import pictures
from tests.worker.indexes import embedded
from worker.encoder.search.nearest import find_nearest, normalise
from worker.indexes.build import Options

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
IMAGES = embedded.draw(300)
VECTORS = normalise(IMAGES.vectors)
UNLABELLED = [row for row, label in enumerate(IMAGES.labels) if label is None]


def search(client, index, **body):
    return check_body(schemas.Found, client.post(f"/indexes/{index}/search", json=body))["data"]


def test_a_row_finds_its_nearest_others(client, add_index):
    index = add_index(IMAGES)
    found = search(client, index, row=7)
    rows, similarities = find_nearest(VECTORS, VECTORS[7:8], 10, own=np.array([7]))
    assert [image["row"] for image in found] == rows[0].tolist()
    np.testing.assert_allclose([image["similarity"] for image in found], similarities[0], atol=2e-6)
    for image in found:
        row = image["row"]
        described = (IMAGES.labels[row], IMAGES.splits[row], IMAGES.paths[row])
        assert (image["label"], image["split"], image["path"]) == described
        assert image["urls"] == {"thumbnail": None}
    assert search(client, index, row=7, exclude_self=False, k=3)[0]["row"] == 7
    assert len(search(client, index, row=0, k=1000)) == 299


@on_sqlite
def test_filters_leave_only_what_they_name(client, add_index):
    index = add_index(IMAGES)
    allowed = np.array(
        [s == "val" and name == "klässe 2" for s, name in zip(IMAGES.splits, IMAGES.labels, strict=True)]
    )
    found = search(client, index, vector=(VECTORS[3] * 5).tolist(), k=400, split="val", label="klässe 2")
    assert {image["row"] for image in found} == set(np.flatnonzero(allowed))
    nearest = find_nearest(VECTORS, VECTORS[3:4], 5, allowed)[0][0]
    assert [image["row"] for image in found[:5]] == nearest.tolist()
    problem = check_problem(
        client.post(f"/indexes/{index}/search", json={"row": 3, "label": "cat"}), 422, "unknown_label"
    )
    assert get_pointers(problem) == ["/label"]


@on_sqlite
def test_rows_are_those_of_the_dataset_when_some_splits_are_embedded(client, add_index):
    images = embedded.draw(300)
    images.rows = [*range(50, 200), *range(500, 650)]
    index = add_index(images)
    whole = find_nearest(VECTORS, VECTORS[200:201], 10, own=np.array([200]))[0][0]
    found = search(client, index, row=550)
    assert [image["row"] for image in found] == [images.rows[place] for place in whole]
    assert found[0]["path"] == images.paths[whole[0]]
    page = client.get(f"/indexes/{index}/labels?limit=40").json()
    assert (len(page["data"]), page["has_more"], page["next"]) == (40, True, page["data"][-1]["row"])
    rest = client.get(f"/indexes/{index}/labels?limit=70&after={page['next']}").json()
    every = [images.rows[place] for place in UNLABELLED]
    assert [image["row"] for image in (*page["data"], *rest["data"])] == every
    assert client.get(f"/indexes/{index}/select?n=2&start=649").json()["data"][0]["row"] == 649
    for answer, pointer in (
        (client.post(f"/indexes/{index}/search", json={"row": 300}), "/row"),
        (client.get(f"/indexes/{index}/select?start=300"), "start"),
        (client.get(f"/indexes/{index}/labels?rows=60&rows=300"), "rows"),
    ):
        assert get_pointers(check_problem(answer, 422, "unknown_row")) == [pointer]


@on_sqlite
def test_an_image_finds_itself_in_json_and_in_a_form(client, photos):
    index, dataset = photos
    image = dataset.read_file(5)
    found = search(client, index, image=base64.b64encode(image).decode(), k=3)
    assert found[0]["row"] == 5
    assert found[0]["similarity"] > 0.999
    shown = client.get(found[0]["urls"]["thumbnail"])
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
    form = {"k": "3", "split": "train", "exclude_self": "true"}
    answer = client.post(f"/indexes/{index}/search", data=form, files={"image": image})
    assert check_body(schemas.Found, answer)["data"] == found
    check_problem(client.post(f"/indexes/{index}/search", files={"image": b"no image"}), 422, "not_an_image")


@on_sqlite
def test_a_search_by_an_image_needs_the_scope_embed_too(client, photos, database, tenant):
    index, dataset = photos
    with database.writing() as session:
        secret = keys.create(session, tenant, "reader", scopes=["read"])[1]
    reader = {"Authorization": f"Bearer {secret}"}
    path = f"/indexes/{index}/search"
    assert client.post(path, json={"row": 1}, headers=reader).status_code == 200
    answer = client.post(path, files={"image": dataset.read_file(0)}, headers=reader)
    check_problem(answer, 403, "embed_scope_needed")
    anyone = {"Authorization": "Bearer x"}
    check_problem(client.post(path, files={"image": pictures.png(0)}, headers=anyone), 401, "wrong_key")


@on_sqlite
def test_an_index_whose_model_is_deleted_answers_by_a_row_and_not_by_an_image(client, photos, database):
    index, dataset = photos
    path, image = f"/indexes/{index}/search", dataset.read_file(5)
    assert client.post(path, files={"image": image}).status_code == 200
    model = client.get(f"/indexes/{index}").json()["model"]
    assert client.delete(f"/models/{model}").status_code == 204
    problem = check_problem(client.post(path, files={"image": image}), 404, "model_not_found")
    assert get_pointers(problem) == ["/image"]
    assert len(search(client, index, row=5, k=3)) == 3


@on_sqlite
def test_duplicates_outliers_selection_and_labels(client, add_index):
    images = embedded.draw(300)
    images.vectors[200] = images.vectors[20] * 3
    images.splits[20], images.splits[200] = "train", "test"
    index = add_index(images)
    pairs = check_body(schemas.Pairs, client.get(f"/indexes/{index}/duplicates", params={"threshold": 0.9999}))
    assert [[image["row"] for image in pair["images"]] for pair in pairs["data"]] == [[20, 200]]
    assert pairs["total"] == 1
    across = client.get(f"/indexes/{index}/duplicates?threshold=0.9&across_splits=true&limit=5").json()
    assert len(across["data"]) == 5
    assert {pair["images"][0]["split"] != pair["images"][1]["split"] for pair in across["data"]} == {True}
    far = check_body(schemas.FarImages, client.get(f"/indexes/{index}/outliers?k=5&limit=7&split=train"))["data"]
    assert len(far) == 7
    assert {image["split"] for image in far} == {"train"}
    distances = [image["distance"] for image in far]
    assert distances == sorted(distances, reverse=True)
    chosen = check_body(schemas.Selected, client.get(f"/indexes/{index}/select?n=9&seed=4"))
    assert len({image["row"] for image in chosen["data"]}) == 9
    assert client.get(f"/indexes/{index}/select?n=9&seed=4").json() == chosen
    assert client.get(f"/indexes/{index}/select?n=9&seed=5").json()["data"] != chosen["data"]
    assert client.get(f"/indexes/{index}/select?n=2&start=17").json()["data"][0]["row"] == 17
    fresh = check_body(schemas.Selected, client.get(f"/indexes/{index}/select?n=5&unlabelled=true"))
    assert {image["label"] for image in fresh["data"]} == {None}
    assert fresh["candidates"] + fresh["covered"] == 300
    check_problem(client.get(f"/indexes/{index}/select?start=299&split=train"), 422, "outside_selection")


@on_sqlite
def test_labels_are_predicted_page_by_page_and_for_given_rows(client, add_index):
    index = add_index(IMAGES)
    path, found, after = f"/indexes/{index}/labels", [], {}
    while True:
        page = check_body(schemas.LabelledImages, client.get(path, params={"limit": 30, **after}))
        found += page["data"]
        if not page["has_more"]:
            break
        after = {"after": page["next"]}
    assert [image["row"] for image in found] == UNLABELLED
    assert {image["label"] for image in found} == {None}
    assert {image["predicted"] for image in found} <= {f"klässe {number}" for number in range(4)}
    assert all(0 < image["confidence"] <= 1 for image in found)
    some = client.get(path, params={"rows": [UNLABELLED[1], 299]}).json()["data"]
    assert some[0] == found[1]
    right = client.get(path, params={"rows": list(range(250, 300)), "k": 20}).json()["data"]
    labelled = [image for image in right if image["label"] is not None]
    assert sum(image["label"] == image["predicted"] for image in labelled) > 0.9 * len(labelled)


@on_sqlite
def test_what_takes_too_long_is_refused_with_what_is_possible(client, add_index):
    """The encoder of these tests may do 1,000,000 multiplications; an image has 16 numbers."""
    index = add_index(IMAGES)
    problem = check_problem(client.get(f"/indexes/{index}/select?n=53"), 422, "too_much_work")
    assert "at most 52 are selected" in problem["detail"]
    assert client.get(f"/indexes/{index}/select?n=52").status_code == 200
    rows = {"rows": list(range(209))}
    problem = check_problem(client.get(f"/indexes/{index}/labels", params=rows), 422, "too_much_work")
    assert "at most 208 get labels" in problem["detail"]
    assert client.get(f"/indexes/{index}/labels", params={"rows": rows["rows"][:208]}).status_code == 200


@on_sqlite
def test_an_approximate_index_answers_all_questions(client, add_index):
    images = embedded.draw(900)
    index = add_index(images, Options(500, 10**6, 2**30))
    assert client.get(f"/indexes/{index}").json()["report"]["method"] == "inverted_lists"
    assert search(client, index, row=3, exclude_self=False)[0]["row"] == 3
    assert {image["split"] for image in search(client, index, row=3, split="test")} == {"test"}
    for verb in ("duplicates?threshold=0.5", "outliers", "select?n=10", "labels?limit=5"):
        assert client.get(f"/indexes/{index}/{verb}").json()["data"], verb


BAD = [
    ({}, "/"),
    ({"row": 1, "vector": [0.0] * 16}, "/"),
    ({"row": -1}, "/row"),
    ({"row": 10**13}, "/row"),
    ({"row": 1.5}, "/row"),
    ({"row": None}, "/"),
    ({"vector": []}, "/vector"),
    ({"vector": [1.0] * 15}, "/vector"),
    ({"vector": [1.0] * 17}, "/vector"),
    ({"vector": [0.0] * 16}, "/vector"),
    ({"vector": [1e300] * 16}, "/vector/0"),
    ({"vector": ["x"] * 16}, "/vector/0"),
    ({"vector": [None] * 16}, "/vector/0"),
    ({"vector": "x"}, "/vector"),
    ({"vector": [1.0] * 70_000}, "/vector"),
    ({"row": 1, "k": 0}, "/k"),
    ({"row": 1, "k": 1001}, "/k"),
    ({"row": 1, "k": 10**30}, "/k"),
    ({"row": 1, "split": "nope"}, "/split"),
    ({"row": 1, "label": "x" * 1001}, "/label"),
    ({"row": 1, "exclude_self": "perhaps"}, "/exclude_self"),
    ({"image": "*"}, "/image"),
    ({"image": ""}, "/image"),
    ({"image": 3}, "/image"),
    ({"row": 1, "rows": 2}, "/rows"),
]


@on_sqlite
def test_bodies_that_cannot_be_are_422_with_their_place(client, add_index):
    index = add_index(IMAGES)
    path = f"/indexes/{index}/search"
    for body, pointer in BAD:
        problem = check_problem(client.post(path, json=body), 422, "invalid_request")
        assert get_pointers(problem)[0].rstrip("/") == pointer.rstrip("/"), body
    headers = {"Content-Type": "application/json"}
    for text in ("[NaN]", '{"vector": [NaN]}', "", "{", '{"vector": [1e999]}'):
        check_problem(client.post(path, content=text, headers=headers), 400, "bad_request")
    for text in ("[]", "3", '"x"', "null"):
        check_problem(client.post(path, content=text, headers=headers), 422, "invalid_request")
    check_problem(client.post(path, content=b"x", headers={"Content-Type": "text/plain"}), 415, "unsupported_media")
    check_problem(client.post(path, data={"vector": "1"}, files={"image": b"x"}), 422, "invalid_request")
    check_problem(client.post(path, data={"k": "many"}, files={"image": b"x"}), 422, "invalid_request")
    check_problem(client.post(path, data={"k": ["1", "2"]}, files={"image": b"x"}), 422, "invalid_request")


@on_sqlite
@pytest.mark.parametrize(
    "query",
    [
        "duplicates?threshold=nan", "duplicates?threshold=1.01", "duplicates?limit=0", "duplicates?limit=1001",
        "duplicates?split=train", "outliers?k=0", "outliers?k=33", "outliers?split=nope", "select?n=0",
        "select?n=10001",
        "select?start=-1", "select?seed=-1", "labels?temperature=0", "labels?temperature=inf",
        "labels?rows=-1", "labels?k=1001", "labels?after=-1", "labels?limit=5000",
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_are_422(client, add_index, query):
    check_problem(client.get(f"/indexes/{add_index(IMAGES)}/{query}"), 422, "invalid_request")


def test_the_index_of_another_owner_is_missing_everywhere(client, add_index, as_other):
    index = add_index(IMAGES)
    calls = [
        ("GET", ""), ("DELETE", ""), ("POST", "/search"), ("GET", "/duplicates"), ("GET", "/outliers"),
        ("GET", "/select"), ("GET", "/labels"),
    ]  # fmt: skip
    for missing in (index, "idx_" + "0" * 26, "x"):
        for method, verb in calls:
            body = {"json": {"row": 10**11}} if method == "POST" else {}
            answer = client.request(method, f"/indexes/{missing}{verb}", headers=as_other, **body)
            assert check_problem(answer, 404, "index_not_found")["detail"] == "There is no such index."
    assert client.get("/indexes", headers=as_other).json()["data"] == []
    assert client.get(f"/indexes/{index}").status_code == 200


@on_sqlite
def test_an_index_whose_files_are_gone_or_damaged_is_409(client, add_index, data_folder):
    lost, damaged = add_index(IMAGES), add_index(IMAGES)
    shutil.rmtree(data_folder / "indexes" / lost)
    about = data_folder / "indexes" / damaged / "a1" / "index.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"dim": 3}))
    for index in (lost, damaged):
        check_problem(client.post(f"/indexes/{index}/search", json={"row": 1}), 409, "corrupt")
        check_problem(client.get(f"/indexes/{index}/outliers"), 409, "corrupt")
