"""Ingestion: packs an upload into a dataset, in a sandboxed process.

`python -m worker.uploads.ingest UPLOAD --out DIR` is a child of the supervisor; with `--events` it writes JSON lines
(`ssl_core.events`) and nothing else to stdout. Exit codes: 0 success, 1 invalid upload, 70 other failure, 75 stopped.
Limits default to the settings.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from service.settings import Settings
from ssl_core.config import Reading
from ssl_core.data.items import PackError
from ssl_core.data.pack import Packer
from ssl_core.events import Event, Progress, Result
from worker.uploads import archives, process, sandbox
from worker.uploads.limits import Limits, Meter

_PROGRESS_SECONDS = 0.5


def ingest(upload: Path, out: Path, reading: Reading, limits: Limits, sha256: str | None = None) -> Iterator[Event]:
    """Pack the upload into `out`; the last event is a Result with the report, or Failed.

    sha256: of the upload, which is compared with it first.
    """
    return process.catch_errors(_pack(upload, out, reading, limits, sha256), PackError)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parse_options(arguments)
    limits = Limits(
        options.max_unpacked_bytes,
        options.max_unpack_ratio,
        options.max_images,
        options.max_image_bytes,
        options.max_image_pixels,
    )
    process.stop_on_sigterm()
    sandbox.enter(
        sandbox.ResourceLimits(options.ingest_memory_bytes, int(options.ingest_seconds), 2 * options.max_unpacked_bytes)
    )
    return process.write_events(
        ingest(options.upload, options.out, options.reading, limits, options.sha256),
        None if options.events else _format_event,
    )


def _pack(upload: Path, out: Path, reading: Reading, limits: Limits, sha256: str | None) -> Iterator[Event]:
    process.check_sha256(upload, sha256)
    size = upload.stat().st_size
    meter = Meter(limits, size)
    with (
        upload.open("rb") as file,
        Packer(
            out,
            reading=reading,
            max_images=limits.images,
            max_pixels=limits.image_pixels,
            count_pixels=meter.add_pixels,
        ) as packer,
    ):
        started = reported = time.monotonic()
        for count, item in enumerate(archives.read(file, meter, reading, out), 1):
            packer.add(item)
            if time.monotonic() - reported >= _PROGRESS_SECONDS:
                reported = time.monotonic()
                yield _make_progress(count, reported - started, _read_share(file, size))
        yield Result(packer.finish())


def _read_share(file: IO[bytes], size: int) -> float:
    """Return the share of the upload that has been read, between 0 and 1."""
    return min(1.0, max(file.tell(), 1) / max(size, 1))


def _make_progress(count: int, seconds: float, share: float) -> Progress:
    return Progress(
        epoch=0,
        epochs=1,
        step=count,
        total_steps=max(count, round(count / share)),
        images_per_second=count / seconds,
        eta_seconds=seconds * (1 - share) / share,
    )


def _format_event(event: Progress | Result) -> str:
    match event:
        case Progress(step=step, total_steps=total):
            return f"{step:,} of about {total:,} files\n"
        case Result(summary=report):
            counts = ", ".join(f"{split['images']:,} {name}" for name, split in report["splits"].items())
            lines = [f"{counts} images in {len(report['classes']):,} classes; {report['skipped_count']:,} skipped"]
            lines += [f"! {found['detail']} ({found['count']:,})" for found in report["warnings"]]
            return "".join(f"{line}\n" for line in lines)


def _parse_options(arguments: list[str] | None) -> argparse.Namespace:
    settings = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m worker.uploads.ingest", description="Pack an upload into a dataset."
    )
    parser.add_argument("upload", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the packed dataset")
    parser.add_argument("--sha256", help="of the upload, which is compared with it first")
    parser.add_argument("--reading", type=Reading.model_validate_json, default=Reading(), help="options, as JSON")
    parser.add_argument("--events", action="store_true", help="write events as JSON lines")
    for name in _LIMITS:
        default = getattr(settings, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args(arguments)


_LIMITS = (
    "max_unpacked_bytes",
    "max_unpack_ratio",
    "max_images",
    "max_image_bytes",
    "max_image_pixels",
    "ingest_memory_bytes",
    "ingest_seconds",
)


if __name__ == "__main__":
    sys.exit(main())
