"""Layouts: one set of images in every format gives the same classes, counts and pixels."""

import json
import pickle
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ssl_core.config import Reading
from ssl_core.data.decode import decode
from ssl_core.events import Result
from tests import sample_archives
from tests.pictures import encoded, pixels
from worker.uploads.ingest import ingest
from worker.uploads.limits import Limits

LIMITS = Limits(unpacked_bytes=2**28, ratio=200, images=1000, image_bytes=2**22, image_pixels=10**6)
CLASSES = ["bird", "cat", "dog"]
SIDE = 32
IMAGES = {  # of split and class
    (split, label): np.stack([pixels(1000 * (split == "test") + 100 * label + n, SIDE, SIDE) for n in range(count)])
    for split, count in (("train", 4), ("test", 2))
    for label in range(len(CLASSES))
}


def images(split):
    """Return the images N×H×W×3 of a split, and their labels."""
    parts = [(IMAGES[split, label], label) for label in range(len(CLASSES))]
    return np.concatenate([part for part, _ in parts]), np.concatenate([[label] * len(part) for part, label in parts])


def planes(split):
    return np.ascontiguousarray(images(split)[0].transpose(0, 3, 1, 2)).reshape(-1, 3 * SIDE * SIDE)


def files(prefix="", separator="/"):
    return {
        prefix + separator.join((split, CLASSES[label], f"{number}.png")): encoded(Image.fromarray(image))
        for (split, label), stack in IMAGES.items()
        for number, image in enumerate(stack)
    }


def parquet(split, rows, names=True):
    stack, labels = images(split)
    column = pa.array(
        [{"bytes": encoded(Image.fromarray(image)), "path": f"{n}.png"} for n, image in enumerate(stack[rows])]
    )
    about = {"info": {"features": {"label": {"names": CLASSES, "_type": "ClassLabel"}}}}
    return sample_archives.make_parquet(
        {"image": column, "label": labels[rows]}, {b"huggingface": json.dumps(about).encode()} if names else None
    )


def webdataset(split):
    stack, labels = images(split)
    samples = {}
    for number, (image, label) in enumerate(zip(stack, labels, strict=True)):
        samples |= {f"{number:05d}.png": encoded(Image.fromarray(image)), f"{number:05d}.cls": CLASSES[label].encode()}
    return sample_archives.make_tar(samples)


def arrays():
    return {
        **{f"x_{split}": images(split)[0] for split in ("train", "test")},
        **{f"y_{split}": images(split)[1] for split in ("train", "test")},
        "class_names": np.array(CLASSES),
    }


def mnist():
    return {
        f"{stem}-{kind}-ubyte": sample_archives.make_idx(array.astype(np.uint8))
        for stem, split in (("train", "train"), ("t10k", "test"))
        for kind, array in zip(("images-idx4", "labels-idx1"), images(split), strict=True)
    }


def cifar():
    return {
        "c/data_batch_1": sample_archives.make_cifar_pickle(planes("train"), labels=images("train")[1].tolist()),
        "c/test_batch": sample_archives.make_cifar_pickle(planes("test"), labels=images("test")[1].tolist()),
        "c/batches.meta": pickle.dumps({"label_names": CLASSES}, 2),
    }


def cifar_binary():
    rows = {
        split: np.concatenate([images(split)[1][:, None].astype(np.uint8), planes(split)], 1)
        for split in ("train", "test")
    }
    return {
        "c/data_batch_1.bin": rows["train"].tobytes(),
        "c/test_batch.bin": rows["test"].tobytes(),
        "c/batches.meta.txt": "\n".join(CLASSES).encode(),
    }


LAYOUTS = {
    "zip of folders": lambda: sample_archives.make_zip(files()),
    "tar.gz in a folder of its own": lambda: sample_archives.compress_gzip(sample_archives.make_tar(files("set/v1/"))),
    "zip of Windows": lambda: sample_archives.make_zip(files("set\\", "\\")),
    "zips of splits": lambda: sample_archives.make_zip(
        {
            f"{split}.zip": sample_archives.make_zip(
                {name.removeprefix(f"{split}/"): data for name, data in files().items() if name.startswith(split)}
            )
            for split in ("train", "test")
        }
    ),
    "Parquet in shards": lambda: sample_archives.make_tar(
        {
            "data/train-00000-of-00002.parquet": parquet("train", slice(0, 5)),
            "data/train-00001-of-00002.parquet": parquet("train", slice(5, None)),
            "data/test-00000-of-00001.parquet": parquet("test", slice(None)),
        }
    ),
    "Parquet in folders": lambda: sample_archives.make_zip(
        {f"default/{split}/0000.parquet": parquet(split, slice(None)) for split in ("train", "test")}
    ),
    "WebDataset": lambda: sample_archives.make_tar(
        {f"{split}-000000.tar": webdataset(split) for split in ("train", "test")}
    ),
    "npz": lambda: sample_archives.make_npz(**arrays()),
    "npy in zip": lambda: sample_archives.make_zip(
        {f"set/{name}.npy": sample_archives.make_npy(array) for name, array in arrays().items()} | {"set/a.md": b""}
    ),
    "idx": lambda: sample_archives.make_zip(mnist()),
    "CIFAR pickles": lambda: sample_archives.compress_gzip(sample_archives.make_tar(cifar())),
    "CIFAR bytes": lambda: sample_archives.make_tar(cifar_binary()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_set_in_every_layout_has_the_same_classes_counts_and_pixels(tmp_path, layout):
    (tmp_path / "upload").write_bytes(LAYOUTS[layout]())
    *_, event = ingest(tmp_path / "upload", tmp_path / "out", Reading(strict=True), LIMITS)
    assert isinstance(event, Result), event
    report = event.summary
    assert report["classes"] == (["0", "1", "2"] if layout == "idx" else CLASSES)
    counts = {split: report["splits"][split]["per_class"] for split in ("train", "val", "test")}
    assert counts == {"train": [4] * 3, "val": [0] * 3, "test": [2] * 3}
    with pa.memory_map(str(tmp_path / "out" / "images.arrow")) as source:
        rows = pa.ipc.open_file(source).read_all().to_pylist()
    found = Counter(
        (("train", "val", "test")[row["split"]], row["label"], decode(row["image"]).tobytes()) for row in rows
    )
    assert found == Counter((*key, image.tobytes()) for key, stack in IMAGES.items() for image in stack)
