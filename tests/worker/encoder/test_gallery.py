"""The gallery: turns with embedding, its cache, and its queue."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from service.errors import EncoderBusy, TooManyPixels
from service.settings import Settings
from ssl_core.data.items import Item
from ssl_core.data.pack import pack
from tests.worker.encoder import pictures
from worker.encoder import gallery
from worker.encoder.byte_cache import ByteCache
from worker.encoder.decoder import Decoder
from worker.encoder.gallery import Gallery

OWNER = "ten_a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a dataset `many` of 100 images, and `webp` of one."""
    folder = tmp_path_factory.mktemp("data")
    files = [Item(f"{number:03}.png", pictures.png(number, 70 + number, 80)) for number in range(100)]
    pack(files, folder / "many")
    pack([Item("1.webp", pictures.encoded(pictures.Image.new("RGB", (100, 90)), "WEBP"))], folder / "webp")
    return folder


def run(folder: Path, work, **settings: object):
    """Return the result of `work(gallery, decoder)`, with one thread for decoding."""

    async def run_in_loop():
        found = Settings(data_dir=folder, **settings)
        decoder = Decoder(found, threads=1)
        shown = Gallery(found, decoder)
        shown.start()
        try:
            return await work(shown, decoder)
        finally:
            shown.stop()
            decoder.stop()

    return asyncio.run(run_in_loop())


def test_an_image_to_embed_waits_for_one_thumbnail_of_its_owner_and_of_each_other(folder: Path) -> None:
    async def work(shown: Gallery, decoder: Decoder) -> list[str]:
        ended: list[str] = []

        async def draw(row: int, owner: str) -> None:
            await shown.draw_thumbnail("many", row, 32, owner)
            ended.append("thumbnail")

        async def embed() -> None:
            await decoder.run(OWNER, 0, lambda: None)
            ended.append("embedded")

        await shown.describe("many", [0], OWNER)  # opens the dataset
        drawing = [asyncio.create_task(draw(row, owner)) for row in range(100) for owner in (OWNER, "ten_b")]
        await asyncio.sleep(0)
        while not ended:
            await asyncio.sleep(0)
        before = len(ended)
        await embed()
        assert not all(task.done() for task in drawing)
        await asyncio.gather(*drawing)
        return ended[before:]

    ended = run(folder, work)
    assert ended.index("embedded") <= 4  # one that has begun, one of each owner, and one whose result is on its way
    assert len(ended) > 100


def test_thumbnails_of_a_cancelled_request_are_not_drawn(folder: Path) -> None:
    async def work(shown: Gallery, decoder: Decoder) -> int:
        tasks = [asyncio.create_task(shown.draw_thumbnail("many", row, 32, OWNER)) for row in range(100)]
        await shown.draw_thumbnail("many", 0, 64, "ten_b")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await shown.draw_thumbnail("many", 1, 64, "ten_b")
        return shown.rendered

    assert run(folder, work) < 20


def test_the_cache_holds_at_most_the_bytes_of_the_setting(folder: Path) -> None:
    async def work(shown: Gallery, decoder: Decoder) -> None:
        for row in range(100):
            await shown.draw_thumbnail("many", row, 32, OWNER)
            assert shown.cached_bytes <= 10_000
        assert shown.cached_bytes > 5_000
        rendered = shown.rendered
        await shown.draw_thumbnail("many", 99, 32, OWNER)
        assert shown.rendered == rendered
        await shown.draw_thumbnail("many", 0, 32, OWNER)
        assert shown.rendered == rendered + 1

    run(folder, work, thumbnail_cache_bytes=10_000)


def test_a_full_queue_refuses_one_owner_and_serves_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "OWNER_WAITING", 3)

    async def work(shown: Gallery, decoder: Decoder) -> None:
        draw = partial(shown.draw_thumbnail, "many", size=32)
        tasks = [asyncio.create_task(draw(row=row, owner=OWNER)) for row in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(EncoderBusy) as busy:
            await draw(row=4, owner=OWNER)
        assert busy.value.retry_after == 1
        assert await draw(row=4, owner="ten_b")
        assert all(await asyncio.gather(*tasks))
        assert await draw(row=5, owner=OWNER)

    run(folder, work)


def test_an_image_with_a_costly_decoder_has_a_limit(folder: Path) -> None:
    async def work(shown: Gallery, decoder: Decoder) -> None:
        with pytest.raises(TooManyPixels, match="at most 1,000 of a WEBP image"):
            await shown.draw_thumbnail("webp", 0, 32, OWNER)

    run(folder, work, embed_max_costly_pixels=1_000)


def test_the_least_recently_used_values_leave_a_byte_cache() -> None:
    cache = ByteCache(10)
    cache.put("a", b"1234")
    cache.put("b", b"1234")
    assert cache.get("a") == b"1234"
    cache.put("c", b"1234")
    assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.size) == (b"1234", None, b"1234", 8)
    cache.put("a", b"1")
    cache.put("d", b"12345678901")
    assert (cache.get("a"), cache.get("c"), cache.get("d"), cache.size) == (b"1", b"1234", None, 5)
