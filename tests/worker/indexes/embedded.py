"""Embeddings of a dataset as a succeeded job of kind `embed_dataset` leaves them, and the job's row."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.db import ids
from service.db.models import Artifact, Job
from service.db.session import Database, now
from service.storage import Storage
from ssl_core.data.split_names import SPLITS


@dataclass
class Images:
    """Vectors N×D with the label (a name or None), split and path of each row."""

    vectors: np.ndarray
    labels: list[str | None]
    splits: list[str]
    paths: list[str]
    rows: list[int] | None = None  # of the dataset; None: all


def draw(count: int, dim: int = 16, classes: int = 4, seed: int = 0, unlabelled: float = 0.25) -> Images:
    """Draw clustered vectors; the rows are sorted by split and class, those without a label first."""
    rng = np.random.default_rng(seed)
    splits = np.sort(rng.integers(0, 3, count))
    labels = np.where(rng.random(count) < unlabelled, -1, rng.integers(0, classes, count))
    order = np.lexsort((labels, splits))
    splits, labels = splits[order], labels[order]
    centres = rng.standard_normal((classes, dim)) * 2
    true = np.where(labels < 0, rng.integers(0, classes, count), labels)
    vectors = (centres[true] + rng.standard_normal((count, dim))).astype(np.float32)
    names = [None if label < 0 else f"klässe {label}" for label in labels]
    paths = [f"bilder/ü {row}.png" for row in range(count)]
    return Images(vectors, names, [SPLITS[split] for split in splits], paths)


def write(folder: Path, images: Images, *, shard_rows: int = 300, dtype: str = "float32", **about: Any) -> list[Path]:
    """Write the files of the embeddings, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    files, shards = [], []
    for number, start in enumerate(range(0, len(images.vectors), shard_rows)):
        rows = range(start, min(start + shard_rows, len(images.vectors)))
        vectors = images.vectors[rows.start : rows.stop].astype(dtype)
        npy, parquet = (folder / f"embeddings-{number:05d}.{ending}" for ending in ("npy", "parquet"))
        np.save(npy, vectors)
        columns = {
            "row": list(rows if images.rows is None else images.rows[rows.start : rows.stop]),
            "path": images.paths[rows.start : rows.stop],
            "label": pa.array(images.labels[rows.start : rows.stop], pa.string()),
            "split": images.splits[rows.start : rows.stop],
            "vector": list(vectors),
        }
        pq.write_table(pa.table(columns), parquet)
        hashes = {"npy_sha256": hash_file(npy), "parquet_sha256": hash_file(parquet)}
        shards.append({"first_row": start, "rows": len(rows), "npy": npy.name, "parquet": parquet.name, **hashes})
        files += [npy, parquet]
    count, dim = images.vectors.shape
    document = {"dataset": "ds_a", "model": "mdl_a", "layer": "backbone", "dim": dim, "dtype": dtype}
    document |= {"normalized": False, "rows": count, "shards": shards, **about}
    (folder / "embeddings.json").write_text(json.dumps(document))
    return [*files, folder / "embeddings.json"]


def add_job(
    database: Database,
    storage: Storage,
    tenant: str,
    images: Images,
    *,
    dataset: str | None = None,
    model: str | None = None,
    status: str = "succeeded",
    **about: Any,
) -> str:
    """Write the embeddings, and insert the job that has left them; return its id."""
    job = ids.new("job")
    files = write(storage.attempt_dir(job, 1), images, **about)
    with database.writing() as session:
        session.add(
            Job(
                id=job, tenant_id=tenant, kind="embed_dataset", queue="train", dataset_id=dataset, model_id=model,
                config={"layer": about.get("layer", "backbone")}, user_metadata={}, priority=0, status=status,
                created_at=now(), attempt=1,
            )
        )  # fmt: skip
        session.flush()
        for file in files:
            session.add(
                Artifact(
                    job_id=job, name=file.name, path=storage.relative(file), media_type="application/octet-stream",
                    sha256=hash_file(file), size_bytes=file.stat().st_size, created_at=now(),
                )
            )  # fmt: skip
    return job


def hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
