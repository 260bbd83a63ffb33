"""Ingestion: from an upload to a packed dataset, in a process that may do little else.

`python -m worker.uploads.ingest UPLOAD --out DIR` is a child of the supervisor; with `--events` it says how it goes as JSON
lines (`ssl_core.events`) and nothing else on stdout. It ends with 0, or 1 when the upload is at fault, 70 when
something else is, 75 when it was told to stop. Limits that are not given are those of the settings.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from service.settings import Settings
from ssl_core.data.pack import OnBadFile, Packer, PackError
from ssl_core.events import Event, Progress, Result
from worker.uploads import archives, process, sandbox
from worker.uploads.limits import Limits

_PROGRESS_SECONDS = 0.5


def ingest(upload: Path, out: Path, on_bad_file: OnBadFile, limits: Limits) -> Iterator[Event]:
    """Pack the upload into `out`; the last event is a Result with the report, or Failed."""
    return process.guarded(_packing(upload, out, on_bad_file, limits), PackError)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _options(arguments)
    limits = Limits(
        options.max_unpacked_bytes,
        options.max_unpack_ratio,
        options.max_images,
        options.max_image_bytes,
        options.max_image_pixels,
    )
    process.heed()
    sandbox.enter(
        sandbox.Allowance(options.ingest_memory_bytes, int(options.ingest_seconds), 2 * options.max_unpacked_bytes)
    )
    return process.tell(
        ingest(options.upload, options.out, options.on_bad_file, limits), None if options.events else _sentence
    )


def _packing(upload: Path, out: Path, on_bad_file: OnBadFile, limits: Limits) -> Iterator[Event]:
    out.mkdir(parents=True, exist_ok=True)
    with (
        upload.open("rb") as file,
        Packer(out, on_bad_file=on_bad_file, max_images=limits.images, max_pixels=limits.image_pixels) as packer,
    ):
        began = said = time.monotonic()
        size = upload.stat().st_size
        for count, item in enumerate(archives.read(file, limits), 1):
            packer.add(item)
            if time.monotonic() - said >= _PROGRESS_SECONDS:
                said = time.monotonic()
                yield _progress(count, said - began, _share(file, size))
        yield Result(packer.finish())


def _share(file: IO[bytes], size: int) -> float:
    """Return how much of the upload has been read, between 0 and 1."""
    return min(1.0, max(file.tell(), 1) / max(size, 1))


def _progress(count: int, seconds: float, share: float) -> Progress:
    return Progress(
        epoch=0,
        epochs=1,
        step=count,
        total_steps=max(count, round(count / share)),
        images_per_second=count / seconds,
        eta_seconds=seconds * (1 - share) / share,
    )


def _sentence(event: Progress | Result) -> str:
    match event:
        case Progress(step=step, total_steps=total):
            return f"{step:,} of about {total:,} files\n"
        case Result(summary=report):
            counts = ", ".join(f"{split['images']:,} {name}" for name, split in report["splits"].items())
            return f"{counts} images in {len(report['classes']):,} classes; {report['skipped_count']:,} skipped\n"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    settings = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m worker.uploads.ingest", description="Turn an upload into a packed dataset."
    )
    parser.add_argument("upload", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the packed dataset")
    parser.add_argument("--on-bad-file", choices=("reject", "skip"), default="reject")
    parser.add_argument("--events", action="store_true", help="say how it goes as JSON lines")
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
