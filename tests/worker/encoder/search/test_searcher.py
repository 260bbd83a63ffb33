"""The searcher: indexes opened once, evicted and closed when idle; questions that do not wait for others."""

import asyncio
import gc
import threading
from pathlib import Path

import numpy as np
import pytest

from service.errors import Corrupt, EncoderBusy, TooMuchWork
from service.indexes.queries import Duplicates, Nearest, Selection
from service.settings import Settings
from ssl_core.checksums import document
from tests.worker.indexes.test_build import build_here, embedded
from worker.encoder.search import answers
from worker.encoder.search import searcher as module
from worker.encoder.search.index import Index
from worker.encoder.search.searcher import OWNER_LONG_WAITING, Searcher

IMAGES = embedded.draw(400, dim=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data folder with the indexes a, b and c."""
    root = tmp_path_factory.mktemp("data")
    for name in "abc":
        build_here(root / name, IMAGES)
    return root


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The names of the indexes that are opened."""
    names: list[str] = []
    real = Index.open

    def record(path: Path) -> Index:
        names.append(path.parent.name)
        return real(path)

    monkeypatch.setattr(Index, "open", record)
    return names


def run(folder, work, **settings):
    """Run `work(searcher)` in an event loop."""

    async def start():
        searcher = Searcher(Settings(data_dir=folder, **settings))
        searcher.start()
        try:
            return await asyncio.wait_for(work(searcher), 60)
        finally:
            searcher.stop()

    gc.collect()  # searchers of other tests, which refer to themselves
    return asyncio.run(start())


def size_of(folder) -> int:
    return document.read(folder / "a" / "index" / "index.json")["report"]["bytes"]


def maps(folder) -> set[str]:
    """The files of the folder that are mapped into the memory of this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split()[-1]).relative_to(folder).parts[0] for line in lines if str(folder) in line}


def test_an_index_is_opened_once_for_many_questions(folder, opened):
    async def work(searcher):
        answers = await asyncio.gather(*(searcher.answer("a/index", Nearest(row=3), f"ten_{n % 3}") for n in range(20)))
        assert all(answer == answers[0] for answer in answers)
        assert searcher.names() == ["a/index"]
        return searcher.searches

    assert run(folder, work) == 20
    assert opened == ["a"]


def test_beyond_the_bytes_the_one_used_longest_ago_is_unmapped(folder, opened):
    async def work(searcher):
        for name in "abac":
            await searcher.answer(f"{name}/index", Nearest(row=1), "ten_a")
        assert searcher.names() == ["a/index", "c/index"]
        assert maps(folder) == {"a", "c"}
        found = await searcher.answer("b/index", Nearest(row=1), "ten_a")
        assert len(found["data"]) == 10

    run(folder, work, index_open_bytes=int(2.5 * size_of(folder)))
    assert opened == ["a", "b", "c", "b"]


def test_one_index_may_be_larger_than_the_bytes(folder):
    async def work(searcher):
        return await searcher.answer("a/index", Nearest(row=1), "ten_a")

    assert len(run(folder, work, index_open_bytes=1)["data"]) == 10


def test_an_idle_index_is_closed(folder):
    async def work(searcher):
        await searcher.answer("a/index", Nearest(row=1), "ten_a")
        assert maps(folder) == {"a"}
        while searcher.names():
            await asyncio.sleep(0.02)
        assert maps(folder) == set()

    run(folder, work, embed_idle_seconds=0.2)


def test_duplicates_by_a_threshold_that_very_many_reach_are_refused_before_any_work(folder, monkeypatch):
    monkeypatch.setattr(answers, "MOST_LISTED", 12_000)
    refused, answered = (Duplicates(threshold=threshold, limit=5, across_splits=False) for threshold in (0.0, 0.9))

    async def work(searcher):
        with pytest.raises(TooMuchWork, match=r"12,\d{3} neighbours have a similarity of at least 0, ") as error:
            await searcher.answer("a/index", refused, "ten_a")
        assert [fault["pointer"] for fault in error.value.errors] == ["threshold"]
        assert len((await searcher.answer("a/index", answered, "ten_a"))["data"]) == 5

    run(folder, work)


def test_a_search_does_not_wait_for_a_long_question_of_another_owner(folder, monkeypatch):
    release, real = threading.Event(), module.answer

    def hold(query, *arguments):
        if isinstance(query, Selection):
            assert release.wait(30)
        return real(query, *arguments)

    monkeypatch.setattr(module, "answer", hold)

    async def work(searcher):
        selecting = asyncio.create_task(searcher.answer("a/index", Selection(n=3), "ten_a"))
        await asyncio.sleep(0.05)
        assert len((await searcher.answer("a/index", Nearest(row=1), "ten_b"))["data"]) == 10
        assert not selecting.done()
        release.set()
        assert len((await selecting)["data"]) == 3

    run(folder, work)


def test_one_owner_cannot_fill_the_queue_of_long_questions(folder, monkeypatch):
    release, real = threading.Event(), module.answer

    def hold(*arguments):
        assert release.wait(30)
        return real(*arguments)

    monkeypatch.setattr(module, "answer", hold)

    async def work(searcher):
        def ask(owner):
            return asyncio.create_task(searcher.answer("a/index", Selection(n=1), owner))

        own = [ask("ten_a") for _ in range(OWNER_LONG_WAITING)]
        await asyncio.sleep(0.05)
        with pytest.raises(EncoderBusy):
            await ask("ten_a")
        other = ask("ten_b")
        await asyncio.sleep(0.05)
        release.set()
        assert len(await asyncio.gather(*own, other)) == OWNER_LONG_WAITING + 1

    run(folder, work)


def test_a_file_that_is_cut_short_is_an_error_and_not_the_end_of_the_process(folder, tmp_path):
    index = build_here(tmp_path / "cut", IMAGES)
    path = tmp_path / "cut" / "index" / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-4])
    assert len(index) == 400

    async def work(searcher):
        with pytest.raises(Corrupt):
            await searcher.answer("cut/index", Nearest(row=1), "ten_a")
        with pytest.raises(Corrupt):
            await searcher.answer("missing/index", Nearest(row=1), "ten_a")
        assert searcher.names() == []

    run(tmp_path, work)


def test_a_query_of_another_size_is_refused(folder):
    async def work(searcher):
        with pytest.raises(Corrupt, match="another size"):
            await searcher.answer("a/index", Nearest(body="image"), "ten_a", np.ones((1, 7), np.float32))

    run(folder, work)
