"""Tests of the model cache: loaded once, kept by least recent use, dropped when idle."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.encoder.model_cache import ModelCache


class Shelf:
    """Loads a name as its upper case, and notes each load. A held shelf makes the loaders wait."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.time = 0.0
        self.missing: set[str] = set()
        self.held = threading.Event()
        self.held.set()

    def load(self, name: str) -> str:
        self.held.wait(10)
        self.loads.append(name)
        if name in self.missing:
            raise FileNotFoundError(name)
        return name.upper()


def run(shelf: Shelf, test: Callable[[ModelCache[str]], Coroutine], capacity: int = 2) -> None:
    async def with_cache() -> None:
        with ThreadPoolExecutor(1) as executor:
            clock = lambda: shelf.time  # noqa: E731
            cache = ModelCache(shelf.load, capacity=capacity, idle_seconds=10, executor=executor, clock=clock)
            await asyncio.wait_for(test(cache), 20)

    asyncio.run(with_cache())


def test_many_who_ask_at_once_share_one_load() -> None:
    shelf = Shelf()

    async def test(cache: ModelCache[str]) -> None:
        assert await asyncio.gather(*(cache.get("a") for _ in range(20))) == ["A"] * 20

    run(shelf, test)
    assert shelf.loads == ["a"]


def test_the_least_recently_used_goes_first() -> None:
    shelf = Shelf()

    async def test(cache: ModelCache[str]) -> None:
        for name in ("a", "b", "a", "c"):
            await cache.get(name)
        assert cache.names() == ["a", "c"]
        await cache.get("b")

    run(shelf, test)
    assert shelf.loads == ["a", "b", "c", "b"]


def test_an_idle_model_is_dropped_and_one_in_use_is_kept() -> None:
    shelf = Shelf()

    async def test(cache: ModelCache[str]) -> None:
        await cache.get("a")
        shelf.time = 6
        await cache.get("b")
        shelf.time = 12
        cache.drop_idle()
        assert cache.names() == ["b"]

    run(shelf, test)


def test_a_failed_load_is_told_to_all_and_tried_again_by_the_next() -> None:
    shelf = Shelf()
    shelf.missing = {"a"}

    async def test(cache: ModelCache[str]) -> None:
        failures = await asyncio.gather(*(cache.get("a") for _ in range(3)), return_exceptions=True)
        assert [type(failure) for failure in failures] == [FileNotFoundError] * 3
        shelf.missing = set()
        assert await cache.get("a") == "A"

    run(shelf, test)
    assert shelf.loads == ["a", "a"]


def test_one_who_gives_up_does_not_spoil_the_load_for_the_others() -> None:
    shelf = Shelf()
    shelf.held.clear()

    async def test(cache: ModelCache[str]) -> None:
        leaves, stays = asyncio.create_task(cache.get("a")), asyncio.create_task(cache.get("a"))
        await asyncio.sleep(0)
        leaves.cancel()
        shelf.held.set()
        assert await stays == "A"
        with pytest.raises(asyncio.CancelledError):
            await leaves

    run(shelf, test)
    assert shelf.loads == ["a"]
