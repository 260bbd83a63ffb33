"""TensorBoard event file: the metric history of a run, one scalar for each point."""

import struct

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from ssl_core.reports.history import History

NAME = "events.out.tfevents.twoviews"  # TensorBoard reads files with `tfevents` in their names
_VERSION = "brain.Event:2"


def build_event_file(history: History) -> bytes:
    """Return the bytes of the file: the points by ascending step, without non-finite values."""
    points = sorted(
        (step, time, name, value)
        for name, series in history.series.items()
        for step, time, value in zip(series.step, series.time, series.value, strict=True)
        if value is not None
    )
    first = min((time for _, time, _, _ in points), default=0.0)
    events = [Event(wall_time=first, file_version=_VERSION), *(_build_scalar(*point) for point in points)]
    return b"".join(_encode_record(event.SerializeToString()) for event in events)


def _build_scalar(step: int, time: float, name: str, value: float) -> Event:
    return Event(step=step, wall_time=time, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))


def _encode_record(data: bytes) -> bytes:
    """Return a TFRecord: the length and the data, each followed by its masked CRC-32C, all little-endian."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
