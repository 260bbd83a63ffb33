"""TensorBoard event files, decoded record by record with an independent checksum."""

import struct

from tensorboardX.proto.event_pb2 import Event

from ssl_core.reports.history import History
from ssl_core.reports.tensorboard import NAME, build_event_file


def crc32c(data):
    """CRC-32C (Castagnoli), bit by bit, as in RFC 3720, appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12]) == (masked(data[:8]),)
        body, data = data[12 : 12 + length], data[12 + length :]
        assert struct.unpack("<I", data[:4]) == (masked(body),)
        yield body
        data = data[4:]


def test_the_reference_checksum_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283


def test_the_file_has_every_finite_point():
    history = History()
    history.add(1, 1000.5, {"train/loss": 2.0, "train/lr": 0.5})
    history.add(2, 1001.5, {"train/loss": None, "online/knn": 0.25})
    first, *events = [Event.FromString(body) for body in records(build_event_file(history))]
    assert (first.file_version, first.wall_time) == ("brain.Event:2", 1000.5)
    found = [(event.step, event.wall_time, *_scalars(event)) for event in events]
    assert found == [
        (1, 1000.5, ("train/loss", 2.0)),
        (1, 1000.5, ("train/lr", 0.5)),
        (2, 1001.5, ("online/knn", 0.25)),
    ]


def test_a_history_without_points_gives_a_valid_file():
    assert [Event.FromString(body).file_version for body in records(build_event_file(History()))] == ["brain.Event:2"]


def test_tensorboard_finds_the_file_by_its_name():
    assert "tfevents" in NAME


def _scalars(event):
    return [(value.tag, value.simple_value) for value in event.summary.value]
