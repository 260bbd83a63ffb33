"""An embedder: the bytes of images in, their features out, by any model of the storage."""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from service.errors import EncoderFailed, LayerNotFound, ModelDamaged, NotAnImage
from service.settings import Settings
from service.storage import Storage
from ssl_core.config.requirements import no_such_layer
from ssl_core.data.decode import BadImage, decode
from ssl_core.errors import BadModel, Fault
from ssl_core.models.encoder import Encoder
from ssl_core.serialization import saved_model
from worker.encoder.batcher import Batcher, Counts, Features, Pixels
from worker.encoder.model_cache import ModelCache

log = logging.getLogger(__name__)


class Threads(NamedTuple):
    """How the cores are shared out. What is left of them serves HTTP."""

    forward: int
    decode: int

    @classmethod
    def of(cls, cores: int) -> "Threads":
        """From four cores up, one stays free of forward passes; below, that was measured to cost more than it gains."""
        return cls(forward=cores - 1 if cores >= 4 else cores, decode=max(1, min(cores // 2, 8)))


@dataclass(frozen=True)
class _Lane:
    """A layer of a loaded model."""

    model: Encoder
    layer: str

    def __call__(self, batch: Pixels) -> Features:
        return np.ascontiguousarray(self.model.encode(batch, self.layer).cpu().numpy())


class Embedder:
    """Belongs to one event loop. Decoding, loading and forward passes have threads of their own."""

    def __init__(self, settings: Settings) -> None:
        threads = Threads.of(len(os.sched_getaffinity(0)))
        self._settings = settings
        self._storage = Storage(settings.data_dir)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._decoders = ThreadPoolExecutor(threads.decode, "decode", torch.set_num_threads, (1,))
        self._forward = ThreadPoolExecutor(
            1, "forward", torch.set_num_threads, (settings.embed_threads or threads.forward,)
        )
        self._loader = ThreadPoolExecutor(1, "load", torch.set_num_threads, (1,))
        self._models = ModelCache(
            self._load,
            capacity=settings.embed_models,
            idle_seconds=settings.embed_idle_seconds,
            executor=self._loader,
        )
        self._batcher = Batcher(
            executor=self._forward,
            max_batch=settings.embed_max_batch,
            wait_seconds=settings.embed_wait_ms / 1000,
            max_images=settings.embed_queue_images,
        )
        self._chores: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return when a forward pass has run here, so that a model could be served."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._forward, _warm_up, self._device)
        self._chores = [loop.create_task(self._batcher.run()), loop.create_task(self._drop_idle_models())]
        for chore in self._chores:
            chore.add_done_callback(_stop_the_process_when_broken)

    async def stop(self) -> None:
        """Return when the threads have ended; requests must have been answered before."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for executor in (self._decoders, self._forward, self._loader):
            executor.shutdown(cancel_futures=True)

    def admit(self, count: int) -> AbstractContextManager[None]:
        """Hold places for so many images while they are read and embedded. Raises EncoderBusy."""
        return self._batcher.admit(count)

    async def embed(self, model_path: str, layer: str, blobs: Sequence[bytes]) -> Features:
        """Return N×D for N encoded images. Raises NotAnImage, LayerNotFound, ModelDamaged.

        Cancelled: what has not started is dropped.
        """
        model = await self._models.get(model_path)
        if layer not in model.layers:
            raise LayerNotFound(no_such_layer(layer, sorted(model.layers)))
        pixels = await self._decode(model, blobs)
        return await self._batcher.encode(_Lane(model, layer), pixels)

    def counts(self) -> Counts:
        return self._batcher.counts

    def waiting(self) -> int:
        """Images taken in and not yet answered."""
        return self._batcher.admitted

    def models(self) -> list[str]:
        """The models that are loaded, least recently used first."""
        return self._models.names()

    async def _decode(self, model: Encoder, blobs: Sequence[bytes]) -> list[Pixels]:
        """Decode and prepare all; when any is bad, raise for all the bad ones together."""
        loop = asyncio.get_running_loop()
        work = (loop.run_in_executor(self._decoders, self._prepare, model, blob) for blob in blobs)
        results = await asyncio.gather(*work)
        faults = [
            Fault(pointer=f"/images/{index}", code=result.code, detail=result.detail)
            for index, result in enumerate(results)
            if isinstance(result, BadImage)
        ]
        if faults:
            raise NotAnImage(f"{faults[0]['pointer']}: {faults[0]['detail']}", errors=faults)
        return [result for result in results if not isinstance(result, BadImage)]

    def _prepare(self, model: Encoder, blob: bytes) -> Pixels | BadImage:
        try:
            return model.prepare(decode(blob, max_pixels=self._settings.max_image_pixels))
        except BadImage as bad:
            return bad

    def _load(self, model_path: str) -> Encoder:
        folder = self._storage.absolute(model_path)
        try:
            return saved_model.load(folder, self._device, precision=self._settings.embed_precision)
        except BadModel as error:
            log.error("%s could not be loaded: %s", model_path, error)
            raise ModelDamaged(str(error)) from error
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise EncoderFailed("There is no room for this model now; try again.", retry_after=10) from error

    async def _drop_idle_models(self) -> None:
        while True:
            await asyncio.sleep(min(self._settings.embed_idle_seconds / 4, 30))
            self._models.drop_idle()


def _warm_up(device: torch.device) -> None:
    with torch.inference_mode():
        torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8, device=device), torch.zeros(4, 3, 3, 3, device=device))


def _stop_the_process_when_broken(chore: asyncio.Task[None]) -> None:
    """Without its chores an encoder would take requests and never answer: better that it is started afresh."""
    if not chore.cancelled():
        log.critical("a chore of the encoder ended", exc_info=chore.exception())
        os.kill(os.getpid(), signal.SIGTERM)
