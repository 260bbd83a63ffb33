"""The client: the HTTP interface of the service as Python methods.

    client = Client()
    dataset = client.datasets.wait(client.datasets.upload("photos.zip"))
    run = client.jobs.wait(client.jobs.submit(dataset=dataset, config={"method": {"name": "simclr"}}))
    vectors = client.embed(run.model_id, ["cat.jpg", "dog.jpg"])

An id may be given as a string or as the value that has it. Every call may raise `ApiError` and `CannotReach`.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from twoviews import credentials, download, embeddings, image_bytes, upload
from twoviews.errors import DatasetFailed, IndexFailed, JobFailed, SweepFailed, WaitTimeout
from twoviews.image_bytes import Image
from twoviews.transport import Transport
from twoviews.values import Dataset, Index, Job, JobStatus, Json, Key, Metrics, Model, Sweep, Update, Value

Ref = str | Value
MAX_POINTS = 10_000  # of each series in one response


class Client:
    """A connection to the service; safe to share between threads. Close it, or use it in a `with` block."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        data_dir: str | Path | None = None,
        timeout_seconds: float = 60,
        retries: int = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect to `url` with `key`; for the defaults, from `data_dir` or the environment, see `credentials.find`."""
        found = credentials.find(url, key, Path(data_dir) if data_dir else None)
        self._transport = Transport(found, timeout_seconds=timeout_seconds, retries=retries, transport=transport)
        self.url = found.url
        self.datasets = Datasets(self._transport)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)
        self.indexes = Indexes(self._transport)
        self.sweeps = Sweeps(self._transport)
        self.keys = Keys(self._transport)

    def embed(
        self, model: Ref, images: Image | Iterable[Image], *, layer: str = "backbone", batch: int = 64
    ) -> list[embeddings.Row]:
        """Return one float32 row per image, in order: of one image, or of each of an iterable.

        An image is a path, the bytes of a file, a Pillow image, or a uint8 array of H×W or H×W×3; an array of N×H×W×3
        is N images. `numpy.array(rows)` has shape N×D. Raises TypeError for anything else. Images are
        read and sent `batch` at a time.
        """
        return list(embeddings.embed(self._transport, id_of(model), images, layer, batch))

    def embed_dataset(self, model: Ref, dataset: Ref, *, name: str | None = None, **config: Any) -> Job:
        """Submit a job that embeds every image of a dataset. `jobs.download` saves its shards and `embeddings.json`.

        config: `layer`, `splits`, `dtype`, `normalize`, `rows_per_shard`, `workers` and others (docs/embed_dataset.md).
        """
        return self.jobs.submit(kind="embed_dataset", dataset=dataset, model=model, name=name, config=config)

    def methods(self) -> Sequence[Json]:
        """Return the training methods, each with its defaults and its JSON schema."""
        return tuple(self._transport.pages("/methods"))

    def backbones(self) -> Sequence[Json]:
        """Return the backbones."""
        return tuple(self._transport.pages("/backbones"))

    def recipes(self) -> Sequence[Json]:
        """Return the recipes: complete configs by name."""
        return tuple(self._transport.pages("/recipes"))

    def leaderboard(
        self, dataset: Ref, *, protocol: str | None = None, labels: float | None = None, limit: int = 20
    ) -> Sequence[Json]:
        """Return the models that were evaluated on a dataset, by accuracy, in groups that can be compared.

        A group has `protocol`, `description`, `labels`, and `entries` with `rank`, `top1`, `model` and more.
        protocol: a kind of evaluation, such as `linear_eval`; limit: models of each group.
        """
        chosen = {"dataset": id_of(dataset), "protocol": protocol, "labels": labels, "limit": limit}
        return tuple(self._transport.pages("/leaderboard", **chosen))

    def usage(self) -> Json:
        """Return what the key's owner uses and may use: `jobs`, `uploads`, `bytes`, `requests_per_minute`."""
        return dict(self._transport.get("/usage"))

    def audit(
        self, *, action: str | None = None, key: Ref | None = None, since: datetime | str | None = None
    ) -> Iterator[Json]:
        """Yield the owner's audit trail, newest first: `{at, action, target, key, key_name, address, …}`.

        `action` is one such as `key.create`, `key` that of one key; `since` is RFC 3339 or a `datetime` with a time
        zone. Pages are fetched on demand.
        """
        start = since.isoformat() if isinstance(since, datetime) else since
        return self._transport.pages("/audit", action=action, key=id_of(key) if key else None, since=start)

    def close(self) -> None:
        """Close the connection; later calls raise."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Datasets:
    """`client.datasets`: uploads."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        on_bad_file: str = "reject",
        progress: upload.Progress | None = None,
        **reading: str | float | bool,
    ) -> Dataset:
        """Upload an archive, or a folder, which is packed first; `wait` returns the dataset once it is ready.

        `progress(sent, total)` gets numbers of bytes. `on_bad_file` is `reject` or `skip`. reading: other fields of
        `POST /datasets`, such as `strict=True`, `layout="flat"` or `label_column="breed"`.
        """
        source = Path(path)
        fields = {"name": name or source.resolve().name, "on_bad_file": on_bad_file}
        fields |= {
            field: str(value).lower() if isinstance(value, bool) else str(value) for field, value in reading.items()
        }
        with upload.pack(source) as packed, upload.ProgressReader(packed, progress) as file:
            parts = {"file": (packed.name, file, "application/octet-stream")}
            return Dataset.of(self._transport.create("/datasets", data=fields, files=parts))

    def get(self, dataset: Ref) -> Dataset:
        """Return a dataset."""
        return Dataset.of(self._transport.get(f"/datasets/{id_of(dataset)}"))

    def list(self, *, status: str | None = None) -> Iterator[Dataset]:
        """Yield datasets, newest first; pages are fetched on demand."""
        return map(Dataset.of, self._transport.pages("/datasets", status=status))

    def wait(self, dataset: Ref, *, timeout_seconds: float | None = None) -> Dataset:
        """Return the dataset once it is ready. Raises DatasetFailed, and WaitTimeout after `timeout_seconds`."""
        for pause in _poll_pauses(timeout_seconds, f"The dataset {id_of(dataset)} is still being validated."):
            found = self.get(dataset)
            if found.status == "failed":
                raise DatasetFailed(found.id, found.error)
            if found.status == "ready":
                return found
            time.sleep(pause)
        raise AssertionError("_poll_pauses raises WaitTimeout")

    def images(
        self,
        dataset: Ref,
        split: str | None = None,
        label: str | None = None,
        sample: int | None = None,
        seed: int = 0,
    ) -> Iterator[Json]:
        """Yield the images by row: `{row, split, label, width, height, name, url}`; pages are fetched on demand.

        Of `split` (train, val or test) and of the class with the name `label`, if they are given; `sample` draws so
        many of these at random, the same ones for the same `seed`.
        """
        chosen = {"split": split, "class": label, "sample": sample, "seed": None if sample is None else seed}
        return self._transport.pages(f"/datasets/{id_of(dataset)}/images", **chosen)

    def thumbnail(self, dataset: Ref, row: int, size: int = 128) -> bytes:
        """Return an image of a ready dataset as a JPEG whose longer side has at most `size` pixels, 16 to 512."""
        return self._transport.send("GET", f"/datasets/{id_of(dataset)}/images/{row}", params={"size": size}).content

    def delete(self, dataset: Ref) -> None:
        """Delete a dataset. Refused while a job that has not ended uses it."""
        self._transport.send("DELETE", f"/datasets/{id_of(dataset)}", safe=False)


class Jobs:
    """`client.jobs`: training, evaluation and export jobs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(
        self,
        *,
        dataset: Ref,
        kind: str = "pretrain",
        config: Mapping[str, Any] | None = None,
        model: Ref | None = None,
        name: str | None = None,
        priority: int = 0,
        metadata: Mapping[str, str] | None = None,
        max_runtime: int | None = None,
    ) -> Job:
        """Submit a job. `model` is a model, or a job that has yet to make one: the new job waits for it.

        max_runtime: seconds for which the job may run in all; then it fails, with a last checkpoint.
        """
        body: dict[str, Any] = {"kind": kind, "dataset": id_of(dataset), "config": dict(config or {})}
        body |= {"priority": priority, "metadata": dict(metadata or {})}
        body |= {"max_runtime": max_runtime} if max_runtime is not None else {}
        body |= {"model": id_of(model)} if model else {}
        body |= {"name": name} if name else {}
        return Job.of(self._transport.create("/jobs", json=body))

    def get(self, job: Ref) -> Job:
        """Return a job."""
        return Job.of(self._transport.get(f"/jobs/{id_of(job)}"))

    def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        dataset: Ref | None = None,
        sweep: Ref | None = None,
    ) -> Iterator[Job]:
        """Yield jobs, newest first; pages are fetched on demand."""
        chosen = {"dataset": id_of(dataset) if dataset else None, "sweep": id_of(sweep) if sweep else None}
        return map(Job.of, self._transport.pages("/jobs", status=status, kind=kind, **chosen))

    def cancel(self, job: Ref) -> Job:
        """Cancel a job; it keeps its checkpoints. A job that has ended stays as it is."""
        return self._steer(job, "cancel")

    def pause(self, job: Ref) -> Job:
        """Pause a job: it keeps its checkpoints and frees its worker. Refused for a job that has ended."""
        return self._steer(job, "pause")

    def resume(self, job: Ref) -> Job:
        """Queue a paused job again; it goes on from its last checkpoint. Refused for a job that has ended."""
        return self._steer(job, "resume")

    def retry(self, job: Ref, *, start: Literal["checkpoint", "start"] = "checkpoint") -> Job:
        """Queue a job that has failed or was cancelled again. From the start, its checkpoints, metrics and artifacts
        are deleted. Refused for a job that has succeeded.
        """
        return self._steer(job, "retry", {"start": start})

    def clone(
        self,
        job: Ref,
        *,
        config: Mapping[str, Any] | None = None,
        dataset: Ref | None = None,
        model: Ref | None = None,
        **fields: Any,
    ) -> Job:
        """Submit a job like another. `config` has changes, merged as in RFC 7396: None sets a field to its default.

        fields: `name`, `priority`, `metadata` and `max_runtime`.
        """
        body = {"config": dict(config or {}), **fields}
        body |= {name: id_of(ref) for name, ref in (("dataset", dataset), ("model", model)) if ref is not None}
        return Job.of(self._transport.create(f"/jobs/{id_of(job)}/clone", json=body))

    def change(self, job: Ref, **fields: Any) -> Job:
        """Change the `name` or the `metadata` of a job, or the `priority` of one that has not run."""
        return Job.of(self._transport.send("PATCH", f"/jobs/{id_of(job)}", json=fields).json())

    def delete(self, job: Ref) -> None:
        """Delete a job that has ended, with all that it has left but its model, which has to be deleted first."""
        self._transport.send("DELETE", f"/jobs/{id_of(job)}", safe=False)

    def _steer(self, job: Ref, verb: str, body: Json | None = None) -> Job:
        return Job.of(self._transport.send("POST", f"/jobs/{id_of(job)}/{verb}", json=body).json())

    def wait(self, job: Ref, *, timeout_seconds: float | None = None) -> Job:
        """Return the job once it has succeeded. Raises JobFailed, and WaitTimeout after `timeout_seconds`."""
        for pause in _poll_pauses(timeout_seconds, f"The job {id_of(job)} has not ended."):
            found = self.get(job)
            if found.done:
                return require_success(found)
            time.sleep(pause)
        raise AssertionError("_poll_pauses raises WaitTimeout")

    def watch(self, job: Ref, *, names: Sequence[str] = (), poll_seconds: float = 2) -> Iterator[Update]:
        """Yield the job and its new metric points until it has ended; no point is missed or repeated."""
        last = 0
        while True:
            found = self.get(job)
            wait = None if found.done else poll_seconds
            fresh = self.metrics(found, names, after=last, max_points=MAX_POINTS, wait_seconds=wait)
            last = max(last, fresh.last)
            yield Update(found, fresh)
            if found.done:
                return

    def metrics(
        self,
        job: Ref,
        names: Sequence[str] = (),
        *,
        after: int | None = None,
        max_points: int | None = None,
        wait_seconds: float | None = None,
    ) -> Metrics:
        """Return series by name (all by default), downsampled to `max_points` each, with the first and the last.

        `after` is the `last` of an earlier result; with `wait_seconds` the call waits for newer points.
        """
        wanted = {"names": ",".join(names) or None, "after": after, "max_points": max_points, "wait": wait_seconds}
        return Metrics.of(self._transport.get(f"/jobs/{id_of(job)}/metrics", **wanted))

    def stream_metrics(self, job: Ref, names: Sequence[str] = (), *, after: int | None = None) -> Iterator[Json]:
        """Yield the job's points, of all series or of `names`, and new ones as they are stored, until it has ended.

        Each item is `{series: [{name, step, epoch, time, value}], last}`, with columns of equal length. No point is
        missed or repeated when the connection breaks; `after` is the `last` of an earlier item.
        """
        return self._stream(f"/jobs/{id_of(job)}/metrics/stream", names=",".join(names) or None, after=after)

    def compare(self, jobs: Iterable[Ref], names: Sequence[str] = (), *, max_points: int | None = None) -> Json:
        """Return at most 20 jobs side by side: `{jobs: [{id, summary, series, …}], differences: [{pointer, values}]}`.

        `differences` has each field that differs in their resolved configs, with its values by job id.
        """
        wanted = {"names": ",".join(names) or None, "max_points": max_points}
        return dict(self._transport.get("/jobs/compare", ids=",".join(map(id_of, jobs)), **wanted))

    def events(self, job: Ref, *, after: int | None = None) -> Iterator[Json]:
        """Yield the job's events, oldest first: `{seq, time, level, code, message, data}`."""
        return self._transport.pages(f"/jobs/{id_of(job)}/events", after=after)

    def stream_events(self, job: Ref, *, after: int | None = None) -> Iterator[Json]:
        """Yield the job's events, and new ones as they are stored, until the job has ended."""
        return self._stream(f"/jobs/{id_of(job)}/events/stream", after=after)

    def _stream(self, path: str, **params: Any) -> Iterator[Json]:
        """Yield the data of the messages of a stream but for that of `done`."""
        messages = self._transport.messages(path, **params)
        return (message.json() for message in messages if message.event != "done")

    def checkpoints(self, job: Ref) -> Sequence[Json]:
        """Return the job's checkpoints, each with its step and metrics."""
        return tuple(self._transport.pages(f"/jobs/{id_of(job)}/checkpoints"))

    def artifacts(self, job: Ref) -> Sequence[Json]:
        """Return the job's artifacts: `{name, media_type, sha256, size_bytes, created_at, url}`."""
        return tuple(self._transport.pages(f"/jobs/{id_of(job)}/artifacts"))

    def artifact(self, job: Ref, name: str) -> bytes:
        """Return the content of an artifact."""
        return self._transport.send("GET", f"/jobs/{id_of(job)}/artifacts/{quote(name, safe='')}").content

    def download(self, job: Ref, folder: str | Path) -> Sequence[Path]:
        """Save the job's artifacts in the folder, which is created if necessary, and return their paths.

        Files are written atomically. Raises Corrupt when a file does not have the expected SHA-256.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        return tuple(self._save(job, item, Path(folder)) for item in self.artifacts(job))

    def _save(self, job: Ref, item: Json, folder: Path) -> Path:
        path = folder / download.check_file_name(item["name"])
        with self._transport.stream(f"/jobs/{id_of(job)}/artifacts/{quote(item['name'], safe='')}") as answer:
            return download.save(answer, path, item["sha256"], None)


class Models:
    """`client.models`: trained encoders."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        progress: upload.Progress | None = None,
    ) -> Job:
        """Upload pretrained weights: safetensors, or tensors written by torch.save.

        Returns the job that makes a model of them; `client.jobs.wait` waits for it. `config` sets what the weights do
        not contain: `backbone`, `stem`, `image_size`, `mean`, `std`. `progress(sent, total)` gets numbers of bytes.
        """
        source = upload.require_file(Path(path))
        fields = {"name": name or source.name, "config": json.dumps(dict(config or {}))}
        with upload.ProgressReader(source, progress) as file:
            parts = {"file": (source.name, file, "application/octet-stream")}
            return Job.of(self._transport.create("/models", data=fields, files=parts))

    def list(self) -> Iterator[Model]:
        """Yield models, newest first; pages are fetched on demand."""
        return map(Model.of, self._transport.pages("/models"))

    def get(self, model: Ref) -> Model:
        """Return a model, by its id, an alias, or the id of the job that made it."""
        return Model.of(self._transport.get(f"/models/{id_of(model)}"))

    def delete(self, model: Ref) -> None:
        """Delete a model. Refused while a job that has not ended uses it, or an alias names it."""
        self._transport.send("DELETE", f"/models/{id_of(model)}", safe=False)

    def alias(self, name: str, model: Ref) -> Json:
        """Give a model the alias `name`, or move it there: `{name, model, created_at, moved_at}`."""
        answer = self._transport.send("PUT", f"/aliases/{id_of(name)}", json={"model": id_of(model)})
        return dict(answer.json())

    def aliases(self) -> Iterator[Json]:
        """Yield the aliases by name, as `alias` returns them; pages are fetched on demand."""
        return self._transport.pages("/aliases")

    def delete_alias(self, name: str) -> None:
        """Delete an alias; the model stays."""
        self._transport.send("DELETE", f"/aliases/{id_of(name)}", safe=False)

    def download(
        self, model: Ref, target: str | Path, *, file: str = "weights", progress: upload.Progress | None = None
    ) -> Path:
        """Save `weights`, `heads`, `card` or `readme` as `target`, or in the folder `target`; return the path.

        Missing folders are created; to be one of them, `target` ends with a slash. The file is written atomically.
        Raises Corrupt when weights do not have the model's SHA-256.
        """
        found = self.get(model)
        path = download.target_path(target, found.id, file)
        with self._transport.stream(f"/models/{found.id}/download", file=file) as answer:
            return download.save(answer, path, found.sha256 if file == "weights" else None, progress)


class Indexes:
    """`client.indexes`: indexes of the embeddings of datasets, and what is found in them.

    An image of a result is `{row, label, split, path, urls}`, with the similarity, distance or label that was found.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, job: Ref, *, name: str | None = None, metadata: Mapping[str, str] | None = None) -> Index:
        """Index the embeddings that an `embed_dataset` job has left; `wait` returns the index once it is ready."""
        body: dict[str, Any] = {"job": id_of(job), "metadata": dict(metadata or {})}
        return Index.of(self._transport.create("/indexes", json=body | ({"name": name} if name else {})))

    def get(self, index: Ref) -> Index:
        """Return an index."""
        return Index.of(self._transport.get(f"/indexes/{id_of(index)}"))

    def list(self, *, status: str | None = None, dataset: Ref | None = None) -> Iterator[Index]:
        """Yield indexes, newest first; pages are fetched on demand."""
        dataset_id = id_of(dataset) if dataset else None
        return map(Index.of, self._transport.pages("/indexes", status=status, dataset=dataset_id))

    def wait(self, index: Ref, *, timeout_seconds: float | None = None) -> Index:
        """Return the index once it is ready. Raises IndexFailed, and WaitTimeout after `timeout_seconds`."""
        for pause in _poll_pauses(timeout_seconds, f"The index {id_of(index)} is still being built."):
            found = self.get(index)
            if found.status == "failed":
                raise IndexFailed(found.id, found.error)
            if found.status == "ready":
                return found
            time.sleep(pause)
        raise AssertionError("_poll_pauses raises WaitTimeout")

    def delete(self, index: Ref) -> None:
        """Delete an index; the embeddings stay with their job."""
        self._transport.send("DELETE", f"/indexes/{id_of(index)}", safe=False)

    def search(
        self,
        index: Ref,
        *,
        row: int | None = None,
        vector: Iterable[float] | None = None,
        image: Image | None = None,
        k: int = 10,
        split: str | None = None,
        label: str | None = None,
        exclude_self: bool = True,
    ) -> Sequence[Json]:
        """Return the k images that are nearest to a row of the index, a vector or an image, each with its `similarity`.

        Only images of `split` and of the class `label`, if they are given. An image is what `Client.embed` takes.
        """
        path, filters = f"/indexes/{id_of(index)}/search", {"split": split, "label": label}
        fields: dict[str, Any] = {"k": k} | {name: value for name, value in filters.items() if value is not None}
        if image is not None:
            file = ("image", image_bytes.read(image), "application/octet-stream")
            return tuple(self._transport.send("POST", path, data=fields, files={"image": file}).json()["data"])
        fields |= {"row": row, "exclude_self": exclude_self} if row is not None else {}
        fields |= {"vector": [float(number) for number in vector]} if vector is not None else {}
        return tuple(self._transport.send("POST", path, json=fields).json()["data"])

    def duplicates(
        self, index: Ref, *, threshold: float = 0.95, limit: int = 100, across_splits: bool = False
    ) -> Sequence[Json]:
        """Return pairs of images that are nearly the same, the most similar first: `{similarity, images}`.

        across_splits: only pairs of images in different splits.
        """
        asked = {"threshold": threshold, "limit": limit, "across_splits": across_splits}
        return tuple(self._transport.get(f"/indexes/{id_of(index)}/duplicates", **asked)["data"])

    def outliers(
        self, index: Ref, *, k: int = 10, limit: int = 100, split: str | None = None, label: str | None = None
    ) -> Sequence[Json]:
        """Return images by their mean `distance` to their k nearest others, the farthest first."""
        asked = {"k": k, "limit": limit, "split": split, "label": label}
        return tuple(self._transport.get(f"/indexes/{id_of(index)}/outliers", **asked)["data"])

    def select(
        self,
        index: Ref,
        n: int,
        *,
        seed: int = 0,
        start: int | None = None,
        split: str | None = None,
        unlabelled: bool = False,
    ) -> Sequence[Json]:
        """Return n images that cover the others, each the farthest from those before it, with the `radius` they cover.

        start: the row of the first, otherwise drawn by `seed`. unlabelled: only images without a label; those with one
        count as selected before.
        """
        asked = {"n": n, "seed": seed, "start": start, "split": split, "unlabelled": unlabelled}
        return tuple(self._transport.get(f"/indexes/{id_of(index)}/select", **asked)["data"])

    def labels(
        self,
        index: Ref,
        *,
        k: int = 20,
        temperature: float = 0.1,
        split: str | None = None,
        rows: Sequence[int] | None = None,
        limit: int = 100,
    ) -> Iterator[Json]:
        """Yield the images without a label, or those of `rows`, with the label `predicted` and its `confidence`.

        The k nearest labelled images vote. Pages of `limit` images are fetched on demand.
        """
        asked = {"k": k, "temperature": temperature, "split": split, "rows": rows, "limit": limit}
        return self._transport.pages(f"/indexes/{id_of(index)}/labels", **asked)


class Sweeps:
    """`client.sweeps`: jobs that differ in some fields of their config, the best of which is found."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        dataset: Ref,
        space: Mapping[str, Mapping[str, Any]],
        kind: str = "pretrain",
        config: Mapping[str, Any] | None = None,
        model: Ref | None = None,
        search: str = "grid",
        trials: int | None = None,
        **options: Any,
    ) -> Sweep:
        """Start a sweep; `wait` returns it once every trial has ended.

        space: for each field that differs, by its JSON pointer into the config, `{"values": […]}`, or a range,
        `{"low": 0.01, "high": 1, "log": True}`. search: `grid`, every combination, or `random`, so many `trials`.
        options: other fields of `POST /sweeps`: seed, parallel, metric, goal, pruner, name, priority, metadata,
        max_runtime.
        """
        body: dict[str, Any] = {"kind": kind, "dataset": id_of(dataset), "config": dict(config or {})}
        body |= {"space": {pointer: dict(choices) for pointer, choices in space.items()}, "search": search}
        body |= {"trials": trials} if trials is not None else {}
        body |= {"model": id_of(model)} if model else {}
        return Sweep.of(self._transport.create("/sweeps", json=body | options))

    def get(self, sweep: Ref) -> Sweep:
        """Return a sweep."""
        return Sweep.of(self._transport.get(f"/sweeps/{id_of(sweep)}"))

    def list(self, *, status: str | None = None, dataset: Ref | None = None) -> Iterator[Sweep]:
        """Yield sweeps, newest first; pages are fetched on demand."""
        dataset_id = id_of(dataset) if dataset else None
        return map(Sweep.of, self._transport.pages("/sweeps", status=status, dataset=dataset_id))

    def trials(self, sweep: Ref) -> Iterator[Json]:
        """Yield the trials of a sweep by number: `{number, state, params, value, job, model, error}`."""
        return self._transport.pages(f"/sweeps/{id_of(sweep)}/trials")

    def wait(self, sweep: Ref, *, timeout_seconds: float | None = None) -> Sweep:
        """Return the sweep once it has succeeded. Raises SweepFailed, and WaitTimeout after `timeout_seconds`."""
        for pause in _poll_pauses(timeout_seconds, f"The sweep {id_of(sweep)} has not ended."):
            found = self.get(sweep)
            if found.status == "succeeded":
                return found
            if found.done:
                raise SweepFailed(found.id, found.status, found.error)
            time.sleep(pause)
        raise AssertionError("_poll_pauses raises WaitTimeout")

    def pause(self, sweep: Ref) -> Sweep:
        """Pause a sweep and its jobs."""
        return self._send(sweep, "pause")

    def resume(self, sweep: Ref) -> Sweep:
        """Resume a paused sweep and its jobs."""
        return self._send(sweep, "resume")

    def cancel(self, sweep: Ref) -> Sweep:
        """Cancel a sweep and those of its jobs that have not ended."""
        return self._send(sweep, "cancel")

    def delete(self, sweep: Ref) -> None:
        """Delete a sweep; its jobs stay, and those that have not ended are cancelled."""
        self._transport.send("DELETE", f"/sweeps/{id_of(sweep)}", safe=False)

    def _send(self, sweep: Ref, verb: str) -> Sweep:
        return Sweep.of(self._transport.send("POST", f"/sweeps/{id_of(sweep)}/{verb}").json())


class Keys:
    """`client.keys`: API keys."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str,
        *,
        scopes: Sequence[str] | None = None,
        expires_in_days: int | None = None,
        expires_at: datetime | str | None = None,
    ) -> Key:
        """Create a key; only this result has the secret, as `key`.

        `scopes` are some of `read`, `embed`, `train` and `admin`, by default those of the client's own key. The expiry
        is that of the client's own key, unless given in days or as a time, RFC 3339 or a `datetime` with a time zone.
        """
        body: dict[str, Any] = {"name": name}
        body |= {"scopes": [*scopes]} if scopes is not None else {}
        body |= {"expires_in_days": expires_in_days} if expires_in_days is not None else {}
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat() if isinstance(expires_at, datetime) else expires_at
        return Key.of(self._transport.create("/keys", json=body))

    def list(self) -> Iterator[Key]:
        """Yield keys, newest first, with revoked ones and without secrets."""
        return map(Key.of, self._transport.pages("/keys"))

    def revoke(self, key: Ref) -> None:
        """Revoke a key."""
        self._transport.send("DELETE", f"/keys/{id_of(key)}", safe=False)

    def sign_in_address(self) -> str:
        """Return an address that signs a browser in to the page, once, within 15 minutes.

        The session has the scopes of the client's own key, which needs `admin`, and lasts at most a day.
        """
        token = self._transport.send("POST", "/sessions/tokens", safe=False).json()["token"]
        return f"{self._transport.url}/#token={token}"


def id_of(thing: Ref) -> str:
    """Return the id, or the alias of a model, which is safe in a URL path. Raises ValueError."""
    name = thing.id if isinstance(thing, Value) else thing
    if not name or not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise ValueError(f"not an id: {name!r}")
    return name


def require_success(job: Job) -> Job:
    """Return a job that has succeeded. Raises JobFailed for any other status."""
    if job.status != JobStatus.SUCCEEDED:
        raise JobFailed(job.id, job.status, job.error)
    return job


def _poll_pauses(timeout_seconds: float | None, sentence: str) -> Iterator[float]:
    """Yield pauses in seconds, growing to 2. Raises WaitTimeout with the sentence after `timeout_seconds`."""
    started, pause = time.monotonic(), 0.05
    while timeout_seconds is None or time.monotonic() - started < timeout_seconds:
        yield pause
        pause = min(pause * 1.5, 2.0)
    raise WaitTimeout(sentence)
