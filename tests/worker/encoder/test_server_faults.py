"""Faults of the encoder server: a full queue, disconnected clients, SIGTERM, kill -9."""

import asyncio
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.encoder.client import EncoderClient
from service.errors import EncoderAway, EncoderBusy, Error, LayerNotFound, NotAnImage, TooManyPixels
from tests.worker.encoder import pictures
from tests.worker.encoder.server import OWNER, Server, features, problem


def test_a_format_with_a_costly_decoder_has_a_limit_of_its_own(small_encoder: Server) -> None:
    webp = pictures.encoded(pictures.Image.new("RGB", (40, 30)), "WEBP")
    answer = small_encoder.encode([webp])
    assert problem(answer) == (422, "not_an_image", ["/images/0"])
    assert "at most 1,000 of a WEBP image" in answer.json()["detail"]


def test_a_full_queue_refuses_until_there_is_room(small_encoder: Server) -> None:
    held = small_encoder.begin([pictures.png(0)] * 3, sent=10)  # three places are reserved before the body is read
    small_encoder.until(waiting=3)
    answer = small_encoder.encode([pictures.png(1)] * 2)
    assert problem(answer) == (503, "encoder_busy", [])
    assert int(answer.headers["retry-after"]) > 0
    held.close()
    small_encoder.until(waiting=0)
    assert len(features(small_encoder.encode([pictures.png(1)] * 4))) == 4


def test_the_work_of_a_disconnected_client_is_dropped(small_encoder: Server) -> None:
    features(small_encoder.encode([pictures.png(0)] * 4))  # loads the model
    before = small_encoder.health()["images"]
    blobs = [pictures.png(0)] * 2
    connection = small_encoder.begin(blobs, sent=sum(map(len, blobs)))
    small_encoder.until(waiting=2)
    connection.close()
    small_encoder.until(waiting=0)
    features(small_encoder.encode([pictures.png(1)] * 4))
    assert small_encoder.health()["images"] == before + 4


def test_tcp_needs_the_token(small_encoder: Server) -> None:
    for header in ("", "Bearer wrong", "Bearer"):
        answer = small_encoder.encode([pictures.png(0)], Authorization=header)
        assert problem(answer) == (401, "wrong_key", [])
    assert len(features(small_encoder.encode([pictures.png(0)] * 4))) == 4


def test_sigterm_answers_the_admitted_requests_first(small_encoder: Server) -> None:
    features(small_encoder.encode([pictures.png(0)] * 4))
    blobs = [pictures.png(1)] * 2
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(small_encoder.encode, blobs)
        small_encoder.until(waiting=2)
        with small_encoder.begin(blobs, sent=10) as late:
            small_encoder.until(waiting=4)
            small_encoder.process.send_signal(signal.SIGTERM)
            small_encoder.until_closed()
            time.sleep(0.5)  # enough for a server without a graceful shutdown to end
            late.sendall(b"".join(blobs)[10:])  # completes the batch of four
            assert late.recv(12) == b"HTTP/1.1 200"
        assert len(features(waiting.result())) == 2
    assert small_encoder.process.wait(30) == -signal.SIGTERM  # uvicorn raises the signal again at its end
    small_encoder.restart()


def test_the_api_client_maps_the_servers_errors_to_classes(small_encoder: Server) -> None:
    async def raised(client: EncoderClient, layer: str, images: list[bytes]) -> Error:
        with pytest.raises(Error) as error:
            await client.encode("models/a", layer, images, owner=OWNER)
        return error.value

    async def check() -> None:
        async with EncoderClient(small_encoder.settings) as client:
            found = await client.encode("models/a", "projection", [pictures.png(0)] * 4, owner=OWNER)
            assert (found.dim, len(found.data)) == (32, 4 * 128)
            bad = await raised(client, "backbone", [pictures.png(0), b"rubbish"])
            assert isinstance(bad, NotAnImage)
            assert [fault["pointer"] for fault in bad.errors] == ["/images/1"]
            many = await raised(client, "backbone", [pictures.png(0, 90, 100)] * 3)
            assert isinstance(many, TooManyPixels)
            assert [fault["pointer"] for fault in many.errors] == ["/images/2"]
            assert isinstance(await raised(client, "nowhere", [pictures.png(0)]), LayerNotFound)
            with small_encoder.begin([pictures.png(0)] * 4, sent=10):
                small_encoder.until(waiting=4)
                busy = await raised(
                    client, "backbone", [b"x" * 3_000_000]
                )  # the response comes before the whole body is sent
            assert isinstance(busy, EncoderBusy)
            assert busy.retry_after == 1
            small_encoder.until(waiting=0)
            assert (await client.encode("models/a", "backbone", [pictures.png(0)] * 4, owner=OWNER)).dim == 128
        wrong = small_encoder.settings.model_copy(
            update={"encoder_token": type(small_encoder.settings.encoder_token)("x")}
        )
        async with EncoderClient(wrong) as client:
            assert isinstance(await raised(client, "backbone", [pictures.png(0)]), EncoderAway)

    asyncio.run(check())


def test_kill_9_during_requests_raises_encoder_away_and_a_restart_recovers(encoder: Server) -> None:
    blob = pictures.png(0)

    async def call(client: EncoderClient, seen: Counter[str]) -> None:
        """Send requests until EncoderAway is raised; any other exception fails the test."""
        while not seen["away"]:
            try:
                await client.encode("models/a", "backbone", [blob], owner=OWNER)
                seen["good"] += 1
            except EncoderAway:
                seen["away"] += 1

    async def kill_and_restart() -> None:
        async with EncoderClient(encoder.settings) as client:
            seen = [Counter[str]() for _ in range(8)]
            callers = [asyncio.create_task(call(client, one)) for one in seen]
            async with asyncio.timeout(60):
                while not all(one["good"] for one in seen):
                    await asyncio.sleep(0.01)
            encoder.process.send_signal(signal.SIGKILL)
            await asyncio.wait_for(asyncio.gather(*callers), 60)
            encoder.process.wait()
            await asyncio.to_thread(encoder.restart)
            assert (await client.encode("models/a", "backbone", [blob], owner=OWNER)).dim == 128

    asyncio.run(kill_and_restart())
