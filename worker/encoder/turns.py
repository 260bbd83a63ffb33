"""Turns between owners: functions run on an executor, those of one owner in order, and owners one after the other."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class Rotation:
    """An order of owners: the one that was served the longest time ago comes first."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}  # owner -> number of its last turn
        self._turns = 0

    def first(self, owners: Collection[str]) -> str:
        """Of several that were not served yet, the first."""
        return min(owners, key=lambda owner: self._served.get(owner, 0))

    def serve(self, owner: str) -> None:
        self._turns += 1
        self._served[owner] = self._turns


@dataclass(eq=False)
class _Task:
    function: Callable[[], Any]
    cost: int
    result: asyncio.Future[Any]


class Turns:
    """At most `slots` functions at a time, which cost at most `budget` together; one alone may cost more.

    Belongs to one event loop.
    """

    def __init__(self, executor: Executor, *, slots: int, budget: int) -> None:
        self._executor = executor
        self._slots = slots
        self._budget = budget
        self._running = self._cost = 0
        self._rotation = Rotation()
        self._queues: dict[str, deque[_Task]] = {}

    async def run(self, owner: str, cost: int, function: Callable[[], T]) -> T:
        """Return the function's result. When cancelled before its turn, it is dropped."""
        task = _Task(function, cost, asyncio.get_running_loop().create_future())
        self._queues.setdefault(owner, deque()).append(task)
        self._start()
        result: T = await task.result
        return result

    def _start(self) -> None:
        """Start the functions whose turn it is, as long as they fit; one that does not fit is not overtaken."""
        while self._queues and self._running < self._slots:
            owner = self._rotation.first(self._queues)
            queue = self._queues[owner]
            task = queue[0]
            cancelled = task.result.done()
            if not cancelled and self._running and self._cost + task.cost > self._budget:
                return
            queue.popleft()
            if not queue:
                del self._queues[owner]
            if not cancelled:
                self._rotation.serve(owner)
                self._launch(task)

    def _launch(self, task: _Task) -> None:
        self._running += 1
        self._cost += task.cost
        work = asyncio.get_running_loop().run_in_executor(self._executor, task.function)
        work.add_done_callback(lambda done: self._end(task, done))

    def _end(self, task: _Task, work: asyncio.Future[Any]) -> None:
        self._running -= 1
        self._cost -= task.cost
        if not task.result.done():
            if work.cancelled():  # the executor was shut down
                task.result.cancel()
            elif error := work.exception():
                task.result.set_exception(error)
            else:
                task.result.set_result(work.result())
        elif not work.cancelled():
            work.exception()  # retrieved, so that asyncio does not report it
        self._start()
