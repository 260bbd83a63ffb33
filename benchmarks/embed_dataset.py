"""Benchmark of embed_dataset: the rate of a job relative to that of feature extraction alone, in turns.

    python -m benchmarks.embed_dataset PACKED [--splits test] [--backbone resnet18] [--rounds 3] [--kills 2]

Offline is what evaluations do, in one process with all cores: images read and encoded chunk by chunk, features kept in
memory and nothing written. The job is supervised as by a worker: claims of shards, events, SQLite in a temporary
folder, npy and Parquet with their SHA-256. Both rates are of the images alone, without the start of the process;
processor seconds are of the whole process, and also comparable on a machine that does other work.

With --kills the trainer is killed -9 so often, at equal parts of the images, and the next attempt goes on. The rate is
then that of the whole job by the clock, with the starts of its attempts, and every row has to be in the result once.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import torch

from service import jobs, keys, leases
from service.db import ids, migrate
from service.db.models import Dataset, Job, Model
from service.db.session import Database, now
from service.settings import Settings
from service.storage import Storage
from ssl_core import config, methods
from ssl_core.data.dataset import Dataset as Packed
from ssl_core.device import Device, select_kernels
from ssl_core.evaluation import features
from ssl_core.evaluation.features import FeatureSource
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.serialization import saved_model
from ssl_core.training.resolve import resolve_device
from worker.trainer.supervisor import supervise

ROWS_PER_SHARD = 2_000


@dataclass(frozen=True)
class Rate:
    """Images per second, and processor seconds of the whole process per 1,000 images."""

    images_per_second: float
    processor_seconds: float


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "offline":
        extract(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed", type=Path)
    parser.add_argument("--splits", nargs="+", default=["test"], help="the images")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--rows-per-shard", type=int, default=ROWS_PER_SHARD)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), _env_file=None)
        database = prepare(settings, asked)
        rounds = [measure(database, settings, asked) for _ in range(asked.rounds)]
        database.close()
    for offline, job in rounds:
        print(f"offline {offline}\njob     {job}  rate {job.images_per_second / offline.images_per_second:.3f}")
    ratio = median(job.images_per_second / offline.images_per_second for offline, job in rounds)
    work = median(job.processor_seconds / offline.processor_seconds for offline, job in rounds)
    print(f"{asked.backbone} × {asked.width:g}: rate of the job, of offline: {ratio:.3f}; processor time {work:.3f}")


def prepare(settings: Settings, asked: argparse.Namespace) -> Database:
    """Create the database with a dataset and a model, whose files are in the storage."""
    shutil.copytree(asked.packed, settings.data_dir / "datasets/ds_1/a1")
    report = json.loads((asked.packed / "dataset.json").read_bytes())
    size = report["pixels"]["shape"][1] if report.get("pixels") else 224
    save_model(settings.data_dir / "model", {"name": asked.backbone, "width": asked.width}, size)
    database = Database(settings.database)
    migrate.upgrade(database)
    names = {"dataset": ids.new("ds"), "job": ids.new("job"), "model": ids.new("mdl")}
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "benchmark").id
        common = {"tenant_id": tenant, "name": "benchmark", "created_at": now()}
        file = {"sha256": "0" * 64, "size_bytes": 1}
        kept = {"path": "datasets/ds_1/a1", "report": report}
        session.add(Dataset(id=names["dataset"], status="ready", on_bad_file="reject", **kept, **file, **common))
        card = saved_model.load_card(settings.data_dir / "model")
        session.add(
            Model(id=names["model"], job_id=names["job"], path="model", dim=card["dim"], card=card, **file, **common)
        )
        session.flush()
        links = {"dataset_id": names["dataset"], "made_model_id": names["model"]}
        about = {"kind": "pretrain", "queue": "train", "status": "succeeded", "priority": 0}
        session.add(Job(id=names["job"], config={}, user_metadata={}, **about, **links, **common))
    return database


def save_model(folder: Path, backbone: dict[str, Any], size: int) -> None:
    """Save a model with random weights, which takes the same time as any."""
    shape = {"stem": "cifar" if size <= 64 else "imagenet", "zero_init_residual": False, **backbone}
    asked = config.parse({"method": {"name": "simclr", "projector": [128]}, "backbone": shape})
    torch.manual_seed(0)
    method = methods.build(asked)
    encoder = Encoder(method.backbone, method.projector, Preprocessing.of(size, [0.5] * 3, [0.25] * 3))
    saved_model.save(folder, encoder, asked.backbone, method.heads(), {})


def measure(database: Database, settings: Settings, asked: argparse.Namespace) -> tuple[Rate, Rate]:
    """Measure both, one after the other."""
    arguments = [str(settings.data_dir / "datasets/ds_1/a1"), str(settings.data_dir / "model"), *asked.splits]
    command = [sys.executable, "-m", "benchmarks.embed_dataset", "offline", *arguments]
    offline = Rate(*json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return offline, run_job(database, settings, asked)


def extract(dataset: str, model: str, *splits: str) -> None:
    """Print [images per second, processor seconds per 1,000 images] of feature extraction alone."""
    asked = resolve_device(config.parse({}, "embed_dataset"), Device.here())
    select_kernels(exact=True)
    packed = Packed.open(Path(dataset))
    encoder = saved_model.load(Path(model), asked.device, precision=asked.precision)
    source = FeatureSource(encoder.device, encoder.image_size, encoder.encode_views)
    rows = np.concatenate([packed.indices(split) for split in splits])
    started = time.perf_counter()
    found = []
    for chunk in np.split(rows, range(features._CHUNK, len(rows), features._CHUNK)):
        found.append(source.extract(features.read_centre_crops(packed, chunk, encoder.image_size)).cpu())
    torch.cat(found)
    seconds = time.perf_counter() - started
    print(json.dumps([len(rows) / seconds, sum(psutil.Process().cpu_times()[:2]) / len(rows) * 1000]))


def run_job(database: Database, settings: Settings, asked: argparse.Namespace) -> Rate:
    """Run a job of those splits as a worker does, attempt after attempt."""
    fields = {"splits": asked.splits, "rows_per_shard": asked.rows_per_shard}
    with database.writing() as session:
        made = session.query(Model).one()
        dataset = session.query(Dataset).one().id
        wanted = config.parse(fields, "embed_dataset")
        job_id = jobs.submit(session, made.tenant_id, dataset, wanted, model=made.id).id
    before, started = psutil.Process().cpu_times(), time.perf_counter()
    killer = threading.Thread(target=kill_trainers, args=(database, job_id, asked.kills), daemon=True)
    killer.start()
    while (job := read(database, job_id)).status == "queued":
        with database.writing() as session:
            claim = leases.claim(session, "train", "benchmark", settings.lease_seconds)
        assert claim is not None
        supervise(claim, database, Storage(settings.data_dir), settings, lambda: False)
    seconds = time.perf_counter() - started
    after = psutil.Process().cpu_times()
    assert job.status == "succeeded", (job.error, job.status_detail)
    assert job.attempt == asked.kills + 1, "a kill had no effect"
    check_rows(database, settings, job)
    spent = sum(getattr(after, name) - getattr(before, name) for name in after._fields if name != "iowait")
    rate = job.summary["rows"] / seconds if asked.kills else job.progress["images_per_second"]
    return Rate(rate, spent / job.summary["rows"] * 1000)


def read(database: Database, job_id: str) -> Job:
    with database.reading() as session:
        return session.get_one(Job, job_id)


def kill_trainers(database: Database, job_id: str, kills: int) -> None:
    """Kill the trainer at equal parts of the job."""
    for number in range(1, kills + 1):
        while (read(database, job_id).progress or {"percent": 0})["percent"] < 100 * number / (kills + 1):
            time.sleep(0.05)
        attempt = read(database, job_id).attempt
        for child in psutil.Process().children(recursive=True):
            if "ssl_core" in child.cmdline():
                child.kill()
        while read(database, job_id).attempt == attempt:
            time.sleep(0.05)


def check_rows(database: Database, settings: Settings, job: Job) -> None:
    """Every row of the dataset is in one shard."""
    with database.reading() as session:
        paths = [row.path for row in jobs.artifacts(session, job.id) if row.name.endswith(".parquet")]
    tables = [pq.read_table(settings.data_dir / path, columns=["row"]) for path in paths]
    rows = sorted(row for table in tables for row in table["row"].to_pylist())
    assert len(rows) == len(set(rows)) == job.summary["rows"], "rows are missing, or in two shards"


if __name__ == "__main__":
    main()
