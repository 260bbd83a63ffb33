"""Timeouts: processes wait longer for what the first one does alone than for a peer that hangs in a step."""

import os
import socket
import time
from datetime import timedelta

import torch

from ssl_core.distributed import collectives, process_group

TIMEOUT_SECONDS, LATE_SECONDS = 2, 5


def run_rank(rank, port, folder):
    """Run one of two processes, of which the first is late: for a decision, and then for a step."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= place | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    process_group.count_devices = lambda device: 2
    process_group._TIMEOUT = timedelta(seconds=TIMEOUT_SECONDS)
    with process_group.process_group(2, "cpu"):
        if rank == 0:
            time.sleep(LATE_SECONDS)
        decision = collectives.broadcast_decision(rank == 0)
        total = collectives.mean(torch.tensor(1.0 + rank))
        if rank == 0:
            time.sleep(LATE_SECONDS)
        error = ""
        try:
            collectives.mean(total)
        except RuntimeError as raised:
            error = str(raised)
    torch.save((decision, total.item(), error), folder / f"{rank}.pt")


def test_a_late_decision_is_waited_for_and_a_late_peer_in_a_step_is_not(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(run_rank, (port, tmp_path), nprocs=2)
    decision, total, error = torch.load(tmp_path / "1.pt")
    assert (decision, total) == (True, 1.5)
    assert "Timed out" in error


def test_a_decision_may_take_longer_than_the_collectives_of_a_step():
    assert process_group._DECISION_TIMEOUT > process_group._TIMEOUT
    assert collectives._decision_group is None  # outside a run
