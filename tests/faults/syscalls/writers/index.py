"""The writer of indexes: the building of one from embeddings, in the worker."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.syscalls.writer import Writer, error_of
from tests.worker.indexes import embedded
from worker.encoder.search.index import Index
from worker.encoder.search.nearest import normalise
from worker.indexes.build import Options, _build, _catch_errors

_INDEX, _JOB = "indexes/idx_1/a1", "jobs/job_1/a1"
_IMAGES = embedded.draw(40)
_OPTIONS = Options(exact_rows=10**6, exact_graph_rows=10**6, memory_bytes=2**30)


def _prepare(folder: Path) -> None:
    files = embedded.write(folder / _JOB, _IMAGES)
    named = {file.name: {"path": str(file), "sha256": embedded.hash_file(file)} for file in files}
    (folder / _JOB / "sources.json").write_text(json.dumps({"files": named, "dataset": None}))


def _write(folder: Path) -> dict[str, Any]:
    return error_of(list(_catch_errors(_build(folder / _JOB / "sources.json", folder / _INDEX, _OPTIONS))))


def _look(folder: Path) -> str:
    if not (folder / _INDEX / "index.json").exists():
        return "absent"
    index = Index.open(folder / _INDEX)
    np.testing.assert_allclose(index.vectors, normalise(_IMAGES.vectors), atol=1e-7)
    assert [index.describe(row)["path"] for row in range(len(index))] == _IMAGES.paths
    assert index.neighbours.shape == index.similarities.shape == (40, 32)
    return "new"


WRITERS = (
    Writer(
        "index", "worker/indexes/build.py", _write, _look, _prepare,
        live=(_INDEX, _JOB), known=("indexes/idx_1", "jobs/job_1"),
    ),
)  # fmt: skip
