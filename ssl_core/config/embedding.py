"""Embedding of a dataset: the features of every image, in shards."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from ssl_core.config.base import Layer, OnDevice
from ssl_core.config.fields import Auto
from ssl_core.config.requirements import Requirements

MAX_SHARDS = 1_000
_FEWEST_ROWS = 10_000  # of a shard, by default
_SHARDS = 200  # at about most, by default

Split = Literal["train", "val", "test"]


class EmbedDataset(OnDevice):
    """The features of every image of a dataset, as shards in npy and Parquet."""

    title = "Embedding of a dataset"
    is_shared: ClassVar = True

    kind: Literal["embed_dataset"] = Field("embed_dataset", description="The kind of the job; may be left out.")
    layer: Layer = Field(
        "backbone",
        description="The representation: `backbone`, `block1` … `block4`, `projection`, or `head1` … under it; `logits`"
        " of a classifier.",
    )
    splits: Annotated[tuple[Split, ...], Field(min_length=1, max_length=3)] | None = Field(
        None, description="The splits whose images are embedded, in the order of the dataset; null: all."
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="Type of the stored numbers.")
    normalize: bool = Field(False, description="Scale each vector to length 1.")
    rows_per_shard: Annotated[int, Field(ge=1, le=10_000_000)] | Auto = Field(
        "auto",
        description="Images in one shard; auto: 10,000, or a 200th of all if that is more. At most 1,000 shards.",
    )
    batch_size: int = Field(256, ge=1, le=4096, description="Images that the encoder processes at a time.")
    workers: int = Field(
        1, ge=1, le=64, description="Number of workers that may share the job; idle ones take shards of it."
    )

    @field_validator("splits")
    @classmethod
    def _are_named_once(cls, splits: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if splits is not None and len(set(splits)) < len(splits):
            raise ValueError("a split is named twice")
        return splits

    @property
    def requirements(self) -> Requirements:
        rows_per_shard = None if self.rows_per_shard == "auto" else self.rows_per_shard
        return Requirements(splits=self.splits or (), rows_per_shard=rows_per_shard, layer=self.layer)


@dataclass(frozen=True, slots=True)
class ShardRange:
    """A range of the embedded images: `first_row` counts them, not the rows of the dataset, from 0."""

    number: int
    first_row: int
    rows: int


def plan_shards(rows_per_shard: int | Auto, images: int) -> tuple[ShardRange, ...]:
    """Return the shards of so many images; the last one may be shorter."""
    size = choose_rows(images) if rows_per_shard == "auto" else rows_per_shard
    return tuple(
        ShardRange(number, first, min(size, images - first)) for number, first in enumerate(range(0, images, size))
    )


def choose_rows(images: int) -> int:
    """Return the rows of a shard for `rows_per_shard` auto."""
    return max(_FEWEST_ROWS, -(-images // _SHARDS))


def count_images(splits: Mapping[str, Mapping[str, Any]], chosen: Iterable[str] | None) -> int:
    """Return the number of images of the chosen splits of a dataset's report, or of all."""
    names = chosen or splits
    return sum(int(splits.get(name, {}).get("images", 0)) for name in names)


def name_files(number: int) -> tuple[str, str]:
    """Return the names of a shard's npy and Parquet file."""
    return f"embeddings-{number:05d}.npy", f"embeddings-{number:05d}.parquet"
