"""GET /datasets/{id}/images/{row}: thumbnails of every kind of image, caching, and damaged files."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.api.images.packed import PHOTOS
from tests.api.responses import check_problem
from tests.pictures import pixels

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def opened(answer) -> np.ndarray:
    """Return the picture of a response, int64 H×W×3."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg"), answer.text
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.mode) == ("JPEG", "RGB")
    return np.asarray(picture).astype(np.int64)


@pytest.fixture
def thumbnail(client):
    """Return the thumbnail of a row, for a size."""
    return lambda dataset, row=0, **params: opened(client.get(f"/datasets/{dataset}/images/{row}", params=params))


def find_row(client, dataset, name) -> int:
    data = client.get(f"/datasets/{dataset}/images", params={"limit": 100}).json()["data"]
    return next(image["row"] for image in data if image["name"] == name)


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("train/cat/1.jpg", None, (72, 128)),
        ("train/cat/1.jpg", 512, (288, 512)),
        ("train/cat/2.jpg", 100, (100, 30)),
        ("train/cat/2.jpg", 16, (16, 5)),
        ("train/dog/1.jpg", 512, (64, 64)),
        ("train/dog/turned.jpg", 100, (100, 50)),
    ],
)
def test_the_longer_side_is_at_most_the_size_and_images_are_never_enlarged(client, add, thumbnail, name, size, shape):
    photos = add("photos")
    params = {} if size is None else {"size": size}
    assert thumbnail(photos, find_row(client, photos, name), **params).shape == (*shape, 3)


def test_a_thumbnail_looks_like_its_image(client, add, thumbnail):
    photos = add("photos")
    name = "train/cat/1.jpg"
    full = Image.open(io.BytesIO(PHOTOS[name])).resize((128, 72), Image.Resampling.BOX)
    found = thumbnail(photos, find_row(client, photos, name))
    assert np.abs(found - np.asarray(full).astype(np.int64)).mean() < 3


def test_images_in_an_array_of_pixels_are_shown_at_their_size(client, add, thumbnail):
    small = add("small")
    images = client.get(f"/datasets/{small}/images").json()["data"]
    assert len(images) == 20
    for image in images[::6]:
        found = thumbnail(small, image["row"])
        number = int(image["name"].rpartition("/")[2].removesuffix(".png"))
        assert np.abs(found - pixels(number, 32, 32).astype(np.int64)).mean() < 4


def test_deep_greys_are_shown_by_the_range_of_the_dataset(add, thumbnail):
    found = thumbnail(add("grey16"))
    assert found.shape == (20, 30, 3)
    expected = np.linspace(0, 255, 600).reshape(20, 30)
    assert np.abs(found - expected[:, :, None]).mean() < 4


def test_of_five_channels_the_first_three_are_red_green_and_blue(add, thumbnail):
    found = thumbnail(add("five"), size=64)
    assert found.shape == (32, 64, 3)
    assert np.abs(found[:, :28] - [255, 0, 0]).max() < 20
    assert np.abs(found[:, 36:]).max() < 20


def test_a_thumbnail_may_be_cached_and_is_not_sent_again(client, add):
    path = f"/datasets/{add('photos')}/images/0"
    first = client.get(path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, max-age=604800, immutable"
    assert first.headers["vary"] == "Authorization"
    again = client.get(path, headers={"If-None-Match": f'"other", {etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    other = client.get(path, params={"size": 64}, headers={"If-None-Match": etag})
    assert other.status_code == 200
    assert other.headers["etag"] != etag
    head = client.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
    assert head.headers["content-length"] == str(len(first.content))
    assert client.head(path, headers={"If-None-Match": etag}).status_code == 304


def test_a_thumbnail_is_drawn_once(client, add, encoder):
    path = f"/datasets/{add('photos')}/images/2?size=33"
    before = encoder.health()["thumbnails"]
    contents = {client.get(path).content for _ in range(3)}
    assert len(contents) == 1
    assert encoder.health()["thumbnails"] == before + 1


@pytest.mark.parametrize("row", [len(PHOTOS), 10**12 - 1])
def test_a_row_beyond_the_last_is_404(client, add, row):
    problem = check_problem(client.get(f"/datasets/{add('photos')}/images/{row}"), 404, "image_not_found")
    assert f"there is no row {row}" in problem["detail"]


@pytest.mark.parametrize(("row", "size"), [("-1", 128), ("x", 128), (10**12, 128), (0, 15), (0, 513), (0, "original")])
def test_rows_and_sizes_that_cannot_be_are_422(client, add, row, size):
    answer = client.get(f"/datasets/{add('photos')}/images/{row}", params={"size": size})
    check_problem(answer, 422, "invalid_request")


def test_a_damaged_image_is_409_and_the_others_are_shown(client, add):
    broken = add("broken")
    assert len(client.get(f"/datasets/{broken}/images").json()["data"]) == 3
    answers = [client.get(f"/datasets/{broken}/images/{row}") for row in range(3)]
    assert [answer.status_code for answer in answers] == [200, 409, 200]
    assert "images.arrow is damaged" in check_problem(answers[1], 409, "corrupt")["detail"]


def test_missing_files_of_a_dataset_are_409(client, add):
    lost = add("photos", path="datasets/lost")
    for path in (f"/datasets/{lost}/images", f"/datasets/{lost}/images/0"):
        problem = check_problem(client.get(path), 409, "corrupt")
        assert "missing or cannot be read" in problem["detail"]
