"""Benchmark of the API: import time, memory, and requests per second of one process on SQLite.

    python -m benchmarks.api [--seconds 5] [--clients 8]

Raw sockets in a separate process generate the load and cost less than the server. Both share the machine's cores, so on
two cores the rates are a lower bound.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import uvloop

from service import datasets, jobs, keys, leases
from service.db import migrate
from service.db.session import Database
from service.settings import Settings
from ssl_core import config
from ssl_core.events import Metrics, Result
from tests.servers import free_port, valkey

REPORT = {"classes": ["a", "b"], "splits": {"train": {"images": 1000, "labelled": 1000, "per_class": [500, 500]}}}
CONFIG = {"method": {"name": "simclr"}, "batch_size": 64}
_LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    rows = [("import api.app", f"{_import_seconds():.2f} s", "under 1.5 s")]
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as broker:
        settings = Settings(data_dir=Path(folder), broker_url=broker)
        place = prepare(settings)
        with server(settings) as (port, process):
            rows.append(("resident after start", f"{_resident(process) / 2**20:.0f} MiB", "under 120 MB"))
            rows += _measure(port, process, place, arguments)
            rows.append(("resident after load", f"{_resident(process) / 2**20:.0f} MiB", ""))
    for name, figure, goal in rows:
        print(f"{name:34} {figure:>56}   {goal}")


def _measure(
    port: int, process: int, place: dict[str, str], arguments: argparse.Namespace
) -> list[tuple[str, str, str]]:
    head = _build_head(place)
    metrics = f"GET /jobs/{place['job']}/metrics HTTP/1.1\r\n{head}"
    body = json.dumps({"dataset": place["dataset"], "config": CONFIG})
    post = f"POST /jobs HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    cases = {
        "GET /health/live": (_LIVE, 200, ""),
        **{name: (*read, "over 500/s") for name, read in build_reads(port, place).items()},
        "GET /jobs/{id}/metrics, 2×1000": (f"{metrics}\r\n".encode(), 200, ""),
        "POST /jobs": (f"{post}\r\n{body}".encode(), 202, "over 100/s"),
        "POST /jobs, Idempotency-Key": (f"{post}Idempotency-Key: @@@@@@@@\r\n\r\n{body}".encode(), 202, "over 100/s"),
    }
    rows = []
    for name, (request, status, goal) in cases.items():
        before = _processor_seconds(process)
        times = load(port, request, status, arguments.clients, arguments.seconds)
        cost = 1000 * (_processor_seconds(process) - before) / len(times)
        median, slow = (1000 * times[int(len(times) * share)] for share in (0.5, 0.99))
        rate = len(times) / arguments.seconds
        rows.append((name, f"{rate:6.0f}/s, p50 {median:5.1f} ms, p99 {slow:6.1f} ms, CPU {cost:5.2f} ms", goal))
    return rows


def build_reads(port: int, place: dict[str, str]) -> dict[str, tuple[bytes, int]]:
    """Return the requests that clients send most, by name, each with its status; `place` is from `prepare`."""
    head, job = _build_head(place), f"GET /jobs/{place['job']}"
    metrics = f"{job}/metrics HTTP/1.1\r\n{head}"
    etag = asyncio.run(_etag(port, f"{metrics}\r\n".encode()))
    return {
        "GET /jobs/{id}": (f"{job} HTTP/1.1\r\n{head}\r\n".encode(), 200),
        "GET /jobs/{id}/metrics, 304": (f"{metrics}If-None-Match: {etag}\r\n\r\n".encode(), 304),
    }


def _build_head(place: dict[str, str]) -> str:
    return f"Host: x\r\nAuthorization: Bearer {place['key']}\r\n"


def load(port: int, request: bytes, status: int, clients: int, seconds: float) -> list[float]:
    """Return the latency of each response in seconds, ascending; measured in another process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (port, request, status, clients, seconds))


def _run(port: int, request: bytes, status: int, clients: int, seconds: float) -> list[float]:
    return sorted(uvloop.run(run_clients(port, request, status, clients, seconds)))


async def run_clients(port: int, request: bytes, status: int, clients: int, seconds: float) -> list[float]:
    """Return the latency of each response in seconds. Raises RuntimeError for another status than the expected."""
    until = time.perf_counter() + seconds
    all_of_them = [_client(port, request, status, until, number) for number in range(clients)]
    return [taken for times in await asyncio.gather(*all_of_them) for taken in times]


async def _client(port: int, request: bytes, status: int, until: float, number: int) -> list[float]:
    """Send one request at a time on one connection; `@@@@@@@@` is replaced by a unique number in each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times: list[float] = []
    while (start := time.perf_counter()) < until:
        writer.write(request.replace(b"@@@@@@@@", b"%02d%06d" % (number, len(times))))
        got, _ = await _answer(reader)
        if got != status:
            raise RuntimeError(f"status {got}, expected {status}")
        times.append(time.perf_counter() - start)
    writer.close()
    return times


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    marker = head.lower().find(b"content-length: ")
    if marker >= 0:
        await reader.readexactly(int(head[marker + 16 : head.index(b"\r", marker)]))
    return int(head[9:12]), head


async def _etag(port: int, request: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    _, head = await _answer(reader)
    writer.close()
    return next(line[6:].decode() for line in head.split(b"\r\n") if line.lower().startswith(b"etag: "))


def prepare(settings: Settings) -> dict[str, str]:
    """Create a database with a key, a ready dataset, and a running job with 2 series of 5,000 points."""
    database = Database(settings.database)
    migrate.upgrade(database)
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "benchmark").id
        _, key = keys.create(session, tenant, "benchmark")
        dataset = datasets.create(session, tenant, name="benchmark", sha256="ab" * 32, size_bytes=1).id
        _work(session, "data", [Result(REPORT)])
        jobs.submit(session, tenant, dataset, config.parse(CONFIG))
    points = [Metrics(step, step / 100, 1e9 + step, {"train/loss": 1.0, "train/lr": 0.1}) for step in range(5000)]
    with database.writing() as session:
        job = _work(session, "train", points, end=False)
    database.close()
    return {"key": key, "dataset": dataset, "job": job}


def _work(session, queue: str, events: list, end: bool = True) -> str:
    claim = leases.claim(session, queue, "benchmark", 3600)
    assert claim is not None
    leases.record_events(session, claim.job_id, claim.attempt, 3600, events, f"jobs/{claim.job_id}/a1")
    if end:
        leases.finish(session, claim.job_id, claim.attempt, "succeeded")
    return claim.job_id


@contextmanager
def server(settings: Settings, more: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[int, int]]:
    """Serve the API; yield its port and process id. more: environment variables."""
    port = free_port()
    names = {
        "TWOVIEWS_DATA_DIR": str(settings.data_dir),
        "TWOVIEWS_BROKER_URL": settings.broker_url,
        "TWOVIEWS_LOG_FILE": str(settings.data_dir / "api.log"),  # of every request, as by default
    }
    command = [sys.executable, "-m", "api", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **names, **more})
    try:
        until_live(port)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def until_live(port: int, seconds: float = 60) -> None:
    """Wait until the server responds. Raises OSError when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            asyncio.run(run_clients(port, _LIVE, 200, 1, 0))
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _import_seconds() -> float:
    """Return the minimum of five runs, each in a new process."""
    program = "import time; t = time.perf_counter(); import api.app; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True) for _ in range(5)]
    return min(float(run.stdout) for run in runs)


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


if __name__ == "__main__":
    main()
