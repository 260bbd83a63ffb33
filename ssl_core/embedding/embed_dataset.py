"""The run that embeds a dataset: images decoded, encoded and written at the same time, shard by shard, and an index.

The vectors of a shard depend on its images alone: batches start anew with each shard. So a shard has the same bytes,
on the same device, whichever process computes it, and a killed run computes only those that are not there.
"""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core import events
from ssl_core.checksums import document
from ssl_core.config import EmbedDataset
from ssl_core.config.embedding import MAX_SHARDS, ShardRange, name_files, plan_shards
from ssl_core.config.requirements import no_such_layer, split_empty, too_many_shards
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_store import read_centre_crops
from ssl_core.data.prefetch import prefetch
from ssl_core.data.sampling import Rows
from ssl_core.data.split_names import SPLITS
from ssl_core.embedding import requests
from ssl_core.embedding.requests import Finish, Request
from ssl_core.embedding.shard_files import ShardFolder, Vectors
from ssl_core.embedding.shard_writer import ShardWriter
from ssl_core.errors import ConfigUnfit
from ssl_core.evaluation.features import extract_features
from ssl_core.events import Event, Progress, Result, Stopped
from ssl_core.files import write_artifact
from ssl_core.inputs import Inputs
from ssl_core.models.encoder import Encoder
from ssl_core.serialization import saved_model

INDEX = "embeddings.json"
_MOST_BATCHES = 16  # decoded at a time
_CHUNK_BYTES = 2**26  # of pixels decoded at a time, about


@dataclass(frozen=True)
class _Chunk:
    """Images of a shard, uint8 N×S×S×C."""

    shard: ShardRange
    start: int  # within the shard
    pixels: Tensor


def run_embed_dataset(config: EmbedDataset, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Embed the images and write their vectors; config: resolved. Raises RunFailure and OSError."""
    if inputs.model is None:
        raise ConfigUnfit("The embedding of a dataset needs a model.")
    dataset = Dataset.open(inputs.dataset)
    rows = _select_rows(dataset, config)
    encoder = saved_model.load(inputs.model, config.device, precision=config.precision)
    if config.layer not in encoder.layers:
        raise ConfigUnfit(no_such_layer(config.layer, encoder.layers))
    about = _build_fingerprint(config, dataset, inputs.model)
    folder = ShardFolder(directory, dataset, rows, encoder.layers[config.layer], config.dtype, about)
    run = _Run(config, inputs, encoder, folder)
    yield from run.embed_missing() if inputs.requests is None else run.embed_requested(inputs.requests)


class _Run:
    """One process's part of the run: all shards, or those that are asked of it."""

    def __init__(self, config: EmbedDataset, inputs: Inputs, encoder: Encoder, folder: ShardFolder) -> None:
        self._config, self._inputs, self._encoder, self._folder = config, inputs, encoder, folder
        self._started = time.monotonic()
        self._images = 0  # embedded by this process
        self._found = 0  # images of shards that were there
        self._total = 0
        self._finish: Finish | None = None

    def embed_missing(self) -> Iterator[Event]:
        """Embed the shards whose files are not there, and write the index."""
        plan = plan_shards(self._config.rows_per_shard, len(self._folder.rows))
        found = {shard.number: file for shard in plan if (file := self._folder.find(shard)) is not None}
        self._total, self._found = len(self._folder.rows), sum(file.rows for file in found.values())
        for event in self._embed(shard for shard in plan if shard.number not in found):
            if isinstance(event, events.Shard):
                found[event.number] = event
            yield event
        if self._inputs.stop() and len(found) < len(plan):
            yield Stopped(self._found + self._images)
            return
        yield from self._write_index(Finish(tuple(found[shard.number] for shard in plan), self._seconds), self._images)

    def embed_requested(self, lines: Iterable[Any]) -> Iterator[Event]:
        """Embed the shards of the lines, and write the index when it is asked for."""
        yield from self._embed(self._parse(lines))
        if self._finish is not None:
            yield from self._write_index(self._finish, len(self._folder.rows))
        elif self._inputs.stop():
            yield Stopped(self._images)
        else:
            yield Result({"rows": self._images})

    @property
    def _seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-9)

    def _parse(self, lines: Iterable[Any]) -> Iterator[Request | None]:
        for line in lines:
            request = None if line is None else requests.parse(line, self._folder.directory)
            if isinstance(request, ShardRange):
                self._total += request.rows
            yield request
            if isinstance(request, Finish):
                return

    def _embed(self, asked: Iterable[Request | None]) -> Iterator[Event]:
        """Yield each shard once it is written, and the progress after each chunk; ends early on a stop."""
        with closing(ShardWriter(self._folder)) as writer, closing(prefetch(self._read(asked))) as chunks:
            for chunk in chunks:
                if self._inputs.stop():
                    return
                if isinstance(chunk, _Chunk):
                    self._encode(chunk, writer)
                    yield self._report_progress()
                elif isinstance(chunk, Finish):
                    self._finish = chunk
                yield from writer.list_written()
            if not self._inputs.stop():
                yield from writer.list_written(wait=True)

    def _read(self, asked: Iterable[Request | None]) -> Iterator["_Chunk | Finish | None"]:
        """Decode the images of the shards in a thread of its own, ahead of the encoder."""
        size = self._count_chunk()
        for request in asked:
            if not isinstance(request, ShardRange):
                yield request
                continue
            for start in range(0, request.rows, size):
                first = request.first_row + start
                rows = self._folder.rows[first : min(first + size, request.first_row + request.rows)]
                pixels = read_centre_crops(self._folder.dataset, rows, self._encoder.image_size)
                yield _Chunk(request, start, pixels)

    def _count_chunk(self) -> int:
        """The number of images decoded at a time: of whole batches, so that it changes no vector."""
        batch_bytes = self._config.batch_size * self._encoder.image_size**2 * self._folder.dataset.channels
        return self._config.batch_size * min(_MOST_BATCHES, max(1, _CHUNK_BYTES // batch_bytes))

    def _encode(self, chunk: _Chunk, writer: ShardWriter) -> None:
        if chunk.start == 0:
            writer.start(chunk.shard)
        features = extract_features(self._encoder, chunk.pixels, self._config.layer, self._config.batch_size)
        writer.add(_to_vectors(features, self._config))
        self._images += len(chunk.pixels)
        if chunk.start + len(chunk.pixels) == chunk.shard.rows:
            writer.end()

    def _report_progress(self) -> Progress:
        done, seconds = self._found + self._images, self._seconds
        eta = seconds / self._images * (self._total - done)
        return Progress(0, 1, done, self._total, self._images / seconds, eta)

    def _write_index(self, finish: Finish, images: int) -> Iterator[Event]:
        """Write the index. images: those that were embedded within the seconds of `finish`."""
        index = self._build_index(finish)
        yield write_artifact(self._folder.directory, INDEX, json.dumps(index, indent=1, allow_nan=False).encode())
        rate = images / max(finish.seconds, 1e-9)
        found = {"rows": index["rows"], "dim": index["dim"], "shards": len(finish.shards)}
        yield Result(found | {"images_per_second": round(rate, 1)})

    def _build_index(self, finish: Finish) -> dict[str, Any]:
        config, inputs = self._config, self._inputs
        assert inputs.model is not None
        ids = {name: (inputs.provenance.get(name) or {}).get("id") for name in ("dataset", "model")}
        chosen = {"splits": list(config.splits)} if config.splits else {}
        return {
            "dataset": ids["dataset"] or inputs.dataset.name,
            "model": ids["model"] or inputs.model.name,
            "layer": config.layer,
            "dim": self._folder.dim,
            "dtype": config.dtype,
            "normalized": config.normalize,
            "rows": len(self._folder.rows),
            **chosen,
            "shards": [self._describe_shard(shard) for shard in finish.shards],
        }

    def _describe_shard(self, shard: events.Shard) -> dict[str, Any]:
        npy, parquet = name_files(shard.number)
        place = {"first_row": shard.first_row, "rows": shard.rows, "npy": npy, "parquet": parquet}
        entry = {**place, "npy_sha256": shard.npy_sha256, "parquet_sha256": shard.parquet_sha256}
        if self._config.splits:
            entry["row_ranges"] = self._folder.list_row_ranges(ShardRange(shard.number, shard.first_row, shard.rows))
        return entry


def _select_rows(dataset: Dataset, config: EmbedDataset) -> Rows:
    """Return the rows to embed, in the order of the dataset. Raises ConfigUnfit."""
    if config.splits is None:
        rows = np.arange(len(dataset))
    else:
        for split in config.splits:
            if not len(dataset.indices(split)):
                raise ConfigUnfit(split_empty(split))
        rows = np.flatnonzero(np.isin(dataset.splits, [SPLITS.index(split) for split in config.splits]))
    size = config.rows_per_shard
    if size != "auto" and len(rows) > size * MAX_SHARDS:
        raise ConfigUnfit(too_many_shards(size, len(rows), MAX_SHARDS))
    return rows


def _build_fingerprint(config: EmbedDataset, dataset: Dataset, model: Path) -> dict[str, Any]:
    """What identifies the run: a shard of another model, dataset or config is not one of it."""
    images = {"images": len(dataset), "dataset": dataset.report.get(document.FIELD), "mean": dataset.mean}
    return {**config.model_dump(mode="json", exclude={"workers"}), **images, "model": saved_model.compute_digest(model)}


def _to_vectors(features: Tensor, config: EmbedDataset) -> Vectors:
    """Return float32 N×D on any device as the vectors that are stored."""
    if config.normalize:
        features = F.normalize(features, dim=1)
    return features.to(getattr(torch, config.dtype)).cpu().numpy()
