"""What runs of several kinds share."""

from typing import Annotated, Literal

from pydantic import Field

from ssl_core.config.fields import Closed, Seed


class Seeded(Closed):
    kind: str
    seed: Seed = Field(0, description="Of everything random; the same seed gives the same run.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the device gains from it."
    )


class Run(Seeded):
    subset: int | None = Field(
        None,
        ge=2,
        lt=2**31,
        description="Train on so many images, drawn evenly from the classes by the seed; null: all.",
    )


Layer = Annotated[str, Field(pattern=r"^(backbone|projection|logits|block[1-4]|head[1-8])$")]
