"""Invalid uploads end to end: over HTTP, through a real worker and its sandboxed ingestion process.

All uploads go to one service with low limits; each test checks one dataset.
"""

import os
import tarfile
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from service import keys
from service.db.models import Job
from service.db.session import Database
from tests import sample_archives
from tests.faults.fleet import Fleet, child_of
from tests.pictures import encoded, jpeg, pixels, png
from tests.processes import soon

LIMITS = {"max_images": "20", "max_image_pixels": "1000000"}
GOOD = {"cat/1.png": png(1), "dog/2.png": png(2)}
IMAGES = np.stack([pixels(1), pixels(2)])


def tar_with(kind):
    """A tar archive with an entry of that kind among good ones."""
    return sample_archives.make_tar(
        GOOD, sample_archives.make_tar_entry("cat/odd.png", type=kind, linkname="/etc/passwd")
    )


def bomb(pack):
    return pack({f"{n}.bin": bytes(2**25) for n in range(3)})


def tar_gz(files):
    return sample_archives.compress_gzip(sample_archives.make_tar(files))


ZIP_WITH_SYMLINK = sample_archives.make_zip({**GOOD, "cat/odd.png": b"/etc/passwd"}, modes={"cat/odd.png": 0o120777})
WALL = encoded(Image.new("1", (1001, 1000)))
UPPER_AND_LOWER = sample_archives.make_zip({**GOOD, "cat/A.png": png(3), "cat/a.png": png(4)})
CORRUPT = sample_archives.make_zip({**GOOD, "cat/~3.jpg": jpeg(3)[:200]})
MANY_FOLDERS = sample_archives.make_zip({f"{n}/": b"" for n in range(10_041)})
# What is sent, the code of the verdict, and the files that are to blame with the codes of why.
FAILING = {
    "not an archive": (b"These bytes are a text.", "not_an_archive", {}),
    "a truncated zip": (sample_archives.make_zip(GOOD)[:-40], "truncated_archive", {}),
    "a truncated tar.gz": (tar_gz(GOOD)[:-40], "truncated_archive", {}),
    "a zip that leads out": (sample_archives.make_zip({**GOOD, "../../out.png": png(3)}), "unsafe_path", {}),
    "a tar that leads out": (sample_archives.make_tar({**GOOD, "/tmp/out.png": png(3)}), "unsafe_path", {}),
    "a zip with a symlink": (ZIP_WITH_SYMLINK, "bad_files", {"/files/cat~1odd.png": "symlink"}),
    "a tar with a symlink": (tar_with(tarfile.SYMTYPE), "bad_files", {"/files/cat~1odd.png": "symlink"}),
    "a tar with a device": (tar_with(tarfile.CHRTYPE), "bad_files", {"/files/cat~1odd.png": "device"}),
    "a bomb by ratio": (bomb(sample_archives.make_zip), "bomb", {}),
    "a packed bomb by ratio": (bomb(tar_gz), "bomb", {}),
    "a bomb by images": (sample_archives.make_tar({f"{n}.png": png(n) for n in range(21)}), "too_many_images", {}),
    "a bomb by entries": (MANY_FOLDERS, "too_many_entries", {}),
    "a bomb by pixels": (
        sample_archives.make_zip({**GOOD, "3.png": WALL}),
        "bad_files",
        {"/files/3.png": "too_many_pixels"},
    ),
    "names that differ in case": (UPPER_AND_LOWER, "bad_files", {"/files/cat~1a.png": "duplicate_name"}),
    "names that differ in their Unicode form": (
        sample_archives.make_zip({"cat/caf\u00e9.png": png(1), "cat/cafe\u0301.png": png(2)}),
        "bad_files",
        {"/files/cat~1caf\u00e9.png": "duplicate_name"},
    ),
    "classes that differ in case": (
        sample_archives.make_zip({"Cat/1.png": png(1), "cat/2.png": png(2)}),
        "duplicate_class",
        {},
    ),
    "no images": (sample_archives.make_zip({"readme.txt": b"Nothing to see here."}), "no_images", {}),
    "a corrupt image": (CORRUPT, "bad_files", {"/files/cat~1~03.jpg": "corrupt"}),
    "objects in an npz": (sample_archives.make_npz(images=np.array([object()])), "object_array", {}),
    "channels first in an npz": (sample_archives.make_npz(images=IMAGES.transpose(0, 3, 1, 2)), "wrong_shape", {}),
    "too few labels in an npz": (
        sample_archives.make_npz(images=IMAGES, labels=np.zeros(1, np.int64)),
        "labels_length",
        {},
    ),
}
# With `on_bad_file=skip`: the upload, and the skipped files.
SKIPPING = {
    "a corrupt image": (CORRUPT, {"cat/~3.jpg": "corrupt"}),
    "a device": (tar_with(tarfile.CHRTYPE), {"cat/odd.png": "device"}),
    "names that differ in case": (UPPER_AND_LOWER, {"cat/a.png": "duplicate_name"}),
}
PICTURE = Image.fromarray(pixels(7))


def odd_pictures():
    """Return one image in several unusual formats, and the notes of the report for each."""
    grey = np.asarray(PICTURE.convert("L")).astype(np.uint16) * 257
    turned = Image.Exif()
    turned[0x0112] = 6
    sideways = PICTURE.transpose(Image.Transpose.ROTATE_90)
    clear = PICTURE.convert("RGBA")
    clear.putalpha(0)
    frames = [PICTURE.quantize(256), Image.new("P", PICTURE.size)]
    return {
        "16-bit.png": (encoded(Image.fromarray(grey)), {"grey16", "grey"}),
        "alpha.png": (encoded(clear), {"alpha"}),
        "animated.gif": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), {"animated", "palette"}),
        "cmyk.jpg": (encoded(PICTURE.convert("CMYK"), "JPEG", quality=95, subsampling=0), {"cmyk"}),
        "palette.png": (encoded(PICTURE.quantize(256)), {"palette"}),
        "rotated.jpg": (encoded(sideways, "JPEG", quality=95, subsampling=0, exif=turned), {"orientation"}),
    }


@dataclass(frozen=True)
class Service:
    """The service after all uploads, and their datasets."""

    fleet: Fleet
    database: Database
    tenant: str
    outcomes: dict[str, dict]

    def send(self, name, data, **form):
        answer = self.fleet.http.post("/datasets", data={"name": name, **form}, files={"file": ("upload", data)})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def wait(self, dataset_id):
        """Return the dataset when its validation has ended."""
        place = f"/datasets/{dataset_id}"
        soon(lambda: self.fleet.http.get(place).json()["status"] != "validating", 120)
        return self.fleet.http.get(place).json()

    def files(self):
        """Return the files and the empty folders of the data folder, except those removed meanwhile."""
        data = self.fleet.folder / "data"
        found = set()
        for folder, folders, files in os.walk(data):
            names = [os.path.join(folder, name) for name in files] if folders or files else [folder]
            found.update(os.path.relpath(name, data) for name in names)
        return found


@pytest.fixture(scope="module")
def service(tmp_path_factory, _sqlite_template):
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "twoviews.db").write_bytes(_sqlite_template.read_bytes())
    database = Database(f"sqlite:///{folder / 'twoviews.db'}")
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "acme").id
        secret = keys.create(session, tenant, "test")[1]
    fleet = Fleet(folder, f"sqlite:///{folder / 'twoviews.db'}", **LIMITS)
    try:
        fleet.broker.start()
        api, worker, _ = fleet.api(), fleet.worker("data"), fleet.keeper()
        fleet.http.headers["Authorization"] = f"Bearer {secret}"
        soon(lambda: " ready." in fleet.logs() and child_of(worker))  # while it loads it has other child processes
        child = child_of(worker)
        service = Service(fleet, database, tenant, {})
        sent = {case: service.send(case, data) for case, (data, *_) in FAILING.items()}
        sent |= {f"skip {case}": service.send(case, data, on_bad_file="skip") for case, (data, _) in SKIPPING.items()}
        sent["odd"] = service.send(
            "odd", sample_archives.make_zip({name: data for name, (data, _) in odd_pictures().items()})
        )
        service.outcomes.update({case: service.wait(dataset_id) for case, dataset_id in sent.items()})
        yield service
        assert (api.poll(), worker.poll(), child_of(worker)) == (None, None, child), fleet.logs()  # no process has died
    finally:
        fleet.close()
        database.close()


@pytest.mark.parametrize("case", FAILING)
def test_invalid_upload_fails_the_dataset_with_reasons(service, case):
    _, code, blamed = FAILING[case]
    dataset = service.outcomes[case]
    assert (dataset["status"], dataset["report"]) == ("failed", None)
    assert dataset["error"]["code"] == code, dataset["error"]
    assert dataset["error"]["detail"].endswith(".")
    assert {fault["pointer"]: fault["code"] for fault in dataset["error"]["errors"]} == blamed


@pytest.mark.parametrize("case", SKIPPING)
def test_bad_files_are_skipped_with_policy_skip(service, case):
    _, left_out = SKIPPING[case]
    dataset = service.outcomes[f"skip {case}"]
    assert (dataset["status"], dataset["error"]) == ("ready", None)
    assert {fault["name"]: fault["code"] for fault in dataset["report"]["skipped"]} == left_out
    assert dataset["report"]["classes"] == ["cat", "dog"]


def test_unusual_image_files_are_decoded(service):
    dataset = service.outcomes["odd"]
    assert dataset["status"] == "ready", dataset["error"]
    expected = odd_pictures()
    notes = [note for _, of_one in expected.values() for note in of_one]
    assert dataset["report"]["converted"] == {name: notes.count(name) for name in dataset["report"]["converted"]}
    assert sum(dataset["report"]["converted"].values()) == len(notes)
    assert dataset["report"]["skipped_count"] == 0
    packed = np.load(service.fleet.folder / "data" / "datasets" / dataset["id"] / "a1" / "pixels.npy")
    shown = dict(zip(sorted(expected), packed, strict=True))
    grey = np.asarray(PICTURE.convert("L").convert("RGB"))
    for name, image in shown.items():
        wanted = {"16-bit.png": grey, "alpha.png": np.full_like(grey, 255)}.get(name, np.asarray(PICTURE))
        assert np.abs(image.astype(int) - wanted).mean() < 6, name


def test_failed_dataset_is_refused_at_submission(service):
    body = {
        "kind": "pretrain",
        "dataset": service.outcomes["no images"]["id"],
        "config": {"method": {"name": "simclr"}},
    }
    answer = service.fleet.http.post("/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_failed")


def test_invalid_uploads_are_not_retried(service):
    with service.database.reading() as session:
        tried = {job.dataset_id: job.attempt for job in session.scalars(select(Job))}
    assert tried == {dataset["id"]: 1 for dataset in service.outcomes.values()}


def test_the_service_goes_on_and_keeps_nothing_of_what_failed(service):
    good = service.wait(service.send("good", sample_archives.make_zip(GOOD)))
    assert (good["status"], good["report"]["splits"]["train"]["images"]) == ("ready", 2)
    ready = [dataset["id"] for dataset in (*service.outcomes.values(), good) if dataset["status"] == "ready"]
    parts = ("images.arrow", "pixels.npy", "blocks.sha256", "dataset.json")
    kept = {f"datasets/{dataset_id}/a1/{part}" for dataset_id in ready for part in parts}
    soon(
        lambda: service.files() == kept | {"tmp", f"uploads/{service.tenant}", "sweep.lock"}
    )  # the sweep has taken the rest
    assert not [line for line in service.fleet.find_leftovers() if "worker.uploads.ingest" in line]
