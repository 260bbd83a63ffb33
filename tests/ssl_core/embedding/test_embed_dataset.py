"""Datasets embedded in shards: their values, their files, kills and requests."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ssl_core import config
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_store import read_centre_crops
from ssl_core.embedding import shard_files
from ssl_core.embedding.requests import read_lines
from ssl_core.events import Artifact, Failed, Progress, Resolved, Result, Shard, Stopped, to_line
from ssl_core.inputs import Inputs
from ssl_core.run import run
from ssl_core.serialization import saved_model
from tests.ssl_core.digits import TINY, pack_digits
from tests.ssl_core.test_run import kinds

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return pack_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def model(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    asked = config.parse({"method": {"name": "simclr"}, "epochs": 1, **TINY})
    assert isinstance([*run(asked, Inputs(digits), out)][-1], Result)
    return out / "model"


@pytest.fixture(scope="module")
def expected(digits, model):
    """The features of every image, one by one."""
    encoder = saved_model.load(model)
    dataset = Dataset.open(digits)
    pixels = read_centre_crops(dataset, np.arange(len(dataset)), encoder.image_size)
    return torch.cat([encoder.encode(image[None]) for image in pixels]).numpy()


def go(digits, model, directory, *, stop=None, requests=None, **fields):
    directory.mkdir(exist_ok=True)
    inputs = Inputs(digits, model=model, requests=requests, **({"stop": stop} if stop else {}))
    asked = config.parse({"rows_per_shard": 30, "batch_size": 8, "precision": "fp32", **fields}, "embed_dataset")
    return list(run(asked, inputs, directory))


def read_index(directory):
    return json.loads((directory / "embeddings.json").read_text())


def read_all(directory, form="npy"):
    names = [shard[form] for shard in read_index(directory)["shards"]]
    if form == "npy":
        return np.concatenate([np.load(directory / name) for name in names])
    return [pq.read_table(directory / name) for name in names]


def digest(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("embeddings*")}


def test_every_image_is_in_one_shard_with_the_features_of_the_encoder(digits, model, expected, tmp_path):
    events = go(digits, model, tmp_path)
    assert isinstance(events[0], Resolved)
    assert [(shard.first_row, shard.rows) for shard in kinds(events, Shard)] == [(0, 30), (30, 30), (60, 30), (90, 22)]
    assert np.abs(read_all(tmp_path) - expected).max() < 1e-6
    last = kinds(events, Progress)[-1]
    assert (last.step, last.total_steps) == (112, 112)
    summary = events[-1].summary
    assert {name: summary[name] for name in ("rows", "dim", "shards")} == {"rows": 112, "dim": 64, "shards": 4}
    assert summary["images_per_second"] > 0


def test_the_files_say_what_they_hold(digits, model, expected, tmp_path):
    artifacts = kinds(go(digits, model, tmp_path), Artifact)
    assert [artifact.name for artifact in artifacts] == ["embeddings.json"]
    index = read_index(tmp_path)
    shards = index.pop("shards")
    assert index == {
        "dataset": digits.name,
        "model": "model",
        "layer": "backbone",
        "dim": 64,
        "dtype": "float32",
        "normalized": False,
        "rows": 112,
    }
    assert shards[3] == {
        "first_row": 90,
        "rows": 22,
        "npy": "embeddings-00003.npy",
        "parquet": "embeddings-00003.parquet",
        "npy_sha256": digest(tmp_path)["embeddings-00003.npy"],
        "parquet_sha256": digest(tmp_path)["embeddings-00003.parquet"],
    }
    matrix = np.load(tmp_path / "embeddings-00001.npy", mmap_mode="r")
    assert (matrix.shape, matrix.dtype, matrix.flags.c_contiguous) == ((30, 64), np.float32, True)


def test_the_table_has_row_path_label_split_and_vector(digits, model, expected, tmp_path):
    go(digits, model, tmp_path)
    dataset = Dataset.open(digits)
    tables = read_all(tmp_path, "parquet")
    assert tables[0].schema.field("vector").type == pa.list_(pa.float32(), 64)
    rows = [row for table in tables for row in table.select(["row", "path", "label", "split"]).to_pylist()]
    names = ("train", "val", "test")
    assert rows == [
        {
            "row": row,
            "path": about["name"],
            "label": dataset.classes[about["label"]],
            "split": names[about["split"]],
        }
        for row, about in enumerate(map(dataset.describe, range(112)))
    ]
    vectors = np.concatenate([np.array(table["vector"].to_pylist(), np.float32) for table in tables])
    assert np.array_equal(vectors, read_all(tmp_path))


def test_images_without_labels_have_none(model, tmp_path):
    go(pack_digits(tmp_path / "data", 12, 0, labels=False), model, tmp_path / "out")
    assert read_all(tmp_path / "out", "parquet")[0]["label"].to_pylist() == [None] * 12


def test_vectors_computed_in_bf16_have_nearly_the_same_directions(digits, model, expected, tmp_path):
    go(digits, model, tmp_path, precision="bf16", normalize=True)
    found, wanted = read_all(tmp_path), expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert (found * wanted).sum(1).min() > 0.999
    assert np.abs(found - wanted).max() > 1e-4, "it was not computed in bf16"


@pytest.mark.parametrize("normalize", [False, True])
def test_half_precision_is_the_rounded_vector(digits, model, expected, tmp_path, normalize):
    go(digits, model, tmp_path, dtype="float16", normalize=normalize)
    found = read_all(tmp_path)
    wanted = expected / np.linalg.norm(expected, axis=1, keepdims=True) if normalize else expected
    assert found.dtype == np.float16
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-4)
    column = read_all(tmp_path, "parquet")[0]["vector"]
    assert column.type.value_type == "halffloat"
    assert np.array_equal(column.combine_chunks().flatten().to_numpy().reshape(-1, 64), found[:30])
    assert read_index(tmp_path)["normalized"] is normalize


def test_splits_restrict_the_rows(digits, model, expected, tmp_path):
    go(digits, model, tmp_path, splits=["test"])
    index = read_index(tmp_path)
    assert (index["rows"], index["splits"]) == (40, ["test"])
    places = [(shard["first_row"], shard["rows"], shard["row_ranges"]) for shard in index["shards"]]
    assert places == [(0, 30, [[72, 102]]), (30, 10, [[102, 112]])]
    assert [row for table in read_all(tmp_path, "parquet") for row in table["row"].to_pylist()] == [*range(72, 112)]
    assert np.abs(read_all(tmp_path) - expected[72:]).max() < 1e-6


def test_a_layer_is_chosen(digits, model, tmp_path):
    go(digits, model, tmp_path, layer="projection")
    assert read_index(tmp_path)["dim"] == saved_model.load(model).layers["projection"]
    assert read_all(tmp_path).shape == (112, read_index(tmp_path)["dim"])


def test_row_groups_do_not_change_what_is_read(digits, model, tmp_path, monkeypatch):
    go(digits, model, tmp_path / "one")
    monkeypatch.setattr(shard_files, "_ROW_GROUP", 8)
    monkeypatch.setattr("ssl_core.embedding.embed_dataset._CHUNK_BYTES", 1)
    go(digits, model, tmp_path / "many")
    assert pq.read_metadata(tmp_path / "many" / "embeddings-00000.parquet").num_row_groups == 4
    assert np.array_equal(read_all(tmp_path / "one"), read_all(tmp_path / "many"))
    for one, many in zip(read_all(tmp_path / "one", "parquet"), read_all(tmp_path / "many", "parquet"), strict=True):
        assert one.equals(many)


def test_a_stopped_run_goes_on_with_the_missing_shards_to_the_same_bytes(digits, model, tmp_path):
    go(digits, model, tmp_path / "whole")
    asked = iter([False] * 2 + [True] * 1000)
    events = go(digits, model, tmp_path / "stopped", stop=lambda: next(asked))
    assert isinstance(events[-1], Stopped)
    there = {*digest(tmp_path / "stopped")}
    assert 0 < len(there) < 8
    events = go(digits, model, tmp_path / "stopped")
    assert {shard.number for shard in kinds(events, Shard)} == {0, 1, 2, 3} - {int(name[11:16]) for name in there}
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "stopped").iterdir() if path.name.startswith(".")] == []


def test_a_killed_command_goes_on_to_the_same_bytes(digits, model, tmp_path):
    go(digits, model, tmp_path / "whole")
    settings = tmp_path / "config.json"
    settings.write_text(
        json.dumps({"kind": "embed_dataset", "rows_per_shard": 30, "batch_size": 8, "precision": "fp32"})
    )
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "ssl_core", "run", settings, "--data", digits, "--model", model, "--out", out]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while child.poll() is None and not (out / "embeddings-00001.parquet").exists():
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    assert digest(out) == digest(tmp_path / "whole")


@pytest.mark.parametrize("fault", ["npy missing", "npy damaged", "parquet damaged"])
def test_a_damaged_shard_is_computed_again(digits, model, tmp_path, fault):
    go(digits, model, tmp_path)
    whole = digest(tmp_path)
    name, what = fault.split()
    path = tmp_path / f"embeddings-00002.{name}"
    path.unlink() if what == "missing" else path.write_bytes(path.read_bytes()[:-3] + b"abc")
    assert [shard.number for shard in kinds(go(digits, model, tmp_path), Shard)] == [2]
    assert digest(tmp_path) == whole


def test_shards_of_another_config_are_not_taken(digits, model, tmp_path):
    go(digits, model, tmp_path)
    assert len(kinds(go(digits, model, tmp_path, normalize=True), Shard)) == 4
    assert read_index(tmp_path)["normalized"] is True


def test_requested_shards_alone_are_computed(digits, model, tmp_path):
    go(digits, model, tmp_path / "whole")
    lines = [{"shard": 2, "first_row": 60, "rows": 30}, None, {"shard": 0, "first_row": 0, "rows": 30}]
    events = go(digits, model, tmp_path / "part", requests=lines)
    assert [shard.number for shard in kinds(events, Shard)] == [2, 0]
    assert events[-1] == Result({"rows": 60})
    whole = digest(tmp_path / "whole")
    assert digest(tmp_path / "part") == {name: whole[name] for name in digest(tmp_path / "part")}


def test_the_index_of_shards_of_several_processes_is_that_of_one(digits, model, tmp_path):
    whole = go(digits, model, tmp_path / "whole")
    shards = [json.loads(to_line(shard)) for shard in kinds(whole, Shard)]
    for shard in shards:
        del shard["event"]
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "shards.json").write_text(json.dumps({"shards": shards, "seconds": 4.0}))
    events = go(digits, model, tmp_path / "last", requests=[{"finish": "shards.json"}])
    assert read_index(tmp_path / "last") == read_index(tmp_path / "whole")
    assert events[-1].summary == {"rows": 112, "dim": 64, "shards": 4, "images_per_second": 28.0}


def test_a_written_shard_is_reported_while_no_other_is_asked_for(digits, model, tmp_path):
    reader, pipe = os.pipe()
    os.write(pipe, b'{"shard": 0, "first_row": 0, "rows": 30}\n{"shard": 1, "first_row": 30, ')
    inputs = Inputs(digits, model=model, requests=read_lines(reader, 0.01))
    asked = config.parse({"rows_per_shard": 30}, "embed_dataset")
    seen = []
    for event in run(asked, inputs, tmp_path):
        seen.append(event)
        if isinstance(event, Shard) and event.number == 0:
            threading.Timer(0.05, os.write, (pipe, b'"rows": 30}\n')).start()
        if isinstance(event, Shard) and event.number == 1:
            os.close(pipe)
    assert [shard.number for shard in kinds(seen, Shard)] == [0, 1]
    assert seen[-1] == Result({"rows": 60})


def test_what_the_model_or_the_dataset_lacks_fails_the_run(digits, model, tmp_path):
    for fields, sentence in (({"layer": "head8"}, "no layer head8"), ({"splits": ["val"]}, "no images in its val")):
        (failed,) = kinds(go(digits, model, tmp_path, **fields), Failed)
        assert (failed.code, failed.retry) == ("config_unfit", False)
        assert sentence in failed.message


def test_a_full_disk_fails_the_run_and_leaves_no_part_of_a_shard(digits, model, tmp_path, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_files.ShardFolder, "_build_table", fill)
    (failed,) = kinds(go(digits, model, tmp_path), Failed)
    assert (failed.code, failed.retry) == ("storage_full", True)
    assert digest(tmp_path) == {}
    assert [*tmp_path.iterdir()] == []
