"""Index building: makes an index of a job's embeddings, in a process of its own.

`python -m worker.indexes.build SOURCES.json --out DIR` is a child of the supervisor. SOURCES.json has `files`, the
absolute path and the SHA-256 of each artifact by name, and `dataset`, the folder of the dataset. A killed build
leaves no `index.json`, and the next attempt starts again in another folder.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.settings import Settings
from ssl_core.checksums import document
from ssl_core.device import count_processors
from ssl_core.errors import Corrupt, StorageFailed, StorageFull, is_out_of_memory
from ssl_core.events import Event, Failed, Result
from ssl_core.files import FULL, HashedStream, WrittenFile, describe, make_folder, write_atomic, write_stream
from worker.encoder.search import index as layout
from worker.encoder.search import inverted_lists
from worker.encoder.search.inverted_lists import InvertedLists, Tuned
from worker.encoder.search.nearest import Vectors
from worker.encoder.search.neighbours import K, build_graph
from worker.indexes.embeddings import BadEmbeddings, Embeddings, Images, StoredFile
from worker.uploads import process

EXACT_GRAPH_ROWS = 50_000  # beyond which the graph is by inverted lists: products grow as the square
SEED = 0
_EXACT = Tuned(0, 1.0)


@dataclass(frozen=True)
class Options:
    """exact_rows: vectors up to which searches are exact. memory_bytes: what the lists of more may take."""

    exact_rows: int
    exact_graph_rows: int
    memory_bytes: int


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parsed = _parse_options(arguments)
    process.stop_on_sigterm()
    threads = parsed.index_threads or count_processors()
    torch.set_num_threads(threads)
    inverted_lists.set_threads(threads)
    options = Options(parsed.index_exact_rows, EXACT_GRAPH_ROWS, parsed.index_build_bytes)
    events = _catch_errors(_build(parsed.sources, parsed.out, options))
    return process.write_events(events, None if parsed.events else _format_event)


def build(embeddings: Embeddings, out: Path, options: Options) -> dict[str, Any]:
    """Write the index to the folder, which is created, and return what `index.json` says.

    Raises BadEmbeddings, Corrupt and OSError.
    """
    started = time.monotonic()
    _check_size(embeddings, options)
    make_folder(out)
    written = [
        write_array(out / "vectors.npy", np.float32, (embeddings.rows, embeddings.dim), embeddings.read_vectors())
    ]
    images = embeddings.read_images()
    written += _write_images(out, images)
    vectors: Vectors = np.load(out / "vectors.npy", mmap_mode="c")
    lists, tuned = _build_lists(vectors, options)
    written += _write_graph(out, vectors, lists)
    is_exact = embeddings.rows <= options.exact_rows
    if lists is not None and not is_exact:
        written.append(write_atomic(out / layout.LISTS, lists.serialise()))
    about = {
        "format": layout.FORMAT,
        **{name: embeddings.about[name] for name in ("dataset", "model", "layer", "dim", "rows")},
        "classes": images.classes,
        "probes": 0 if is_exact else tuned.probes,
        "files": {file.path.name: {"sha256": file.sha256, "size_bytes": file.size_bytes} for file in written},
        "report": {
            "vectors": embeddings.rows,
            "dim": embeddings.dim,
            "labelled": int((images.labels >= 0).sum()),
            "method": "exact" if is_exact else "inverted_lists",
            "recall_at_10": 1.0 if is_exact else round(tuned.recall, 4),
            "neighbours": {"k": K, "recall_at_10": round(tuned.recall, 4)},
            "seconds": round(time.monotonic() - started, 3),
            "bytes": sum(file.size_bytes for file in written),
        },
    }
    write_atomic(out / layout.FILE, json.dumps(document.seal(about)).encode())
    return about


def write_array(
    path: Path, dtype: type[np.generic], shape: tuple[int, ...], parts: Iterable[NDArray[Any]]
) -> WrittenFile:
    """Write an .npy file of that shape from parts of its first axis. Raises OSError, and ValueError for other parts."""

    def write(stream: HashedStream) -> None:
        _write_header(stream, dtype, shape)
        length = 0
        for part in parts:
            stream.write(np.ascontiguousarray(part, dtype).data.cast("B"))
            length += len(part)
        if length != shape[0]:
            raise ValueError(f"{path.name} has {length} of {shape[0]} rows")

    return write_stream(path, write)


def _write_header(stream: HashedStream, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)


def _check_size(embeddings: Embeddings, options: Options) -> None:
    """Raise BadEmbeddings when the lists, as float16, and the file that is made of them do not fit."""
    needed = 4 * embeddings.rows * embeddings.dim if embeddings.rows > options.exact_graph_rows else 0
    if needed > options.memory_bytes:
        most = options.memory_bytes // (4 * embeddings.dim)
        detail = f"There are {embeddings.rows:,} vectors; of {embeddings.dim} values at most {most:,} are indexed."
        raise BadEmbeddings("too_many_vectors", detail)


def _write_images(out: Path, images: Images) -> list[WrittenFile]:
    count = len(images.labels)
    encoded = [path.encode() for path in images.paths]
    ends = np.fromiter(accumulate(map(len, encoded)), np.int64, count)
    return [
        write_array(out / "rows.npy", np.int64, (count,), [images.rows]),
        write_array(out / "labels.npy", np.int32, (count,), [images.labels]),
        write_array(out / "splits.npy", np.int8, (count,), [images.splits]),
        write_array(out / "path_ends.npy", np.int64, (count,), [ends]),
        write_atomic(out / layout.PATHS, b"".join(encoded)),
    ]


def _build_lists(vectors: Vectors, options: Options) -> tuple[InvertedLists | None, Tuned]:
    """Return the lists that find neighbours with enough recall, or None where products with all vectors do."""
    if len(vectors) <= min(options.exact_graph_rows, options.exact_rows):
        return None, _EXACT
    lists = InvertedLists.build(vectors, SEED)
    return lists, lists.tune(vectors, SEED)


def _write_graph(out: Path, vectors: Vectors, lists: InvertedLists | None) -> list[WrittenFile]:
    """Write both arrays of the graph at the same time: it is computed once, and need not fit into memory."""
    shape = (len(vectors), K)
    written: list[WrittenFile] = []

    def write(rows: HashedStream) -> None:
        _write_header(rows, np.int32, shape)

        def write_similarities(similarities: HashedStream) -> None:
            _write_header(similarities, np.float32, shape)
            for part in build_graph(vectors, lists):
                rows.write(part.rows.data.cast("B"))
                similarities.write(np.ascontiguousarray(part.similarities).data.cast("B"))

        written.append(write_stream(out / "similarities.npy", write_similarities))

    written.append(write_stream(out / "neighbours.npy", write))
    return written


def _build(sources: Path, out: Path, options: Options) -> Iterator[Event]:
    named = json.loads(sources.read_bytes())
    files = {name: StoredFile(Path(file["path"]), file["sha256"]) for name, file in named["files"].items()}
    embeddings = Embeddings(files, Path(named["dataset"]) if named["dataset"] else None)
    about = build(embeddings, out, options)
    yield Result({**about["report"], "layer": about["layer"]})


def _catch_errors(events: Iterator[Event]) -> Iterator[Event]:
    """Yield the events, and a Failed event for an exception that another attempt may or may not meet again."""
    try:
        yield from events
    except BadEmbeddings as error:
        yield Failed(error.code, str(error))
    except Corrupt as error:
        yield Failed(error.code, str(error), data=error.data)
    except OSError as error:
        code = StorageFull.code if error.errno in FULL else StorageFailed.code
        yield Failed(code, f"The index could not be written: {describe(error)}.", retry=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        yield Failed("out_of_memory", "There is not enough memory to build this index.")


def _format_event(event: Any) -> str:
    return f"{json.dumps(event.summary if isinstance(event, Result) else asdict(event))}\n"


def _parse_options(arguments: list[str] | None) -> argparse.Namespace:
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m worker.indexes.build", description="Index a job's embeddings.")
    parser.add_argument("sources", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the index")
    parser.add_argument("--events", action="store_true", help="write events as JSON lines")
    for name in ("index_exact_rows", "index_threads", "index_build_bytes"):
        default = getattr(settings, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
