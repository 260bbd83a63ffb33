"""Turns between owners: their order, the budget, cancelled and failed functions."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.encoder.turns import Turns


def run(test: Callable[[Turns], Coroutine], *, slots: int = 1, budget: int = 100) -> None:
    async def with_turns() -> None:
        with ThreadPoolExecutor(4) as executor:
            await asyncio.wait_for(test(Turns(executor, slots=slots, budget=budget)), 20)

    asyncio.run(with_turns())


def test_an_owner_waits_for_one_function_of_another_at_most() -> None:
    order: list[str] = []
    may_run = threading.Event()

    async def test(turns: Turns) -> None:
        def work(name: str) -> Callable[[], None]:
            return lambda: may_run.wait(10) and order.append(name)

        many = [asyncio.create_task(turns.run("a", 1, work(f"a{number}"))) for number in range(4)]
        await asyncio.sleep(0)  # the first of them runs
        others = [asyncio.create_task(turns.run(owner, 1, work(owner))) for owner in ("b", "c", "b")]
        await asyncio.sleep(0)
        may_run.set()
        await asyncio.gather(*many, *others)

    run(test)
    assert order == ["a0", "b", "c", "a1", "b", "a2", "a3"]


def test_functions_at_a_time_cost_at_most_the_budget_and_one_alone_may_cost_more() -> None:
    running: list[int] = []
    sums: list[int] = []
    lock = threading.Lock()

    async def test(turns: Turns) -> None:
        def work(cost: int) -> Callable[[], None]:
            def function() -> None:
                with lock:
                    running.append(cost)
                    sums.append(sum(running))
                threading.Event().wait(0.005)
                with lock:
                    running.remove(cost)

            return function

        await asyncio.gather(*(turns.run(f"owner {i % 3}", cost, work(cost)) for i, cost in enumerate([4, 6, 7] * 4)))
        assert max(sums) == 10
        await turns.run("owner 0", 50, work(50))

    run(test, slots=3, budget=10)
    assert sums[-1] == 50


def test_a_cancelled_function_is_dropped_and_a_failed_one_raises() -> None:
    ran: list[str] = []
    may_end = threading.Event()

    async def test(turns: Turns) -> None:
        first = asyncio.create_task(turns.run("a", 1, lambda: may_end.wait(10)))
        await asyncio.sleep(0)
        dropped = asyncio.create_task(turns.run("a", 1, lambda: ran.append("dropped")))
        last = asyncio.create_task(turns.run("a", 1, lambda: 1 // 0))
        await asyncio.sleep(0)
        first.cancel()  # its function goes on, in its slot
        dropped.cancel()
        await asyncio.sleep(0.01)
        assert not last.done()
        may_end.set()
        with pytest.raises(ZeroDivisionError):
            await last
        assert await turns.run("b", 1, lambda: "free again") == "free again"

    run(test)
    assert ran == []
