"""GET /datasets/{id}/images: pages, filters and samples."""

import pytest

from api.schemas import ImageList
from service.db.models import Dataset
from tests.api.images.packed import PHOTOS, SIZES
from tests.api.responses import check_body, check_problem, get_pointers


@pytest.fixture
def photos(add) -> str:
    return add("photos")


@pytest.fixture
def read(client):
    """Return the list of a dataset's images for some parameters, as one page or as all that follow each other."""

    def read(dataset, *, pages=False, **params):
        found = check_body(ImageList, client.get(f"/datasets/{dataset}/images", params=params))
        while pages and found["has_more"]:
            assert found["next"] == found["data"][-1]["row"]
            params["after"] = found["next"]
            more = check_body(ImageList, client.get(f"/datasets/{dataset}/images", params=params))
            found = more | {"data": found["data"] + more["data"]}
        return found

    return read


def test_pages_hold_every_image_once_in_the_order_of_the_rows(photos, read):
    found = read(photos, pages=True, limit=7)["data"]
    assert [image["row"] for image in found] == [*range(len(PHOTOS))]
    assert {image["name"] for image in found} == PHOTOS.keys()
    for image in found:
        split, label, _ = image["name"].split("/")
        assert (image["split"], image["label"], image["object"]) == (split, label, "image")
        assert image["url"] == f"/datasets/{photos}/images/{image['row']}"
    sizes = {image["name"]: (image["width"], image["height"]) for image in found}
    assert sizes.items() >= SIZES.items()
    assert sizes["train/dog/turned.jpg"] == (100, 200)


def test_a_page_has_20_images_unless_the_limit_says_otherwise(photos, read):
    page = read(photos)
    assert (len(page["data"]), page["has_more"], page["next"]) == (20, True, 19)
    page = read(photos, limit=100)
    assert (len(page["data"]), page["has_more"], page["next"]) == (len(PHOTOS), False, None)


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"split": "train"}, [name for name in PHOTOS if name.startswith("train/")]),
        ({"class": "dog"}, [name for name in PHOTOS if "/dog/" in name]),
        ({"class": "cat", "split": "val"}, [name for name in PHOTOS if name.startswith("val/cat/")]),
        ({"class": "cat", "split": "test"}, []),
    ],
)
def test_filters_by_split_and_class_hold_over_pages(photos, read, params, names):
    found = read(photos, pages=True, limit=3, **params)["data"]
    assert sorted(image["name"] for image in found) == sorted(names)


def test_images_without_a_label_have_none_and_come_first(add, read):
    found = read(add("grey16"))["data"]
    assert [(image["label"], image["split"], image["name"]) for image in found] == [(None, "train", "ramp.png")]


def test_the_same_seed_draws_the_same_sample(photos, read):
    first = read(photos, sample=10, seed=1)
    assert first == read(photos, sample=10, seed=1)
    assert first["data"] == read(photos, pages=True, sample=10, seed=1, limit=3)["data"]
    rows = [image["row"] for image in first["data"]]
    assert rows == sorted({*rows})
    assert len(rows) == 10
    assert rows != [image["row"] for image in read(photos, sample=10, seed=2)["data"]]
    assert read(photos, sample=3)["data"] == read(photos, sample=3, seed=0)["data"]


def test_a_sample_is_of_the_split_and_the_class_and_at_most_all_of_them(photos, read):
    found = read(photos, sample=5, **{"class": "cat", "split": "val"})["data"]
    assert {(image["label"], image["split"]) for image in found} == {("cat", "val")}
    assert len(found) == 5
    every = read(photos, sample=10_000, split="test", limit=100)["data"]
    assert len(every) == 7


@pytest.mark.parametrize(
    ("params", "pointer", "hint"),
    [
        ({"class": "cats"}, "class", "did you mean `cat`?"),
        ({"class": "zebra"}, "class", "there are cat, dog."),
        ({"split": "valid"}, "split", "did you mean `val`?"),
        ({"sample": 0}, "sample", ""),
        ({"labels": "cat"}, "labels", ""),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(client, photos, params, pointer, hint):
    problem = check_problem(client.get(f"/datasets/{photos}/images", params=params), 422, "invalid_request")
    assert pointer in get_pointers(problem)[0]
    assert hint in problem["detail"]


@pytest.mark.parametrize(("status", "code"), [("validating", "dataset_not_ready"), ("failed", "dataset_failed")])
def test_a_dataset_that_is_not_ready_is_409(client, database, photos, status, code):
    with database.writing() as session:
        session.get_one(Dataset, photos).status = status
    check_problem(client.get(f"/datasets/{photos}/images"), 409, code)
    check_problem(client.get(f"/datasets/{photos}/images/0"), 409, code)


def test_images_of_others_are_as_if_there_were_none(client, as_other, photos):
    for path in (f"/datasets/{photos}/images", f"/datasets/{photos}/images/0"):
        assert client.get(path).status_code == 200
        check_problem(client.get(path, headers=as_other), 404, "dataset_not_found")
    etag = client.get(f"/datasets/{photos}/images/0").headers["etag"]
    answer = client.get(f"/datasets/{photos}/images/0", headers=as_other | {"If-None-Match": etag})
    check_problem(answer, 404, "dataset_not_found")
    assert client.delete(f"/datasets/{photos}").status_code == 204
    check_problem(client.get(f"/datasets/{photos}/images/0"), 404, "dataset_not_found")
