"""Indexes of clustered vectors: how long they take to build, and questions to be answered, with their recall.

`python -m benchmarks.search 10000 200000 --dim 128 --threads 1 --out DIR` prints a row of benchmarks/search.md for each
number of vectors. All is done in this process, as by `worker.indexes.build` and by the encoder: without HTTP. Times are
those of the processor, which other programs on the machine hardly change; with one thread they are those of a clock.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from service.indexes.queries import Duplicates, Labels, Nearest, Outliers, Selection
from service.settings import Settings
from worker.encoder.search import inverted_lists
from worker.encoder.search.answers import answer
from worker.encoder.search.index import Index
from worker.indexes.build import EXACT_GRAPH_ROWS, Options, build
from worker.indexes.embeddings import Embeddings, StoredFile

SHARD_ROWS = 100_000
CLASSES = 1000
QUERIES = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=int, nargs="+", help="numbers of vectors")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files; it is emptied")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    inverted_lists.set_threads(options.threads)
    for count in options.counts:
        print(json.dumps(measure(count, options.dim, options.out / str(count))), flush=True)


def measure(count: int, dim: int, folder: Path) -> dict[str, object]:
    """Return the figures of an index of so many vectors."""
    shutil.rmtree(folder, ignore_errors=True)
    embeddings = Embeddings(write_embeddings(count, dim, folder / "embeddings"), None)
    settings = Settings(_env_file=None)
    limits = Options(settings.index_exact_rows, EXACT_GRAPH_ROWS, settings.index_build_bytes)
    started = time.process_time()
    about = build(embeddings, folder / "index", limits)
    built = time.process_time() - started
    shutil.rmtree(folder / "embeddings")
    index = Index.open(folder / "index")
    rng = np.random.default_rng(1)
    rows = [int(row) for row in rng.integers(0, count, QUERIES)]

    def ask(query) -> float:
        begun = time.process_time()
        answer(query, index, None, 10**15)
        return time.process_time() - begun

    ask(Nearest(row=0))
    searches = [ask(Nearest(row=row)) for row in rows]
    filtered = [ask(Nearest(row=row, split="val")) for row in rows[:10]]
    figures = {
        "vectors": count,
        "dim": dim,
        "method": about["report"]["method"],
        "build_s": round(built, 1),
        "bytes_per_vector": round(about["report"]["bytes"] / count),
        "probes": about["probes"],
        "recall": about["report"]["recall_at_10"],
        "graph_recall": about["report"]["neighbours"]["recall_at_10"],
        "search_ms": round(1000 * statistics.median(searches), 2),
        "search_split_ms": round(1000 * statistics.median(filtered), 2),
        "duplicates_s": round(ask(Duplicates(threshold=0.95)), 3),
        "outliers_s": round(ask(Outliers()), 3),
        "select_100_s": round(ask(Selection(n=100)), 2),
        "labels_100_s": round(ask(Labels(limit=100)), 2),
    }
    shutil.rmtree(folder)
    return figures


def write_embeddings(count: int, dim: int, folder: Path) -> dict[str, StoredFile]:
    """Write clustered vectors, a tenth of them without a label, and return the files by name."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, dim), np.float32)
    shards = []
    for number, start in enumerate(range(0, count, SHARD_ROWS)):
        rows = np.arange(start, min(start + SHARD_ROWS, count))
        classes = rng.integers(0, CLASSES, len(rows))
        vectors = centres[classes] + 1.5 * rng.standard_normal((len(rows), dim), np.float32)
        names = {"npy": f"embeddings-{number:05d}.npy", "parquet": f"embeddings-{number:05d}.parquet"}
        np.save(folder / names["npy"], vectors)
        labels = np.where(rng.random(len(rows)) < 0.1, None, classes.astype(str))
        splits = np.array(["train", "val", "test"])[np.minimum(rows * 3 // count, 2)]
        paths = [f"images/{row}.png" for row in rows]
        table = pa.table({"row": rows, "path": paths, "label": pa.array(labels, pa.string()), "split": splits})
        pq.write_table(table, folder / names["parquet"])
        shards.append({"first_row": start, "rows": len(rows), **names})
    about = {"dataset": "ds", "model": "mdl", "layer": "backbone", "dim": dim, "rows": count, "shards": shards}
    (folder / "embeddings.json").write_text(json.dumps(about))
    return {path.name: StoredFile(path, hash_file(path)) for path in folder.iterdir()}


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
