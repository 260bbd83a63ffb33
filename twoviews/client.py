"""The client: the service as Python calls.

    client = Client()
    dataset = client.datasets.wait(client.datasets.upload("photos.zip"))
    run = client.jobs.wait(client.jobs.submit(dataset=dataset, config={"method": {"name": "simclr"}}))
    vectors = client.embed(run.model_id, ["cat.jpg", "dog.jpg"])

Wherever an id is asked for, the value itself will do. Every call may raise `ApiError` and `CannotReach`.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from twoviews import credentials, download, embeddings, upload
from twoviews.errors import DatasetFailed, JobFailed, Waited
from twoviews.transport import Transport
from twoviews.values import Dataset, Job, Json, Key, Metrics, Model, Update, Value

Ref = str | Value
MOST_POINTS = 10_000  # of each series in one answer


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
        """Connect to `url` with `key`, else to what `twoviews up` left in `data_dir`, else as the environment says."""
        found = credentials.find(url, key, Path(data_dir) if data_dir else None)
        self._transport = Transport(found, timeout_seconds=timeout_seconds, retries=retries, transport=transport)
        self.url = found.url
        self.datasets = Datasets(self._transport)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)
        self.keys = Keys(self._transport)

    def embed(
        self, model: Ref, images: Iterable[str | Path | bytes], *, layer: str = "backbone", batch: int = 64
    ) -> list[embeddings.Row]:
        """Return one float32 row for each image (a path, or the bytes of a file), in order.

        `numpy.array(rows)` makes an N×D matrix of them. Images are read and sent `batch` at a time.
        """
        return list(embeddings.embed(self._transport, id_of(model), images, layer, batch))

    def methods(self) -> Sequence[Json]:
        """What can be trained: each method with its defaults and its JSON schema."""
        return tuple(self._transport.pages("/methods"))

    def backbones(self) -> Sequence[Json]:
        """The networks that can be trained."""
        return tuple(self._transport.pages("/backbones"))

    def recipes(self) -> Sequence[Json]:
        """Whole configs with a name, which can be submitted as they stand."""
        return tuple(self._transport.pages("/recipes"))

    def close(self) -> None:
        """Close the connection; what is asked for afterwards raises."""
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
    ) -> Dataset:
        """Send an archive, or a folder, which is packed on the way; `wait` for the answer to become ready.

        `progress(sent, total)` is called with bytes. `on_bad_file` is `reject` or `skip`.
        """
        source = Path(path)
        fields = {"name": name or source.resolve().name, "on_bad_file": on_bad_file}
        with upload.archive(source) as packed, upload.Watched(packed, progress) as file:
            parts = {"file": (packed.name, file, "application/octet-stream")}
            return Dataset.of(self._transport.create("/datasets", data=fields, files=parts))

    def get(self, dataset: Ref) -> Dataset:
        """Return a dataset as it is now."""
        return Dataset.of(self._transport.get(f"/datasets/{id_of(dataset)}"))

    def list(self, *, status: str | None = None) -> Iterator[Dataset]:
        """Yield datasets, newest first; pages are fetched as they are needed."""
        return map(Dataset.of, self._transport.pages("/datasets", status=status))

    def wait(self, dataset: Ref, *, timeout_seconds: float | None = None) -> Dataset:
        """Return the dataset once it is ready. Raises DatasetFailed, and Waited after `timeout_seconds`."""
        for pause in _pauses(timeout_seconds, f"The dataset {id_of(dataset)} is still being validated."):
            found = self.get(dataset)
            if found.status == "failed":
                raise DatasetFailed(found.id, found.error)
            if found.status == "ready":
                return found
            time.sleep(pause)
        raise AssertionError("the pauses end in Waited")

    def delete(self, dataset: Ref) -> None:
        """Forget a dataset. Refused while a job that has not ended uses it."""
        self._transport.send("DELETE", f"/datasets/{id_of(dataset)}", safe=False)


class Jobs:
    """`client.jobs`: runs."""

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
    ) -> Job:
        """Ask for a run. `model` may be a model, or a job that is still to make one: the new job waits for it."""
        body: dict[str, Any] = {"kind": kind, "dataset": id_of(dataset), "config": dict(config or {})}
        body |= {"priority": priority, "metadata": dict(metadata or {})}
        body |= {"model": id_of(model)} if model else {}
        body |= {"name": name} if name else {}
        return Job.of(self._transport.create("/jobs", json=body))

    def get(self, job: Ref) -> Job:
        """Return a job as it is now."""
        return Job.of(self._transport.get(f"/jobs/{id_of(job)}"))

    def list(self, *, status: str | None = None, kind: str | None = None, dataset: Ref | None = None) -> Iterator[Job]:
        """Yield jobs, newest first; pages are fetched as they are needed."""
        named = id_of(dataset) if dataset else None
        return map(Job.of, self._transport.pages("/jobs", status=status, kind=kind, dataset=named))

    def cancel(self, job: Ref) -> Job:
        """Ask the job to end; it keeps its checkpoint. A job that has ended is left as it is."""
        return Job.of(self._transport.send("POST", f"/jobs/{id_of(job)}/cancel").json())

    def wait(self, job: Ref, *, timeout_seconds: float | None = None) -> Job:
        """Return the job once it has succeeded. Raises JobFailed, and Waited after `timeout_seconds`."""
        for pause in _pauses(timeout_seconds, f"The job {id_of(job)} has not ended."):
            found = self.get(job)
            if found.done:
                return succeeded(found)
            time.sleep(pause)
        raise AssertionError("the pauses end in Waited")

    def watch(self, job: Ref, *, names: Sequence[str] = (), poll_seconds: float = 2) -> Iterator[Update]:
        """Yield what is new about the job, until it has ended, however it ends; no point is missed or repeated."""
        last = 0
        while True:
            found = self.get(job)
            wait = None if found.done else poll_seconds
            fresh = self.metrics(found, names, after=last, max_points=MOST_POINTS, wait_seconds=wait)
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
        """Return series by name (all when none is named), thinned to `max_points` each, first and last kept.

        `after` is the `last` of an earlier answer; with `wait_seconds` the answer waits for something newer.
        """
        wanted = {"names": ",".join(names) or None, "after": after, "max_points": max_points, "wait": wait_seconds}
        return Metrics.of(self._transport.get(f"/jobs/{id_of(job)}/metrics", **wanted))

    def events(self, job: Ref, *, after: int | None = None) -> Iterator[Json]:
        """Yield what happened to the job, oldest first: `{seq, time, level, code, message, data}`."""
        return self._transport.pages(f"/jobs/{id_of(job)}/events", after=after)

    def checkpoints(self, job: Ref) -> Sequence[Json]:
        """Return the job's checkpoints, each with its step and metrics."""
        return tuple(self._transport.pages(f"/jobs/{id_of(job)}/checkpoints"))

    def artifacts(self, job: Ref) -> Sequence[Json]:
        """Return what files the job left, by name: `{name, media_type, sha256, size_bytes, created_at, url}`."""
        return tuple(self._transport.pages(f"/jobs/{id_of(job)}/artifacts"))

    def artifact(self, job: Ref, name: str) -> bytes:
        """Return the content of a file that the job left."""
        return self._transport.send("GET", f"/jobs/{id_of(job)}/artifacts/{quote(name, safe='')}").content

    def download(self, job: Ref, folder: str | Path) -> Sequence[Path]:
        """Save all that the job left in the folder, which is made where it is missing, and return the files' paths.

        A file appears whole or not at all. Raises Corrupt when one does not have the SHA-256 that was promised.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        return tuple(self._save(job, item, Path(folder)) for item in self.artifacts(job))

    def _save(self, job: Ref, item: Json, folder: Path) -> Path:
        path = folder / download.file_name(item["name"])
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
        """Send weights that were trained elsewhere: safetensors, or tensors as torch.save writes them.

        The answer is the job that makes a model of them; `client.jobs.wait` waits for it. `config` says what weights do
        not tell: `backbone`, `stem`, `image_size`, `mean`, `std`. `progress(sent, total)` is called with bytes.
        """
        source = Path(path)
        fields = {"name": name or source.name, "config": json.dumps(dict(config or {}))}
        with upload.Watched(source, progress) as file:
            parts = {"file": (source.name, file, "application/octet-stream")}
            return Job.of(self._transport.create("/models", data=fields, files=parts))

    def list(self) -> Iterator[Model]:
        """Yield models, newest first; pages are fetched as they are needed."""
        return map(Model.of, self._transport.pages("/models"))

    def get(self, model: Ref) -> Model:
        """Return a model, by its own id or by that of the job that made it."""
        return Model.of(self._transport.get(f"/models/{id_of(model)}"))

    def download(
        self, model: Ref, target: str | Path, *, file: str = "weights", progress: upload.Progress | None = None
    ) -> Path:
        """Save `weights`, `heads`, `card` or `readme` as `target`, or in it if it is a folder; return the file's path.

        The file appears whole or not at all. Raises Corrupt when weights do not have the model's SHA-256.
        """
        known = self.get(model)
        path = download.place(Path(target), known.id, file)
        with self._transport.stream(f"/models/{known.id}/download", file=file) as answer:
            return download.save(answer, path, known.sha256 if file == "weights" else None, progress)


class Keys:
    """`client.keys`: who may call."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str) -> Key:
        """Make a key; the answer's `key` is the secret, and is never shown again."""
        return Key.of(self._transport.create("/keys", json={"name": name}))

    def list(self) -> Iterator[Key]:
        """Yield keys, newest first, the revoked ones too; their secrets are not shown."""
        return map(Key.of, self._transport.pages("/keys"))

    def revoke(self, key: Ref) -> None:
        """Make a key useless from now on."""
        self._transport.send("DELETE", f"/keys/{id_of(key)}", safe=False)


def id_of(thing: Ref) -> str:
    """Return the id, safe to stand in a path. Raises ValueError."""
    name = thing.id if isinstance(thing, Value) else thing
    if not name or not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"not an id: {name!r}")
    return name


def succeeded(job: Job) -> Job:
    """Return an ended job. Raises JobFailed when it ended without success."""
    if job.status != "succeeded":
        raise JobFailed(job.id, job.status, job.error)
    return job


def _pauses(timeout_seconds: float | None, sentence: str) -> Iterator[float]:
    """Yield seconds to sleep, growing to two. Raises Waited with the sentence when the time is over."""
    started, pause = time.monotonic(), 0.05
    while timeout_seconds is None or time.monotonic() - started < timeout_seconds:
        yield pause
        pause = min(pause * 1.5, 2.0)
    raise Waited(sentence)
