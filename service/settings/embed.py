"""Settings of the encoder."""

from typing import Literal

from pydantic import BaseModel, Field


class EmbedSettings(BaseModel):
    """The encoder and requests to /embed."""

    embed_max_images: int = Field(256, ge=1)
    embed_queue_images: int = Field(
        1024, ge=1, description="Maximum length of the encoder's queue, in images; beyond it the response is 503."
    )
    embed_max_pixels: int = Field(
        2_000_000_000, gt=0, description="Of all images of a request to /embed, by their headers."
    )
    embed_decode_pixels: int = Field(
        100_000_000,
        gt=0,
        description="Of the images above 16 megapixels that the encoder decodes at a time; one alone may have more.",
    )
    embed_max_costly_pixels: int = Field(
        25_000_000,
        gt=0,
        description="Of a WebP, AVIF or JPEG 2000 image in /embed, whose decoders need up to 18 bytes for each pixel.",
    )
    embed_max_batch: int = Field(64, ge=1)
    embed_wait_ms: float = Field(4, ge=0, description="How long a batch waits for more images.")
    embed_precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Of the encoder's forward passes; auto: bf16 on a GPU that is faster with it, else fp32. The same "
        "on all machines, if features from different ones are compared.",
    )
    embed_threads: int = Field(0, ge=0, description="Threads of a forward pass on the CPU; 0: by the number of cores.")
    embed_models: int = Field(
        4, ge=1, description="Models kept loaded; beyond it the owner with the most loses the one used longest ago."
    )
    embed_model_bytes: int = Field(
        4 * 2**30, gt=0, description="Of the parameters of all models kept loaded; one alone may have more."
    )
    embed_idle_seconds: float = Field(600, gt=0, description="A model unused for this time is unloaded.")
    embed_max_body_bytes: int = Field(2**28, gt=0, description="Of the body of a request to /embed.")
    embed_held_bytes: int = Field(
        2**30,
        gt=0,
        description="Held by all concurrent requests to /embed, three quarters of it by one owner's; beyond it the "
        "response is 503.",
    )
    thumbnail_cache_bytes: int = Field(
        2**26, ge=0, description="Of the thumbnails of images of datasets that the encoder keeps in memory."
    )
    index_exact_rows: int = Field(
        200_000,
        ge=1,
        description="Vectors up to which an index is searched exactly; one of more is approximate, with a recall of at "
        "least 0.95.",
    )
    index_threads: int = Field(0, ge=0, description="Threads that build an index; 0: by the number of cores.")
    index_build_bytes: int = Field(
        2**34, gt=0, description="Of memory to build an approximate index; one that needs more fails."
    )
    index_open_bytes: int = Field(
        2**34,
        gt=0,
        description="Of the files of all indexes that the encoder keeps open, mapped into memory; one alone may have "
        "more. Beyond it the owner with the most loses the one used longest ago.",
    )
    search_products: int = Field(
        2 * 10**11,
        gt=0,
        description="Multiplications of numbers that one request for a selection or for labels may need: about ten "
        "seconds of one core.",
    )
    embed_answer_seconds: float = Field(120, gt=0, description="Timeout of the API for the encoder.")
