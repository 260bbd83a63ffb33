"""Evaluations by two processes: each encodes about half of the images, and the first one has the accuracies of one."""

import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ssl_core import config
from ssl_core.data.dataset import Dataset
from ssl_core.device import Device
from ssl_core.distributed import collectives
from ssl_core.evaluation.distributed_features import select_share
from ssl_core.evaluation.features import BATCH
from ssl_core.training import objectives
from ssl_core.training.resolve import resolve
from ssl_core.training.training_data import TrainingData
from tests.ssl_core.digits import TINY, pack_digits

RANKS = 2
TRAIN, TEST = 1_100, 600  # images: 4.3 and 2.3 batches
KINDS = {"pretrain": {"method": {"name": "simclr"}}, "supervised": {}}


def evaluate(folder, kind):
    """Return the accuracies of a random network, and the images that were kept and then encoded for each of them."""
    dataset = Dataset.open(folder)
    asked = config.parse({**TINY, **KINDS[kind], "epochs": 1, "precision": "fp32"}, kind)
    resolved = resolve(asked, dataset.report, Device("cpu", gains_from_bf16=False))
    data = TrainingData.of(dataset, resolved)
    torch.manual_seed(0)
    encoder = objectives.build_network(resolved, data).encoder(data.preprocessing, "fp32")
    encoded = []
    encoder.register_forward_hook(lambda _, given, __: encoded.append(len(given[0])))
    kept = [data.evaluator.images] if kind == "supervised" else [data.evaluator.train, data.evaluator.test]
    found, images = [data.evaluator.evaluate(encoder)], [sum(map(len, kept)), sum(encoded)]
    if kind == "supervised":
        found.append(data.evaluator.evaluate_test(encoder))
        images.append(sum(encoded) - images[-1])
    return found, images


def gather_uneven(rank):
    """Return the rows of both processes: none of the first one, three of the second one."""
    rows = torch.arange(6.0).view(3, 2)[: 3 * rank]
    return collectives.gather_to_first(rows, [0, 3])


def run_rank(rank, port, folder):
    """Run one of the two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    found = {kind: evaluate(folder / "digits", kind) for kind in KINDS}
    share = {count: select_share(np.arange(count)).tolist() for count in (1, BATCH, BATCH + 1, 5 * BATCH - 1)}
    torch.save((found, gather_uneven(rank), share), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    pack_digits(folder / "digits", TRAIN, TEST)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    """The results of the two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(run_rank, (port, folder), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_accuracies_of_one_and_each_encodes_about_half(kind, ranks, folder, one_thread):
    alone, images = evaluate(folder / "digits", kind)
    (first, images_first), (second, images_second) = (found[kind] for found, _, _ in ranks)
    assert first == alone  # exactly: the batches are the same
    assert second == [{}] * len(alone)
    for one, other, whole in zip(images_first, images_second, images, strict=True):
        assert one + other == whole
        assert min(one, other) >= 0.4 * whole  # whole batches: 256 and 344 of 600


def test_shares_of_unequal_size_are_gathered_in_their_order(ranks):
    (_, rows, _), (_, nothing, _) = ranks
    assert torch.equal(rows, torch.arange(6.0).view(3, 2))
    assert nothing is None


def test_shares_are_whole_batches_and_together_all_rows(ranks):
    for count in ranks[0][2]:
        shares = [share[count] for _, _, share in ranks]
        assert [*shares[0], *shares[1]] == list(range(count))
        assert len(shares[0]) % BATCH == 0
