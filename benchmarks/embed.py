"""Benchmark of /embed: throughput for 64 clients that send one image at a time, relative to offline forward passes.

    python -m benchmarks.embed [--seconds 10] [--precision fp32|bf16]

Offline is the forward pass alone, in one process with all cores, on preprocessed batches of the served size. Served is
POST /embed with a JPEG over HTTP: API, encoder and SQLite in a temporary folder, and the clients, all on the same
cores. On a small machine HTTP costs one to two milliseconds of a core for each image over the three processes, so the
ratio is only meaningful for models that cost clearly more: here ResNet-18 at 96 and at 128 px.
"""

import argparse
import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image

from service import keys
from service.db import ids, migrate
from service.db.models import Dataset, Job, Model
from service.db.session import Database, now
from service.settings import Settings
from ssl_core import config, methods
from ssl_core.models.encoder import Encoder, Preprocessing
from ssl_core.serialization import saved_model

CLIENTS = 64


@dataclass(frozen=True)
class Case:
    """A model and the size of the images in the requests, in pixels."""

    backbone: str
    image_size: int
    sent_size: int


@dataclass(frozen=True)
class Served:
    """Throughput, mean batch size and latency percentiles of the served model."""

    images_per_second: float
    batch: float
    p50_ms: float
    p99_ms: float


CASES = (Case("resnet18", 96, 128), Case("resnet18", 128, 160))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments = parser.parse_args()
    print(f"{'model':<22}{'offline/s':>10}{'served/s':>10}{'ratio':>7}{'batch':>7}{'p50 ms':>8}{'p99 ms':>8}")
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="twoviews-") as folder:
            settings = Settings(data_dir=Path(folder), embed_precision=arguments.precision)
            save(case, settings.data_dir / "model")
            before = offline(case, settings, arguments.seconds)
            served = serve(case, settings, arguments.seconds)
            rate = (before + offline(case, settings, arguments.seconds)) / 2  # before and after: machines drift
        name = f"{case.backbone} at {case.image_size} px"
        ratio = served.images_per_second / rate
        print(f"{name:<22}{rate:>10.1f}{served.images_per_second:>10.1f}{ratio:>7.2f}", end="")
        print(f"{served.batch:>7.1f}{served.p50_ms:>8.0f}{served.p99_ms:>8.0f}", flush=True)


def save(case: Case, folder: Path) -> None:
    """Write the case's model, with random weights."""
    backbone = {"name": case.backbone, "width": 1, "stem": "imagenet", "zero_init_residual": False}
    resolved = config.parse(
        {"kind": "pretrain", "method": {"name": "simclr", "projector": [128]}, "backbone": backbone}
    )
    preprocessing = Preprocessing.of(case.image_size, [0.5] * 3, [0.25] * 3)
    torch.manual_seed(0)
    method = methods.build(resolved)
    encoder = Encoder(method.backbone, method.projector, preprocessing)
    saved_model.save(folder, encoder, resolved.backbone, method.heads(), {})


def offline(case: Case, settings: Settings, seconds: float) -> float:
    """Return images per second of forward passes alone, in a new process."""
    command = [sys.executable, "-c", "from benchmarks.embed import forward; forward()"]
    arguments = [
        str(settings.data_dir / "model"),
        settings.embed_precision,
        str(settings.embed_max_batch),
        str(seconds),
    ]
    return float(subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout)


def forward() -> None:
    """Print images per second of forward passes; the arguments are folder, precision, batch and seconds."""
    folder, precision, batch, seconds = sys.argv[1:]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    encoder = saved_model.load(Path(folder), "cuda" if torch.cuda.is_available() else "cpu", precision=precision)
    size = encoder.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (int(batch), size, size, 3), dtype=np.uint8)
    encoder.encode(pixels)
    passes, start = 0, time.perf_counter()
    while time.perf_counter() - start < float(seconds):
        encoder.encode(pixels).cpu()
        passes += 1
    print(passes * int(batch) / (time.perf_counter() - start))


def serve(case: Case, settings: Settings, seconds: float) -> Served:
    """Start API and encoder, and run the clients for `seconds`."""
    model, secret = record(settings)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8))
    file = io.BytesIO()
    picture.resize((case.sent_size, case.sent_size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    with processes(settings) as port:
        return asyncio.run(ask(port, request(model, secret, file.getvalue()), settings, seconds))


def record(settings: Settings) -> tuple[str, str]:
    """Create the database with a key and the model; return the model's id and the key."""
    database = Database(settings.database)
    migrate.upgrade(database)
    names = {"dataset": ids.new("ds"), "job": ids.new("job"), "model": ids.new("mdl")}
    with database.writing() as session:
        tenant = keys.get_or_create_tenant(session, "benchmark").id
        secret = keys.create(session, tenant, "benchmark")[1]
        common = {"tenant_id": tenant, "name": "benchmark", "created_at": now()}
        file = {"sha256": "0" * 64, "size_bytes": 1}
        session.add(Dataset(id=names["dataset"], status="ready", on_bad_file="reject", **file, **common))
        card = saved_model.load_card(settings.data_dir / "model")
        session.add(
            Model(id=names["model"], job_id=names["job"], path="model", dim=card["dim"], card=card, **file, **common)
        )
        session.flush()
        links = {"dataset_id": names["dataset"], "made_model_id": names["model"]}
        about = {"kind": "pretrain", "queue": "train", "status": "succeeded", "priority": 0}
        session.add(Job(id=names["job"], config={}, user_metadata={}, **about, **links, **common))
    database.close()
    return names["model"], secret


@contextmanager
def processes(settings: Settings) -> Iterator[int]:
    """Run the encoder and the API; yields the API's port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"TWOVIEWS_DATA_DIR": str(settings.data_dir), "TWOVIEWS_EMBED_PRECISION": settings.embed_precision}
    api = ["api", "--port", str(port), "--log-level", "warning"]
    commands = (["worker.encoder"], api)
    started = [subprocess.Popen([sys.executable, "-m", *command], env=os.environ | variables) for command in commands]
    try:
        while not (settings.data_dir / "encoder.sock").exists() or not reachable(port):
            time.sleep(0.1)
        yield port
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


def reachable(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def request(model: str, secret: str, image: bytes) -> bytes:
    """Return the bytes of a POST /embed of one image."""
    parts = (b'name="model"\r\n\r\n' + model.encode(), b'name="encoding_format"\r\n\r\nbase64',
             b'name="images"; filename="i.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + image)  # fmt: skip
    body = b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"
    head = (
        f"POST /embed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int, message: bytes, settings: Settings, seconds: float) -> Served:
    """Run the clients for 1.5 · `seconds`; only the last `seconds` are measured."""
    transport = httpx.AsyncHTTPTransport(uds=str(settings.data_dir / "encoder.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://encoder", trust_env=False) as encoder:
        await client(port, message, 0)  # loads the model
        start = time.perf_counter() + seconds / 2
        clients = asyncio.gather(*(client(port, message, start + seconds) for _ in range(CLIENTS)))
        await asyncio.sleep(seconds / 2)
        before = json.loads((await encoder.get("/health")).content)
        await asyncio.sleep(seconds)
        after = json.loads((await encoder.get("/health")).content)
        answers = [answer for answers in await clients for answer in answers]
    latencies = [(end - begin) * 1000 for begin, end in answers if start <= end < start + seconds]
    if not latencies:
        sys.exit("no response within that time; increase --seconds")
    batch = (after["images"] - before["images"]) / max(1, after["batches"] - before["batches"])
    return Served(len(latencies) / seconds, batch, *np.percentile(latencies, [50, 99]))


async def client(port: int, message: bytes, until: float) -> list[tuple[float, float]]:
    """Send requests one after another on one connection, at least one; return the begin and end time of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers: list[tuple[float, float]] = []
    while not answers or time.perf_counter() < until:
        begin = time.perf_counter()
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length[15:]))
        assert head.startswith(b"HTTP/1.1 200"), body
        answers.append((begin, time.perf_counter()))
    writer.close()
    return answers


if __name__ == "__main__":
    main()
