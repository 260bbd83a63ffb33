"""Tests of the batcher: what shares a batch, what a batch holds, what is refused and what is dropped."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.errors import EncoderBusy, EncoderFailed
from worker.encoder.batcher import Batcher, bucket, buckets


class Sums:
    """A lane whose feature is the sum of an image's bytes; it notes the batches, and can be held and broken."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.held = threading.Event()
        self.held.set()
        self.broken = False

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.held.wait(10)
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


async def resolved() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_buckets_are_powers_of_two_and_the_largest_batch() -> None:
    assert buckets(64) == [1, 2, 4, 8, 16, 32, 64]
    assert buckets(48) == [1, 2, 4, 8, 16, 32, 48]
    assert buckets(1) == [1]


@pytest.mark.parametrize(
    ("waiting", "size"), [(1, 1), (2, 2), (3, 4), (5, 4), (6, 8), (33, 32), (47, 32), (48, 64), (64, 64), (500, 64)]
)
def test_a_batch_is_filled_up_only_when_little_is_missing(waiting: int, size: int) -> None:
    assert bucket(waiting, buckets(64)) == size


def test_requests_that_come_together_share_a_batch_and_each_gets_its_own() -> None:
    lane = Sums()

    async def test(batcher: Batcher) -> None:
        work = [batcher.encode(lane, [image(3 * i), image(3 * i + 1)]) for i in range(4)]
        answers = await asyncio.gather(*work)
        assert [answer.ravel().tolist() for answer in answers] == [[9 * i, 9 * i + 3] for i in range(4)]

    run(test)
    assert lane.batches == [8]


def test_a_request_larger_than_a_batch_is_split_and_put_together_in_order() -> None:
    lane = Sums()

    async def test(batcher: Batcher) -> None:
        answer = await batcher.encode(lane, [image(i) for i in range(21)])
        assert answer.ravel().tolist() == [3 * i for i in range(21)]
        assert batcher.counts.images == 21

    run(test)
    assert lane.batches == [8, 8, 4, 1]


def test_lanes_do_not_mix() -> None:
    one, other = Sums(), Sums()

    async def test(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.encode(lane, [image(1)]) for lane in (one, other, one, other)))

    run(test)
    assert one.batches == other.batches == [2]


def test_a_lone_image_leaves_when_it_has_waited_long_enough() -> None:
    lane = Sums()

    async def test(batcher: Batcher) -> None:
        assert (await batcher.encode(lane, [image(5)])).tolist() == [[15]]

    run(test)
    assert lane.batches == [1]


def test_more_than_may_wait_is_refused_until_there_is_room() -> None:
    async def test(batcher: Batcher) -> None:
        with batcher.admit(3):
            with pytest.raises(EncoderBusy) as refused, batcher.admit(2):
                pass
            assert refused.value.retry_after
            with batcher.admit(1):
                assert batcher.admitted == 4
        assert batcher.admitted == 0
        with batcher.admit(9):  # an empty house: else such a request could never be served
            pass

    run(test, max_images=4)


def test_what_was_cancelled_before_its_batch_is_never_computed() -> None:
    lane = Sums()
    lane.held.clear()

    async def test(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.encode(lane, [image(1)] * 8))
        await resolved()  # the first batch is with the executor, which is held
        gone = asyncio.create_task(batcher.encode(lane, [image(2)] * 20))
        stays = asyncio.create_task(batcher.encode(lane, [image(3)]))
        await resolved()
        gone.cancel()
        lane.held.set()
        assert (await first).shape == (8, 1)
        assert (await stays).tolist() == [[9]]
        assert gone.cancelled()

    run(test)
    assert lane.batches == [8, 1]


def test_a_batch_that_fails_says_so_and_the_next_one_is_served(caplog: pytest.LogCaptureFixture) -> None:
    lane = Sums()

    async def test(batcher: Batcher) -> None:
        lane.broken = True
        with pytest.raises(EncoderFailed):
            await batcher.encode(lane, [image(1)] * 20)
        lane.broken = False
        assert (await batcher.encode(lane, [image(1)])).tolist() == [[3]]

    run(test)
    assert "broken on purpose" in caplog.text
