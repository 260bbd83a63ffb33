"""Benchmark of an honest client's latency while others hold the API's connections.

    python -m benchmarks.hostile_clients [--seconds 5] [--clients 4]

First at rest, then beside 500 silent or half-open connections, 200 unfinished bodies without a key, and 50 uploads that
send a byte five times a second. The clients share the machine's cores with the server.
"""

import argparse
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

from benchmarks.api import load, prepare, server
from service.settings import Settings
from tests.servers import valkey

HALF_OPEN, BODIES, UPLOADS = 500, 200, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as broker:
        settings = Settings(data_dir=Path(folder), broker_url=broker)
        place = prepare(settings)
        request = (
            f"GET /jobs/{place['job']} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {place['key']}\r\n\r\n".encode()
        )
        with server(settings) as (port, pid):
            rest = _measure(port, pid, request, arguments, "at rest")
            with _hostile_clients(port, place["key"]):
                beside = _measure(port, pid, request, arguments, "beside hostile clients")
    print(f"{'ratio':24} p50 {beside[0] / rest[0]:.2f}, p99 {beside[1] / rest[1]:.2f} (at most 2)")


def _measure(port: int, pid: int, request: bytes, arguments: argparse.Namespace, title: str) -> tuple[float, float]:
    times = load(port, request, 200, arguments.clients, arguments.seconds)
    median, slow = (1000 * times[int(len(times) * share)] for share in (0.5, 0.99))
    resident = next(
        int(line.split()[1]) // 1024
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    rate = len(times) / arguments.seconds
    print(f"{title:24} p50 {median:.1f} ms, p99 {slow:.1f} ms, {rate:.0f}/s, {resident} MiB resident")
    return median, slow


@contextmanager
def _hostile_clients(port: int, key: str) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_hold_connections, args=(port, key, ready, stop))
    process.start()
    ready.wait(60)
    yield
    stop.set()
    process.join()


def _hold_connections(port: int, key: str, ready: Event, stop: Event) -> None:
    half_open = [_connect(port, b"GET /jobs HTTP/1.1\r\nHo" if number % 2 else b"") for number in range(HALF_OPEN)]
    head = b"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n"
    bodies = [_connect(port, head + b" " * 60_000) for _ in range(BODIES)]
    head = f"POST /datasets HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 1000000\r\n".encode()
    head += b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    head += b'Content-Disposition: form-data; name="file"\r\n\r\n'
    uploads = [_connect(port, head) for _ in range(UPLOADS)]
    ready.set()
    while not stop.is_set():
        for upload in uploads:
            upload.sendall(b"x")
        time.sleep(0.2)
    for connection in (*half_open, *bodies, *uploads):
        connection.close()


def _connect(port: int, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(data)
    return connection


if __name__ == "__main__":
    main()
