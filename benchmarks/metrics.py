"""Metrics: how fast one supervisor connection stores points, and how soon a long job answers a reader.

    python -m benchmarks.metrics [--points 1000000] [--batch 2000] [--postgres URL]

Points go through `service.leases.record_events`, fence, lease and commit included, in batches of `--batch` as a
supervisor flushes them. The database at `--postgres` must be empty; it is migrated and filled.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

from service import datasets, jobs, keys, leases, metrics
from service.db import migrate
from service.db.models import Job
from service.db.session import Database
from ssl_core import config
from ssl_core.events import Metrics, Result

NAMES = ["train/loss", "train/lr", "train/images_per_second", "train/data_wait", "train/std"]
SPLIT = {"images": 1000, "labelled": 0, "per_class": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=2_000, help="points in one record()")
    parser.add_argument("--postgres", help="SQLAlchemy URL of an empty database")
    asked = parser.parse_args()
    heads = ("database", "series", "points", "points/s", "ms for 500", "ms unchanged")
    print("| " + " | ".join(heads) + " |\n|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"sqlite:///{folder}/twoviews.db", *([asked.postgres] if asked.postgres else [])]
        for url in urls:
            for names in (NAMES[:1], NAMES):
                measure(url, names, asked.points, asked.batch)


def measure(url: str, names: list[str], points: int, batch: int) -> None:
    """Fill one job and read it; print a row of the table."""
    database = Database(url)
    migrate.upgrade(database)
    claim = claimed(database)
    steps = points // len(names)
    seconds = 0.0
    for first in range(0, steps, batch // len(names)):
        events = [point(step, names) for step in range(first, min(steps, first + batch // len(names)))]
        started = time.perf_counter()
        with database.writing() as session:
            leases.record_events(session, claim.job_id, claim.attempt, 60, events, "jobs/x/a1")
        seconds += time.perf_counter() - started
    rate = points / seconds

    def read(after: int = 0) -> metrics.Columns:
        with database.reading() as session:
            return metrics.query(session, session.get_one(Job, claim.job_id), NAMES[:1], after, 500)

    found = read()
    assert len(found["series"][0]["step"]) == 500
    whole, unchanged = median_ms(read), median_ms(lambda: read(found["last"]))
    kind = database.engine.dialect.name
    print(f"| {kind} | {len(names)} | {points:,} | {rate:,.0f} | {whole:.1f} | {unchanged:.1f} |", flush=True)
    with database.writing() as session:
        leases.finish(session, claim.job_id, claim.attempt, "succeeded")
    database.close()


def point(step: int, names: list[str]) -> Metrics:
    return Metrics(step, step / 100, 1.7e9 + step / 10, dict.fromkeys(names, 1.0 / (step + 1)))


def claimed(database: Database) -> leases.Claim:
    """A running job on a dataset that is ready."""
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "benchmark").id
        sha256 = f"{time.time_ns():064x}"
        dataset = datasets.create(session, tenant, name="none", sha256=sha256, size_bytes=1)
        ingestion = leases.claim(session, "data", "benchmark", 60)
        assert ingestion is not None
        report = Result({"splits": {"train": SPLIT}})
        leases.record_events(session, ingestion.job_id, 1, 60, [report], "datasets/x/a1")
        leases.finish(session, ingestion.job_id, 1, "succeeded")
        jobs.submit(session, tenant, dataset.id, config.parse({"method": {"name": "simclr"}}))
        claim = leases.claim(session, "train", "benchmark", 60)
    assert claim is not None
    return claim


def median_ms(call: Callable[[], object], times: int = 21) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


if __name__ == "__main__":
    main()
