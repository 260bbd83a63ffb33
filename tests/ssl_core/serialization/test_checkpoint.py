"""Checkpoints: saving, loading, pruning, and refusal of damaged and foreign files."""

import errno
import hashlib
import pickle
import tracemalloc
from pathlib import Path

import pytest
import torch

from ssl_core.errors import BadCheckpoint
from ssl_core.files import HashedStream
from ssl_core.serialization import checkpoint, checkpoint_files


def test_the_loaded_state_equals_the_saved_one(tmp_path):
    written = checkpoint.save(tmp_path, 12, {"method": {"w": torch.arange(3.0)}, "metrics": {"train/loss": None}})
    assert written.path.name == "checkpoint-000000012.pt"
    assert written.size_bytes == written.path.stat().st_size
    state = checkpoint.load(written.path)
    assert state["step"] == 12
    assert state["metrics"] == {"train/loss": None}
    torch.testing.assert_close(state["method"]["w"], torch.arange(3.0))
    assert [path.name for path in tmp_path.iterdir()] == [written.path.name]  # without a temporary file


def test_a_state_is_hashed_as_it_is_written_and_not_copied(tmp_path):
    state = {"method": {"w": torch.rand(2**23)}}  # 32 MiB
    tracemalloc.start()
    try:
        written = checkpoint.save(tmp_path, 1, state)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written.size_bytes == written.path.stat().st_size > 2**25
    assert written.sha256 == hashlib.sha256(written.path.read_bytes()).hexdigest()
    assert peak_bytes < 2**21


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_no_error_inside_of_torch():
    with open("/dev/full", "wb", buffering=0) as disk:
        stream = HashedStream(disk)
        torch.save({"w": torch.rand(2**16)}, stream)
    assert stream.error.errno == errno.ENOSPC
    assert stream.size_bytes == 0


def test_the_newest_has_the_highest_step_and_pruning_deletes_the_oldest(tmp_path):
    assert checkpoint_files.find_newest(tmp_path) is None
    for step in (3, 2_000_000_000, 40, 20):
        checkpoint.save(tmp_path, step, {})
    (tmp_path / "checkpoint-x.pt").touch()
    assert checkpoint_files.find_newest(tmp_path).name == "checkpoint-2000000000.pt"
    checkpoint_files.prune(tmp_path, keep=2, up_to=40)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint-x.pt", *map(checkpoint_files.file_name, (20, 40, 2_000_000_000))}


class Explosive:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "noise", "code", "another"])
def test_a_damaged_or_foreign_file_is_refused(tmp_path, damage, capsys):
    path = checkpoint.save(tmp_path, 1, {"method": {"w": torch.rand(1000)}}).path
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "code":
        torch.save({"format": 1, "step": 1, "method": Explosive()}, path)
    elif damage == "another":
        torch.save([1, 2], path)
    else:
        flipped = whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
        path.write_bytes(
            {"empty": b"", "cut": whole[: len(whole) // 2], "flipped": flipped, "noise": pickle.dumps(3, protocol=2)}[
                damage
            ]
        )
    with pytest.raises(BadCheckpoint, match=path.name):
        checkpoint.load(path)
    assert "executed" not in capsys.readouterr().out
