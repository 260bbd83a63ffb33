"""Storage: atomic writes, paths inside the root, and the sweep of unused files."""

import os
import time

import pytest

from service import datasets, garbage
from service.embedding import shards
from service.storage import make_durable
from ssl_core.config.embedding import name_files
from tests.service import given

DAY = 86_400.0


@pytest.fixture
def put(storage):
    """Return a function that writes a file at a relative path, with its mtime some seconds in the past."""

    def write(path, age=2 * DAY):
        file = storage.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"bytes")
        for touched in (file, *file.parents):
            if touched.is_relative_to(storage.root):
                os.utime(touched, (time.time() - age,) * 2)
        return file

    return write


def sweep(database, storage):
    with database.reading() as session:
        live, known = garbage.live_paths(session), garbage.known_folders(session)
    return sorted(storage.sweep(live, known, time.time() - DAY))


def test_the_lock_of_the_sweep_is_released_though_a_child_shares_its_descriptor(storage, monkeypatch):
    """A child has copies of all descriptors from its fork to its exec."""
    shared, real = [], os.open

    def open_and_share(*arguments):
        descriptor = real(*arguments)
        shared.append(os.dup(descriptor))
        return descriptor

    monkeypatch.setattr(os, "open", open_and_share)
    with storage.without_sweep() as is_held:
        assert is_held
        with storage.without_sweep(wait=False) as is_held_again:
            assert not is_held_again
    with storage.without_sweep(wait=False) as is_held:
        assert is_held
    for descriptor in shared:
        os.close(descriptor)


def test_make_durable_renames_the_file(storage):
    tmp = storage.new_upload()
    tmp.write_bytes(b"archive")
    final = storage.upload_path("ten_1", given.SHA)
    make_durable(tmp, final)
    assert final.read_bytes() == b"archive"
    assert list(storage.tmp_dir.iterdir()) == []
    assert storage.relative(final) == f"uploads/ten_1/{given.SHA}"
    assert storage.absolute(storage.relative(final)) == final


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "a/../../b", "a\x00b", "link/passwd"])
def test_path_outside_the_root_is_refused(storage, path):
    storage.root.mkdir()
    (storage.root / "link").symlink_to("/etc")
    with pytest.raises(ValueError):
        storage.absolute(path)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\x00", "a.b", "ü"])
def test_invalid_name_is_refused(storage, name):
    for make in (lambda: storage.attempt_dir(name, 1), lambda: storage.upload_path(name, given.SHA)):
        with pytest.raises(ValueError):
            make()


def test_sweep_removes_old_unused_files(database, tenant, storage, put):
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    put("tmp/old.upload")
    put(f"uploads/{tenant}/{given.SHA}")
    put(f"jobs/{job}/a7/checkpoint.pt")
    new = put("tmp/new.upload", age=10)
    young = put(f"jobs/{job}/a8/model/weights.safetensors", age=10)
    kept = put("logs/worker.log")
    assert sweep(database, storage) == [f"jobs/{job}/a7", "tmp/old.upload", f"uploads/{tenant}/{given.SHA}"]
    assert new.exists()
    assert young.exists()
    assert kept.exists()


def test_sweep_keeps_unknown_folders(database, tenant, storage, put):
    put("jobs/job_unknown/a1/model/weights.safetensors")
    put("datasets/ds_unknown/a1/images.arrow")
    put("uploads/ten_unknown/" + given.SHA)
    assert sweep(database, storage) == []


def test_sweep_removes_old_empty_folders(database, tenant, storage, put):
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    put(f"jobs/{job}/a7/checkpoint.pt")
    assert sweep(database, storage) == [f"jobs/{job}/a7"]
    folder = storage.root / f"jobs/{job}"
    assert folder.exists()
    os.utime(folder, (time.time() - 2 * DAY,) * 2)
    sweep(database, storage)
    assert list((storage.root / "jobs").iterdir()) == []


def test_sweep_keeps_recently_written_folders(database, tenant, storage, put):
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    put(f"jobs/{job}/a7/checkpoint.pt")
    fresh = put(f"jobs/{job}/a7/model/weights", age=10)
    for folder in (fresh.parent, fresh.parent.parent):
        os.utime(folder, (time.time() - 2 * DAY,) * 2)
    assert sweep(database, storage) == []


def test_sweep_keeps_uploads_until_the_dataset_is_ready(database, tenant, storage, put):
    upload = put(f"uploads/{tenant}/{given.SHA}")
    given.create_dataset(database, tenant)
    assert sweep(database, storage) == []
    given.finish_job(database, given.claim_job(database, "data"))
    assert sweep(database, storage) == [f"uploads/{tenant}/{given.SHA}"]
    assert not upload.exists()


def test_sweep_keeps_shared_dataset_files(database, tenant, storage, put):
    first = given.create_ready_dataset(database, tenant)
    second = given.create_dataset(database, tenant).id
    file = put(f"datasets/{first}/a1/images.arrow")
    put(f"datasets/{first}/a2/images.arrow")
    for gone in (first, second):
        assert file.exists()
        with database.writing() as session:
            datasets.delete(session, tenant, gone)
        sweep(database, storage)
    assert not file.exists()


def test_sweep_keeps_the_folder_of_a_running_ingestion(database, tenant, storage, put):
    dataset = given.create_dataset(database, tenant)
    given.claim_job(database, "data")
    put(f"datasets/{dataset.id}/a1/images.arrow")
    assert sweep(database, storage) == []


def test_sweep_keeps_referenced_attempts_only(database, tenant, storage, put):
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    for attempt in (1, 2, 3, 4):
        put(f"jobs/{job}/a{attempt}/checkpoint-000000005.pt")
        put(f"jobs/{job}/a{attempt}/config.json")
    given.release_job(database, given.claim_job(database))
    second = given.claim_job(database)
    given.record_events(database, second, given.checkpoint(5))
    given.release_job(database, second)
    given.release_job(database, given.claim_job(database), counts=False)
    last = given.claim_job(database)
    assert sweep(database, storage) == [f"jobs/{job}/a1", f"jobs/{job}/a3"]
    given.finish_job(database, last, "cancelled")
    assert sweep(database, storage) == [f"jobs/{job}/a4"]
    assert (storage.root / f"jobs/{job}/a2/checkpoint-000000005.pt").exists()


def test_sweep_keeps_models_and_artifacts(database, tenant, storage, put):
    job = given.submit_job(database, tenant, given.create_ready_dataset(database, tenant)).id
    claim = given.claim_job(database)
    plot = given.events.Artifact("plot", "plot.png", "image/png", given.SHA, 5)
    given.record_events(database, claim, given.model())
    given.release_job(database, claim)
    again = given.claim_job(database)
    given.record_events(database, again, plot)
    given.finish_job(database, again)
    weights = put(f"jobs/{job}/a1/model/weights.safetensors")
    picture = put(f"jobs/{job}/a2/plot.png")
    assert sweep(database, storage) == []
    assert weights.exists()
    assert picture.exists()


def test_sweep_removes_shards_that_no_artifact_names_once_the_job_has_ended(database, tenant, storage, put):
    dataset = given.create_ready_dataset(database, tenant)
    trained = given.submit_job(database, tenant, dataset)
    first = given.claim_job(database)
    given.record_events(database, first, given.model())
    given.finish_job(database, first)
    job = given.submit_job(database, tenant, dataset, "embed_dataset", model=trained.id, config={"workers": 2})
    claim = given.claim_job(database)
    with database.writing() as session:
        shard = shards.claim(session, job.id, job.id, 1)
    given.record_events(database, claim, given.events.Shard(0, 0, shard.rows, given.SHA, 5, given.SHA, 5))
    kept = [put(f"jobs/{job.id}/a1/{name}") for name in name_files(0)]
    left = [put(f"jobs/{job.id}/a1/{name}") for name in name_files(1)]
    assert sweep(database, storage) == []
    given.finish_job(database, claim, "cancelled")
    assert sweep(database, storage) == [f"jobs/{job.id}/a1/{name}" for name in name_files(1)]
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in left)


def test_sweep_removes_temporary_files_of_killed_processes_where_all_else_is_kept(database, tenant, storage, put):
    dataset = given.create_ready_dataset(database, tenant)
    job = given.submit_job(database, tenant, dataset).id
    claim = given.claim_job(database)
    given.record_events(database, claim, given.model())
    given.finish_job(database, claim)
    left = [
        ".verify.json.0011aabb.tmp",
        f"datasets/{dataset}/a1/.dataset.json.0011aabb.tmp",
        f"jobs/{job}/a1/model/.weights.safetensors.0011aabb.tmp",
    ]
    kept = [put(f"jobs/{job}/a1/model/weights.safetensors"), put("jobs/unknown/a1/.curves.svg.0011aabb.tmp")]
    kept += [put(f"jobs/{job}/a1/model/.model.json.0011aabb.tmp", age=DAY / 2), put("credentials.json")]
    for path in left:
        put(path)
    assert sweep(database, storage) == left
    assert all(path.exists() for path in kept)
