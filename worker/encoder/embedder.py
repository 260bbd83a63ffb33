"""An embedder: decodes images and computes their features with the models of the storage."""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from service.errors import Corrupt, EncoderFailed, LayerNotFound
from service.settings import Settings
from service.storage import Storage
from ssl_core.config.requirements import no_such_layer
from ssl_core.device import Device, count_processors
from ssl_core.errors import BadModel, is_out_of_memory
from ssl_core.errors import Corrupt as CorruptFile
from ssl_core.models.encoder import Encoder
from ssl_core.serialization import saved_model
from worker.encoder.batcher import Batcher, Counts, Features, Pixels
from worker.encoder.decoder import Decoder
from worker.encoder.loading_cache import LoadingCache

log = logging.getLogger(__name__)


class ThreadCounts(NamedTuple):
    """Threads for forward passes and for decoding; the remaining cores serve HTTP."""

    forward: int
    decode: int

    @classmethod
    def of(cls, cores: int) -> "ThreadCounts":
        """From four cores up, one is kept free of forward passes; with fewer, that was measured to be slower."""
        return cls(forward=cores - 1 if cores >= 4 else cores, decode=max(1, min(cores // 2, 8)))


@dataclass(frozen=True)
class LayerForward:
    """The forward pass up to one layer of a loaded model; in halves where the device has too little memory.

    Raises EncoderFailed when one image does not fit.
    """

    model: Encoder
    layer: str

    def __call__(self, batch: Pixels) -> Features:
        try:
            return np.ascontiguousarray(self.model.encode(batch, self.layer).cpu().numpy())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise EncoderFailed(
                    "There is not enough memory for an image now; try again.", retry_after=10
                ) from error
        # Out of the handler, which holds the tensors of the failed pass.
        log.warning("There is too little memory for a batch of %d images; it is computed in halves", len(batch))
        torch.cuda.empty_cache()  # without a GPU it does nothing
        middle = len(batch) // 2
        return np.concatenate([self(batch[:middle]), self(batch[middle:])])


class Embedder:
    """Belongs to one event loop. Decoding, loading and forward passes run in their own thread pools."""

    def __init__(self, settings: Settings) -> None:
        threads = ThreadCounts.of(count_processors())
        self._settings = settings
        self._storage = Storage(settings.data_dir)
        here = Device.here()
        self._device = torch.device(here.device)
        self._precision = choose_precision(settings.embed_precision, here)
        self.decoder = Decoder(settings, threads.decode)
        self._forward = ThreadPoolExecutor(
            1, "forward", torch.set_num_threads, (settings.embed_threads or threads.forward,)
        )
        self._loader = ThreadPoolExecutor(1, "load", torch.set_num_threads, (1,))
        self._models = LoadingCache(
            self._load,
            capacity=settings.embed_models,
            max_bytes=settings.embed_model_bytes,
            measure=_count_bytes,
            idle_seconds=settings.embed_idle_seconds,
            executor=self._loader,
        )
        self._batcher = Batcher(
            executor=self._forward,
            max_batch=settings.embed_max_batch,
            wait_seconds=settings.embed_wait_ms / 1000,
            max_images=settings.embed_queue_images,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the background tasks, and return after a first forward pass."""
        log.info("Features are computed in %s on device %s", self._precision, self._device)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._forward, _warm_up, self._device)
        self._tasks = [loop.create_task(self._batcher.run()), loop.create_task(self._drop_idle_models())]
        for task in self._tasks:
            task.add_done_callback(_stop_process_on_failure)

    async def stop(self) -> None:
        """Stop the background tasks and the threads; all requests must have been answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.decoder.stop()
        for executor in (self._forward, self._loader):
            executor.shutdown(cancel_futures=True)

    def admit(self, count: int, owner: str) -> AbstractContextManager[None]:
        """Reserve places for `count` images while they are read and embedded. Raises EncoderBusy."""
        return self._batcher.admit(count, owner)

    async def embed(self, model_path: str, layer: str, blobs: Sequence[bytes], owner: str) -> Features:
        """Return N×D for N encoded images. Raises NotAnImage, TooManyPixels, LayerNotFound, Corrupt.

        When cancelled, images not yet in a batch are dropped.
        """
        model = await self._models.get(model_path, owner)
        if layer not in model.layers:
            raise LayerNotFound(no_such_layer(layer, sorted(model.layers)))
        pixels = await self.decoder.decode(model, blobs, owner)
        return await self._batcher.encode(LayerForward(model, layer), pixels, owner)

    def counts(self) -> Counts:
        return self._batcher.counts

    def waiting(self) -> int:
        """The number of images without an answer yet."""
        return self._batcher.admitted

    def places(self) -> int:
        """The number of images that one owner may have waiting."""
        return self._settings.embed_queue_images

    def models(self) -> list[str]:
        """The paths of the loaded models, least recently used first."""
        return self._models.names()

    def _load(self, model_path: str) -> Encoder:
        folder = self._storage.absolute(model_path)
        try:
            return saved_model.load(folder, self._device, precision=self._precision)
        except (BadModel, CorruptFile) as error:
            log.error("%s could not be loaded: %s", model_path, error)
            raise Corrupt(str(error)) from error
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise EncoderFailed("There is not enough memory for this model now; try again.", retry_after=10) from error

    async def _drop_idle_models(self) -> None:
        while True:
            await asyncio.sleep(min(self._settings.embed_idle_seconds / 4, 30))
            self._models.drop_idle()


def choose_precision(asked: Literal["auto", "fp32", "bf16"], here: Device) -> Literal["fp32", "bf16"]:
    """Return the precision of forward passes on this machine's device.

    A CPU computes in fp32 unless it is asked for bf16, also where it is faster with that.
    """
    if asked != "auto":
        return asked
    return "bf16" if here.device == "cuda" and here.gains_from_bf16 else "fp32"


def _count_bytes(model: Encoder) -> int:
    """Return the bytes of the parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def _warm_up(device: torch.device) -> None:
    with torch.inference_mode():
        torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8, device=device), torch.zeros(4, 3, 3, 3, device=device))


def _stop_process_on_failure(task: asyncio.Task[None]) -> None:
    """End the process when a background task fails, for it would never answer; it is restarted from outside."""
    if not task.cancelled():
        log.critical("A background task of the encoder failed", exc_info=task.exception())
        os.kill(os.getpid(), signal.SIGTERM)
