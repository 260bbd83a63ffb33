"""Tests of the encoder under stress: a full queue, callers that leave, SIGTERM, kill -9."""

import asyncio
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.encoder_client import EncoderClient
from service.errors import EncoderAway, EncoderBusy, Error, LayerNotFound, NotAnImage
from tests.worker.encoder import pictures
from tests.worker.encoder.server import Server, features, problem


def test_a_full_queue_refuses_and_takes_again_when_there_is_room(small_encoder: Server) -> None:
    held = small_encoder.begin([pictures.png(0)] * 3, sent=10)  # three places, taken while the body is on its way
    small_encoder.until(waiting=3)
    answer = small_encoder.encode([pictures.png(1)] * 2)
    assert problem(answer) == (503, "encoder_busy", [])
    assert int(answer.headers["retry-after"]) > 0
    held.close()
    small_encoder.until(waiting=0)
    assert len(features(small_encoder.encode([pictures.png(1)] * 4))) == 4


def test_work_of_a_caller_who_left_is_dropped(small_encoder: Server) -> None:
    features(small_encoder.encode([pictures.png(0)] * 4))  # the model is loaded now
    before = small_encoder.health()["images"]
    blobs = [pictures.png(0)] * 2
    leaver = small_encoder.begin(blobs, sent=sum(map(len, blobs)))
    small_encoder.until(waiting=2)
    leaver.close()
    small_encoder.until(waiting=0)
    features(small_encoder.encode([pictures.png(1)] * 4))
    assert small_encoder.health()["images"] == before + 4


def test_over_tcp_the_token_is_asked_for(small_encoder: Server) -> None:
    for shown in ("", "Bearer wrong", "Bearer"):
        answer = small_encoder.encode([pictures.png(0)], Authorization=shown)
        assert problem(answer) == (401, "wrong_key", [])
    assert len(features(small_encoder.encode([pictures.png(0)] * 4))) == 4


def test_sigterm_lets_those_who_wait_be_answered(small_encoder: Server) -> None:
    features(small_encoder.encode([pictures.png(0)] * 4))
    blobs = [pictures.png(1)] * 2
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(small_encoder.encode, blobs)
        small_encoder.until(waiting=2)
        with small_encoder.begin(blobs, sent=10) as late:
            small_encoder.until(waiting=4)
            small_encoder.process.send_signal(signal.SIGTERM)
            small_encoder.until_closed()
            time.sleep(0.5)  # in which a server that waits for nobody would be gone
            late.sendall(b"".join(blobs)[10:])  # the last two of a batch of four, which may leave now
            assert late.recv(12) == b"HTTP/1.1 200"
        assert len(features(waiting.result())) == 2
    assert small_encoder.process.wait(30) == -signal.SIGTERM  # uvicorn ends by the signal it got, when all is done
    small_encoder.restart()


def test_the_api_side_tells_the_encoders_errors_apart(small_encoder: Server) -> None:
    async def raised(client: EncoderClient, layer: str, images: list[bytes]) -> Error:
        with pytest.raises(Error) as error:
            await client.encode("models/a", layer, images)
        return error.value

    async def ask() -> None:
        async with EncoderClient(small_encoder.settings) as client:
            found = await client.encode("models/a", "projection", [pictures.png(0)] * 4)
            assert (found.dim, len(found.data)) == (32, 4 * 128)
            bad = await raised(client, "backbone", [pictures.png(0), b"rubbish"])
            assert isinstance(bad, NotAnImage)
            assert [fault["pointer"] for fault in bad.errors] == ["/images/1"]
            assert isinstance(await raised(client, "nowhere", [pictures.png(0)]), LayerNotFound)
            with small_encoder.begin([pictures.png(0)] * 4, sent=10):
                small_encoder.until(waiting=4)
                busy = await raised(
                    client, "backbone", [b"x" * 3_000_000]
                )  # more than has left when the answer is there
            assert isinstance(busy, EncoderBusy)
            assert busy.retry_after == 1
            small_encoder.until(waiting=0)
            assert (await client.encode("models/a", "backbone", [pictures.png(0)] * 4)).dim == 128
        wrong = small_encoder.settings.model_copy(
            update={"encoder_token": type(small_encoder.settings.encoder_token)("x")}
        )
        async with EncoderClient(wrong) as client:
            assert isinstance(await raised(client, "backbone", [pictures.png(0)]), EncoderAway)

    asyncio.run(ask())


def test_kill_9_while_requests_fly_is_a_503_and_service_goes_on_after_a_restart(encoder: Server) -> None:
    blob = pictures.png(0)

    async def call(client: EncoderClient, seen: Counter[str]) -> None:
        """Ask on and on, until the encoder was away; whatever else is raised fails the test."""
        while not seen["away"]:
            try:
                await client.encode("models/a", "backbone", [blob])
                seen["good"] += 1
            except EncoderAway:
                seen["away"] += 1

    async def storm() -> None:
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
            assert (await client.encode("models/a", "backbone", [blob])).dim == 128

    asyncio.run(storm())
