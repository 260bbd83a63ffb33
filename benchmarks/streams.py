"""Benchmark of an honest client's latency while others stream a job's metrics.

    python -m benchmarks.streams [--seconds 15] [--clients 4] [--listeners 1000]

`GET /jobs/{id}` is measured without listeners, with them, and without them again; a point in each of two series is
written each second. The clients and the listeners share the machine's cores with the server.
"""

import argparse
import asyncio
import multiprocessing
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import uvloop

from benchmarks.api import load, prepare, server
from service import leases
from service.db.session import Database
from service.settings import Settings
from ssl_core.events import Metrics
from tests.servers import valkey

SETTLE_SECONDS = 3
_TIMES = re.compile(rb'"time":\[(?:[\d.]+,)*([\d.]+)\]')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--listeners", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as broker:
        settings = Settings(data_dir=Path(folder), broker_url=broker)
        place = prepare(settings)
        head = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {place['key']}\r\n\r\n"
        request = f"GET /jobs/{place['job']} {head}".encode()
        stream = f"GET /jobs/{place['job']}/metrics/stream?after=10000 {head}".encode()
        most = {"TWOVIEWS_LONG_POLLS_PER_KEY": "2000", "TWOVIEWS_HTTP_CONNECTIONS": "4000"}
        with server(settings, most) as (port, pid), _writing(settings, place["job"]):
            before = _measure(port, pid, request, arguments, "without listeners")
            with _listeners(port, stream, arguments.listeners):
                beside = _measure(port, pid, request, arguments, f"with {arguments.listeners} listeners")
            after = _measure(port, pid, request, arguments, "without listeners again")
    median, slow = (2 * with_ / (first + second) for first, with_, second in zip(before, beside, after, strict=True))
    print(f"{'ratio':26} p50 {median:.2f}, p99 {slow:.2f} (at most 2)")


def _measure(port: int, pid: int, request: bytes, arguments: argparse.Namespace, title: str) -> tuple[float, float]:
    times = load(port, request, 200, arguments.clients, arguments.seconds)
    median, slow = (1000 * times[int(len(times) * share)] for share in (0.5, 0.99))
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    resident = next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))
    rate = len(times) / arguments.seconds
    print(f"{title:26} p50 {median:.1f} ms, p99 {slow:.1f} ms, {rate:.0f}/s, {resident} MiB resident", flush=True)
    return median, slow


@contextmanager
def _writing(settings: Settings, job: str) -> Iterator[None]:
    """Write points each second, as the job's worker does."""
    stop = threading.Event()

    def write() -> None:
        database, step = Database(settings.database), 5000
        while not stop.wait(1):
            with database.writing() as session:
                point = Metrics(step, step / 100, time.time(), {"train/loss": 1.0, "train/lr": 0.1})
                leases.record_events(session, job, 1, 3600, [point], f"jobs/{job}/a1")
            step += 1
        database.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _listeners(port: int, request: bytes, count: int) -> Iterator[None]:
    """Hold that many streams, in another process; then print how many messages each received, and how late."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_listen, args=(port, request, count, ready, stop))
    process.start()
    if not ready.wait(60):
        raise RuntimeError("not all streams were opened")
    time.sleep(SETTLE_SECONDS)
    yield
    stop.set()
    process.join()


def _listen(port: int, request: bytes, count: int, ready: Event, stop: Event) -> None:
    uvloop.run(_listen_to_all(port, request, count, ready, stop))


async def _listen_to_all(port: int, request: bytes, count: int, ready: Event, stop: Event) -> None:
    streams, received, delays = [], [0] * count, []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        if not (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("a stream was refused")
        streams.append((reader, writer))

    async def listen(number: int) -> None:
        while data := await streams[number][0].read(65536):
            received[number] += data.count(b"event: metrics")
            if times := _TIMES.findall(data):
                delays.append(time.time() - float(times[-1]))

    tasks = [asyncio.create_task(listen(number)) for number in range(count)]
    ready.set()
    await asyncio.to_thread(stop.wait)
    median, slow = (sorted(delays)[int(len(delays) * share)] for share in (0.5, 0.99))
    print(f"{'messages of a listener':26} {min(received)} to {max(received)}, ", end="")
    print(f"{median:.2f} s after the point (p99 {slow:.2f} s)", flush=True)
    for task, (_, writer) in zip(tasks, streams, strict=True):
        task.cancel()
        writer.close()


if __name__ == "__main__":
    main()
