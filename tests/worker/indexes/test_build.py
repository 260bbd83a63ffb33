"""Index building: from a job's embeddings to an index, killed and started again, and what it refuses."""

import json
import signal
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import update

from service import leases
from service.db.models import Job
from service.db.session import now
from service.errors import UnknownRow
from service.garbage import known_folders, live_paths, live_uploads
from service.settings import Settings
from service.verify.checks import check_item
from service.verify.inventory import Item, list_items
from ssl_core.checksums import document
from ssl_core.errors import Corrupt
from tests.processes import soon
from tests.service import given
from tests.worker.indexes import embedded
from worker.encoder.search.index import Index
from worker.encoder.search.nearest import find_nearest, normalise
from worker.indexes.build import Options, build
from worker.indexes.embeddings import BadEmbeddings, Embeddings, StoredFile
from worker.trainer.supervisor import supervise

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
OPTIONS = Options(exact_rows=10**6, exact_graph_rows=10**6, memory_bytes=2**30)


def build_here(folder, images, options=OPTIONS, **about) -> Index:
    files = embedded.write(folder / "embeddings", images, **about)
    stored = {file.name: StoredFile(file, embedded.hash_file(file)) for file in files}
    build(Embeddings(stored, None), folder / "index", options)
    return Index.open(folder / "index")


def test_embeddings_become_an_index(database, storage, submit, attempt, show):
    images = embedded.draw(700)
    index = submit(images)
    assert (index.status, index.layer, index.report) == ("building", "backbone", None)
    attempt()
    index = show(index.id)
    assert (index.status, index.path, index.error) == ("ready", f"indexes/{index.id}/a1", None)
    assert index.report["bytes"] > 0
    assert index.report["seconds"] > 0
    known = {name: index.report[name] for name in ("vectors", "dim", "labelled", "method", "recall_at_10")}
    labelled = sum(label is not None for label in images.labels)
    assert known == {"vectors": 700, "dim": 16, "labelled": labelled, "method": "exact", "recall_at_10": 1}
    opened = Index.open(storage.absolute(index.path))
    np.testing.assert_allclose(opened.vectors, normalise(images.vectors), atol=1e-7)
    for row in (0, 1, 350, 699):
        expected = {"row": row, "label": images.labels[row], "split": images.splits[row], "path": images.paths[row]}
        assert opened.describe(row) == expected
    assert opened.classes == [f"klässe {label}" for label in range(4)]
    assert opened.size_bytes == index.report["bytes"]
    with database.reading() as session:
        assert Item("index", index.path) in list_items(session)
        assert f"indexes/{index.id}" in known_folders(session)


@pytest.mark.parametrize(("dtype", "shard_rows"), [("float16", 50), ("float32", 1000)])
def test_vectors_of_any_dtype_and_number_of_shards(tmp_path, dtype, shard_rows):
    images = embedded.draw(120)
    index = build_here(tmp_path, images, dtype=dtype, shard_rows=shard_rows)
    np.testing.assert_allclose(index.vectors, normalise(images.vectors.astype(dtype)), atol=1e-7)
    assert [index.describe(row)["path"] for row in range(120)] == images.paths


def test_beyond_the_limit_an_index_is_approximate_with_its_recall(tmp_path):
    images = embedded.draw(5000, dim=24, classes=60)
    index = build_here(tmp_path, images, Options(4000, 10**6, 2**30))
    report = index.about["report"]
    assert report["method"] == "inverted_lists"
    assert 0.95 <= report["recall_at_10"] <= 1
    assert index.lists is not None
    own = np.arange(0, 5000, 50)
    found = index.search(index.vectors[own], 10, own=own)[0]
    exact = find_nearest(index.vectors, index.vectors[own], 10, own=own)[0]
    assert np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(found, exact, strict=True)]) > 0.93
    again = build_here(tmp_path / "again", images, Options(4000, 10**6, 2**30))
    assert again.about["files"] == index.about["files"]


def test_the_graph_of_many_vectors_is_approximate_and_their_search_exact(tmp_path):
    index = build_here(tmp_path, embedded.draw(3000), Options(10**6, 1000, 2**30))
    report = index.about["report"]
    assert (report["method"], report["recall_at_10"], index.lists) == ("exact", 1, None)
    assert 0.95 <= report["neighbours"]["recall_at_10"] <= 1


def test_embeddings_of_some_splits_keep_the_rows_of_the_dataset(tmp_path):
    images = embedded.draw(50)
    images.rows = [*range(10, 40), *range(70, 90)]
    index = build_here(tmp_path, images, shard_rows=15)
    assert [index.describe(place)["row"] for place in range(50)] == images.rows
    assert index.find([10, 89, 70], "rows").tolist() == [0, 49, 30]
    for unknown in (0, 40, 69, 90, 10**12):
        with pytest.raises(UnknownRow, match=f"no image of row {unknown}"):
            index.find([10, unknown], "rows")


def test_rows_out_of_order_are_refused(tmp_path):
    images = embedded.draw(3)
    images.rows = [0, 2, 1]
    with pytest.raises(BadEmbeddings, match="not in the order"):
        build_here(tmp_path, images)


def test_one_image_is_an_index_too(tmp_path):
    index = build_here(tmp_path, embedded.draw(1, unlabelled=1))
    assert index.describe(0)["label"] is None
    assert index.search(index.vectors, 5)[0].tolist() == [[0, -1, -1, -1, -1]]


@on_sqlite
def test_a_killed_build_starts_again_and_its_late_end_changes_nothing(database, storage, submit, attempt, show):
    index = submit(embedded.draw(200))
    lost = given.claim_job(database, "data")
    with database.writing() as session:  # as if its worker was killed
        session.execute(update(Job).where(Job.id == index.build_id).values(lease_until=now() - 1))
        assert leases.reap(session) == [index.build_id]
    attempt()
    assert (show(index.id).status, show(index.id).path) == ("ready", f"indexes/{index.id}/a2")
    supervise(lost, database, storage, Settings(data_dir=storage.root), lambda: False)
    assert show(index.id).path == f"indexes/{index.id}/a2"
    with database.reading() as session:
        assert f"indexes/{index.id}/a1" not in live_paths(session)
        for live in (live_paths(session), live_uploads(session)):
            assert f"indexes/{index.id}/a2" in live


@on_sqlite
def test_a_killed_process_leaves_no_index_and_the_next_builds_it(database, storage, submit, attempt, show):
    index = submit(embedded.draw(20_000, dim=64))
    claim = given.claim_job(database, "data")
    settings = Settings(data_dir=storage.root, heartbeat_seconds=0.2)
    thread = threading.Thread(target=supervise, args=(claim, database, storage, settings, lambda: False))
    thread.start()
    folder = storage.index_dir(index.id, 1)
    soon(lambda: (folder / "vectors.npy").exists())
    found = subprocess.run(["pgrep", "-f", str(folder / "sources.json")], capture_output=True, text=True, check=True)
    (pid,) = map(int, found.stdout.split())
    subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(pid)], check=True)
    thread.join()
    assert not (folder / "index.json").exists()
    assert list(folder.glob(".*.tmp")) == []
    assert show(index.id).status == "building"
    attempt()
    assert show(index.id).path == f"indexes/{index.id}/a2"


def test_damaged_embeddings_are_found(tmp_path):
    files = embedded.write(tmp_path, embedded.draw(50))
    stored = {file.name: StoredFile(file, embedded.hash_file(file)) for file in files}
    data = bytearray((tmp_path / "embeddings-00000.npy").read_bytes())
    data[-1] ^= 1
    (tmp_path / "embeddings-00000.npy").write_bytes(data)
    with pytest.raises(Corrupt, match="embeddings-00000"):
        build(Embeddings(stored, None), tmp_path / "index", OPTIONS)


@pytest.mark.parametrize(
    ("value", "about", "code"),
    [
        (np.nan, {}, "not_finite"),
        (np.inf, {}, "not_finite"),
        (0, {"rows": 49}, "bad_embeddings"),
        (0, {"dim": 15}, "bad_embeddings"),
        (0, {"shards": []}, "bad_embeddings"),
        (0, {"shards": [{"npy": "embeddings-9.npy", "rows": 50}]}, "bad_embeddings"),
    ],
)
def test_embeddings_that_cannot_be_indexed_are_refused(tmp_path, value, about, code):
    images = embedded.draw(50)
    images.vectors[3, 1] = value
    with pytest.raises(BadEmbeddings) as caught:
        build_here(tmp_path, images, **about)
    assert caught.value.code == code
    assert not (tmp_path / "index" / "index.json").exists()


def test_an_index_that_needs_too_much_memory_is_refused_with_what_is_possible(tmp_path):
    with pytest.raises(BadEmbeddings, match="There are 300 vectors; of 16 values at most 200 are indexed"):
        build_here(tmp_path, embedded.draw(300), Options(100, 100, 12_800))


@on_sqlite
def test_embeddings_that_cannot_be_indexed_fail_the_index_at_once(database, submit, attempt, show):
    images = embedded.draw(50)
    images.vectors[3, 1] = np.nan
    index = submit(images)
    attempt()
    index = show(index.id)
    assert index.error == {"code": "not_finite", "detail": "The embedding of row 3 has values that are not finite."}
    assert given.get_job(database, index.build_id).attempt == 1


def test_a_verification_reads_every_file_of_an_index(tmp_path):
    build_here(tmp_path, embedded.draw(60))
    folder, item = tmp_path / "index", Item("index", "indexes/a/a1")

    def check():
        return {step.name: step.outcome for step in check_item(item, folder) if not isinstance(step, int)}

    about = document.read(folder / "index.json")
    assert check() == dict.fromkeys(["index.json", *about["files"]], "sound")
    data = bytearray((folder / "vectors.npy").read_bytes())
    data[-1] ^= 1
    (folder / "vectors.npy").write_bytes(data)
    (folder / "splits.npy").unlink()
    assert {name: outcome for name, outcome in check().items() if outcome != "sound"} == {
        "vectors.npy": "corrupt",
        "splits.npy": "missing",
    }
    with pytest.raises(Corrupt):
        Index.open(folder)


def test_labels_that_are_numbers_are_named_by_the_dataset(tmp_path):
    files = embedded.write(tmp_path, embedded.draw(10))
    stored = {file.name: StoredFile(file, embedded.hash_file(file)) for file in files}
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["ant", "bee"]}))
    column = pa.chunked_array([[0, None, 2]])
    labels, classes = Embeddings(stored, tmp_path)._number_labels(column)
    assert labels.tolist() == [0, -1, 2]
    assert classes == ["ant", "bee", "2"]


def test_the_command_prints_what_it_has_built(tmp_path):
    files = embedded.write(tmp_path / "embeddings", embedded.draw(10))
    named = {file.name: {"path": str(file), "sha256": embedded.hash_file(file)} for file in files}
    (tmp_path / "sources.json").write_text(json.dumps({"files": named, "dataset": None}))
    command = [sys.executable, "-m", "worker.indexes.build", tmp_path / "sources.json", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["vectors"] == 10
