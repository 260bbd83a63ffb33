"""Storage: files become real in one step, stay inside the root, and go when nothing points at them."""

import os
import time

import pytest

from service import datasets, garbage
from service.storage import make_durable
from tests.service import given

DAY = 86_400.0


@pytest.fixture
def put(storage):
    """Writes a file at a relative path, last touched that many seconds ago."""

    def write(path, age=2 * DAY):
        file = storage.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"bytes")
        for touched in (file, *file.parents):
            if touched.is_relative_to(storage.root):
                os.utime(touched, (time.time() - age,) * 2)
        return file

    return write


def swept(database, storage):
    with database.reading() as session:
        live, known = garbage.live_paths(session), garbage.known_folders(session)
    return sorted(storage.sweep(live, known, DAY))


def test_a_settled_file_has_its_final_name_only(storage):
    tmp = storage.new_upload()
    tmp.write_bytes(b"archive")
    final = storage.upload_path("ten_1", given.SHA)
    make_durable(tmp, final)
    assert final.read_bytes() == b"archive"
    assert list(storage.tmp_dir.iterdir()) == []
    assert storage.relative(final) == f"uploads/ten_1/{given.SHA}"
    assert storage.absolute(storage.relative(final)) == final


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "a/../../b", "a\x00b", "link/passwd"])
def test_no_path_leads_out_of_the_root(storage, path):
    storage.root.mkdir()
    (storage.root / "link").symlink_to("/etc")
    with pytest.raises(ValueError):
        storage.absolute(path)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\x00", "a.b", "ü"])
def test_only_names_of_ours_become_paths(storage, name):
    for make in (lambda: storage.attempt_dir(name, 1), lambda: storage.upload_path(name, given.SHA)):
        with pytest.raises(ValueError):
            make()


def test_old_bodies_and_old_attempts_are_swept_and_new_ones_stay(database, tenant, storage, put):
    job = given.submitted(database, tenant, given.ready(database, tenant)).id
    put("tmp/old.upload")
    put(f"uploads/{tenant}/{given.SHA}")
    put(f"jobs/{job}/a7/checkpoint.pt")
    new = put("tmp/new.upload", age=10)
    young = put(f"jobs/{job}/a8/model/weights.safetensors", age=10)
    kept = put("logs/worker.log")
    assert swept(database, storage) == [f"jobs/{job}/a7", "tmp/old.upload", f"uploads/{tenant}/{given.SHA}"]
    assert new.exists()
    assert young.exists()
    assert kept.exists()


def test_what_the_database_never_heard_of_is_not_ours_to_sweep(database, tenant, storage, put):
    put("jobs/job_unknown/a1/model/weights.safetensors")
    put("datasets/ds_unknown/a1/images.arrow")
    put("uploads/ten_unknown/" + given.SHA)
    assert swept(database, storage) == []


def test_an_emptied_folder_goes_when_it_has_been_empty_for_long(database, tenant, storage, put):
    job = given.submitted(database, tenant, given.ready(database, tenant)).id
    put(f"jobs/{job}/a7/checkpoint.pt")
    assert swept(database, storage) == [f"jobs/{job}/a7"]
    folder = storage.root / f"jobs/{job}"
    assert folder.exists()
    os.utime(folder, (time.time() - 2 * DAY,) * 2)
    swept(database, storage)
    assert list((storage.root / "jobs").iterdir()) == []


def test_a_folder_in_which_something_is_still_written_stays(database, tenant, storage, put):
    job = given.submitted(database, tenant, given.ready(database, tenant)).id
    put(f"jobs/{job}/a7/checkpoint.pt")
    fresh = put(f"jobs/{job}/a7/model/weights", age=10)
    for folder in (fresh.parent, fresh.parent.parent):
        os.utime(folder, (time.time() - 2 * DAY,) * 2)
    assert swept(database, storage) == []


def test_an_upload_stays_until_its_dataset_is_ready(database, tenant, storage, put):
    upload = put(f"uploads/{tenant}/{given.SHA}")
    given.validating(database, tenant)
    assert swept(database, storage) == []
    given.finished(database, given.claimed(database, "data"))
    assert swept(database, storage) == [f"uploads/{tenant}/{given.SHA}"]
    assert not upload.exists()


def test_a_packed_dataset_stays_for_as_long_as_any_row_shares_it(database, tenant, storage, put):
    first = given.ready(database, tenant)
    second = given.validating(database, tenant).id
    file = put(f"datasets/{first}/a1/images.arrow")
    put(f"datasets/{first}/a2/images.arrow")
    for gone in (first, second):
        assert file.exists()
        with database.writing() as session:
            datasets.delete(session, tenant, gone)
        swept(database, storage)
    assert not file.exists()


def test_a_running_ingestion_keeps_its_folder(database, tenant, storage, put):
    dataset = given.validating(database, tenant)
    given.claimed(database, "data")
    put(f"datasets/{dataset.id}/a1/images.arrow")
    assert swept(database, storage) == []


def test_of_a_jobs_attempts_only_what_a_row_points_at_stays(database, tenant, storage, put):
    job = given.submitted(database, tenant, given.ready(database, tenant)).id
    for attempt in (1, 2, 3, 4):
        put(f"jobs/{job}/a{attempt}/checkpoint-000000005.pt")
        put(f"jobs/{job}/a{attempt}/config.json")
    given.released(database, given.claimed(database))
    second = given.claimed(database)
    given.recorded(database, second, given.checkpoint(5))
    given.released(database, second)
    given.released(database, given.claimed(database), counts=False)
    last = given.claimed(database)
    assert swept(database, storage) == [f"jobs/{job}/a1", f"jobs/{job}/a3"]
    given.finished(database, last, "cancelled")
    assert swept(database, storage) == [f"jobs/{job}/a4"]
    assert (storage.root / f"jobs/{job}/a2/checkpoint-000000005.pt").exists()


def test_a_model_and_an_artifact_stay(database, tenant, storage, put):
    job = given.submitted(database, tenant, given.ready(database, tenant)).id
    claim = given.claimed(database)
    plot = given.events.Artifact("plot", "plot.png", "image/png", given.SHA, 5)
    given.recorded(database, claim, given.model())
    given.released(database, claim)
    again = given.claimed(database)
    given.recorded(database, again, plot)
    given.finished(database, again)
    weights = put(f"jobs/{job}/a1/model/weights.safetensors")
    picture = put(f"jobs/{job}/a2/plot.png")
    assert swept(database, storage) == []
    assert weights.exists()
    assert picture.exists()
