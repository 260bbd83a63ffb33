"""The loading cache: one load per name, least-recently-used eviction, and idle values."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.encoder.loading_cache import LoadingCache


class Loader:
    """Loads a name as its upper case and records each load; it can be blocked."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.time = 0.0
        self.missing: set[str] = set()
        self.may_load = threading.Event()
        self.may_load.set()

    def load(self, name: str) -> str:
        self.may_load.wait(10)
        self.loads.append(name)
        if name in self.missing:
            raise FileNotFoundError(name)
        return name.upper()


def run(
    loader: Loader, test: Callable[[LoadingCache[str]], Coroutine], capacity: int = 2, max_bytes: int = 10**9
) -> None:
    async def with_cache() -> None:
        with ThreadPoolExecutor(1) as executor:
            clock = lambda: loader.time  # noqa: E731
            cache = LoadingCache(
                loader.load,
                capacity=capacity,
                max_bytes=max_bytes,
                measure=len,
                idle_seconds=10,
                executor=executor,
                clock=clock,
            )
            await asyncio.wait_for(test(cache), 20)

    asyncio.run(with_cache())


def test_concurrent_calls_share_one_load() -> None:
    loader = Loader()

    async def test(cache: LoadingCache[str]) -> None:
        assert await asyncio.gather(*(cache.get("a") for _ in range(20))) == ["A"] * 20

    run(loader, test)
    assert loader.loads == ["a"]


def test_the_least_recently_used_model_is_evicted_first() -> None:
    loader = Loader()

    async def test(cache: LoadingCache[str]) -> None:
        for name in ("a", "b", "a", "c"):
            await cache.get(name)
        assert cache.names() == ["a", "c"]
        await cache.get("b")

    run(loader, test)
    assert loader.loads == ["a", "b", "c", "b"]


def test_an_idle_model_is_dropped_and_a_recent_one_kept() -> None:
    loader = Loader()

    async def test(cache: LoadingCache[str]) -> None:
        await cache.get("a")
        loader.time = 6
        await cache.get("b")
        loader.time = 12
        cache.drop_idle()
        assert cache.names() == ["b"]

    run(loader, test)


def test_a_failed_load_raises_in_every_caller_and_the_next_call_tries_again() -> None:
    loader = Loader()
    loader.missing = {"a"}

    async def test(cache: LoadingCache[str]) -> None:
        failures = await asyncio.gather(*(cache.get("a") for _ in range(3)), return_exceptions=True)
        assert [type(failure) for failure in failures] == [FileNotFoundError] * 3
        loader.missing = set()
        assert await cache.get("a") == "A"

    run(loader, test)
    assert loader.loads == ["a", "a"]


def test_a_cancelled_caller_does_not_cancel_the_load_of_others() -> None:
    loader = Loader()
    loader.may_load.clear()

    async def test(cache: LoadingCache[str]) -> None:
        cancelled, other = asyncio.create_task(cache.get("a")), asyncio.create_task(cache.get("a"))
        await asyncio.sleep(0)
        cancelled.cancel()
        loader.may_load.set()
        assert await other == "A"
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    run(loader, test)
    assert loader.loads == ["a"]


def test_an_owner_with_many_models_loses_its_own() -> None:
    loader = Loader()

    async def test(cache: LoadingCache[str]) -> None:
        await cache.get("b1", "b")
        for number in range(1, 6):
            await cache.get(f"a{number}", "a")
        assert cache.names() == ["b1", "a3", "a4", "a5"]
        await cache.get("b2", "b")  # a holds more than b
        assert cache.names() == ["b1", "a4", "a5", "b2"]
        await cache.get("b3", "b")  # b holds more than a
        assert cache.names() == ["a4", "a5", "b2", "b3"]
        await cache.get("c1", "c")  # a and b hold as many: the one used longest ago
        assert cache.names() == ["a5", "b2", "b3", "c1"]

    run(loader, test, capacity=4)
    assert loader.loads.count("b1") == 1


def test_bytes_are_bounded_in_fairness_to_owners() -> None:
    loader = Loader()

    async def test(cache: LoadingCache[str]) -> None:
        await cache.get("b" * 3, "b")
        await cache.get("a" * 4, "a")
        await cache.get("aa", "a")
        assert cache.names() == ["bbb", "aaaa", "aa"]
        await cache.get("aaaaa", "a")  # 14 bytes, 11 of them of a
        assert cache.names() == ["bbb", "aa", "aaaaa"]
        await cache.get("c" * 20, "c")  # more than all
        assert cache.names() == ["c" * 20]

    run(loader, test, capacity=9, max_bytes=10)
