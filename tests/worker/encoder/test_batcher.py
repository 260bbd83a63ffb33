"""Dynamic batching: shared batches, batch sizes, admission and cancellation."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.errors import EncoderBusy, EncoderFailed
from worker.encoder.batcher import Batcher, batch_sizes, choose_batch_size


class SumForward:
    """A forward pass that sums each image's bytes and records batch sizes; it can be blocked and broken."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.broken = False

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.may_run.wait(10)
        if self.broken:
            raise RuntimeError("broken on purpose")
        self.batches.append(len(batch))
        return batch.reshape(len(batch), -1).sum(1, keepdims=True, dtype=np.float32)


def image(value: int) -> np.ndarray:
    return np.full((1, 1, 3), value, np.uint8)


def run(test: Callable[[Batcher], Coroutine], *, max_batch: int = 8, wait_seconds: float = 0.02, max_images: int = 100):
    async def with_batcher() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(executor=executor, max_batch=max_batch, wait_seconds=wait_seconds, max_images=max_images)
            task = asyncio.create_task(batcher.run())
            await asyncio.wait_for(test(batcher), 20)
            task.cancel()

    asyncio.run(with_batcher())


async def run_pending_tasks() -> None:
    """Let every task run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_batch_sizes_are_powers_of_two_and_the_largest_batch() -> None:
    assert batch_sizes(64) == [1, 2, 4, 8, 16, 32, 64]
    assert batch_sizes(48) == [1, 2, 4, 8, 16, 32, 48]
    assert batch_sizes(1) == [1]


@pytest.mark.parametrize(
    ("waiting", "size"), [(1, 1), (2, 2), (3, 4), (5, 4), (6, 8), (33, 32), (47, 32), (48, 64), (64, 64), (500, 64)]
)
def test_a_batch_is_padded_by_at_most_a_quarter(waiting: int, size: int) -> None:
    assert choose_batch_size(waiting, batch_sizes(64)) == size


def test_concurrent_requests_share_a_batch_and_each_gets_its_own_result() -> None:
    forward = SumForward()

    async def test(batcher: Batcher) -> None:
        work = [batcher.encode(forward, [image(3 * i), image(3 * i + 1)]) for i in range(4)]
        answers = await asyncio.gather(*work)
        assert [answer.ravel().tolist() for answer in answers] == [[9 * i, 9 * i + 3] for i in range(4)]

    run(test)
    assert forward.batches == [8]


def test_a_request_larger_than_a_batch_is_split_and_concatenated_in_order() -> None:
    forward = SumForward()

    async def test(batcher: Batcher) -> None:
        answer = await batcher.encode(forward, [image(i) for i in range(21)])
        assert answer.ravel().tolist() == [3 * i for i in range(21)]
        assert batcher.counts.images == 21

    run(test)
    assert forward.batches == [8, 8, 4, 1]


def test_different_layers_do_not_share_batches() -> None:
    one, other = SumForward(), SumForward()

    async def test(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.encode(forward, [image(1)]) for forward in (one, other, one, other)))

    run(test)
    assert one.batches == other.batches == [2]


def test_a_single_image_runs_after_the_waiting_time() -> None:
    forward = SumForward()

    async def test(batcher: Batcher) -> None:
        assert (await batcher.encode(forward, [image(5)])).tolist() == [[15]]

    run(test)
    assert forward.batches == [1]


def test_images_beyond_the_queue_limit_are_refused_until_there_is_room() -> None:
    async def test(batcher: Batcher) -> None:
        with batcher.admit(3):
            with pytest.raises(EncoderBusy) as refused, batcher.admit(2):
                pass
            assert refused.value.retry_after
            with batcher.admit(1):
                assert batcher.admitted == 4
        assert batcher.admitted == 0
        with batcher.admit(9):  # an empty queue admits any request
            pass

    run(test, max_images=4)


def test_one_owner_cannot_fill_the_queue() -> None:
    async def test(batcher: Batcher) -> None:
        with batcher.admit(4, "a"):
            with pytest.raises(EncoderBusy), batcher.admit(1, "a"):
                pass
            with batcher.admit(1, "b"), batcher.admit(1, "b"), pytest.raises(EncoderBusy), batcher.admit(1, "b"):
                pass
        assert batcher.admitted == 0

    run(test, max_images=4)


@pytest.mark.parametrize("wait_seconds", [0, 10])
def test_an_image_of_one_owner_waits_for_one_batch_of_another(wait_seconds: float) -> None:
    many, one = SumForward(), SumForward()
    many.batches = one.batches
    many.may_run.clear()

    async def test(batcher: Batcher) -> None:
        work = [asyncio.create_task(batcher.encode(many, [image(1)] * images, "a")) for images in (24, 16)]
        await run_pending_tasks()  # the first batch is in the executor, which is blocked
        work += [asyncio.create_task(batcher.encode(one, [image(1)], owner)) for owner in ("b", "c")]
        await run_pending_tasks()
        many.may_run.set()
        await asyncio.gather(*work)

    run(test, wait_seconds=wait_seconds)
    assert one.batches == [8, 1, 1, 8, 8, 8, 8]


def test_a_request_cancelled_before_its_batch_is_not_computed() -> None:
    forward = SumForward()
    forward.may_run.clear()

    async def test(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.encode(forward, [image(1)] * 8))
        await run_pending_tasks()  # the first batch is in the executor, which is blocked
        cancelled = asyncio.create_task(batcher.encode(forward, [image(2)] * 20))
        other = asyncio.create_task(batcher.encode(forward, [image(3)]))
        await run_pending_tasks()
        cancelled.cancel()
        forward.may_run.set()
        assert (await first).shape == (8, 1)
        assert (await other).tolist() == [[9]]
        assert cancelled.cancelled()

    run(test)
    assert forward.batches == [8, 1]


def test_a_failed_batch_raises_and_the_next_one_is_computed(caplog: pytest.LogCaptureFixture) -> None:
    forward = SumForward()

    async def test(batcher: Batcher) -> None:
        forward.broken = True
        with pytest.raises(EncoderFailed):
            await batcher.encode(forward, [image(1)] * 20)
        forward.broken = False
        assert (await batcher.encode(forward, [image(1)])).tolist() == [[3]]

    run(test)
    assert "broken on purpose" in caplog.text
