"""Queries of an index, as the API sends them to the encoder: what is asked for, validated once."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_ROW = 10**12
MAX_K = 1000
MAX_CHARACTERS = 1000  # of a label
MAX_NEIGHBOURS = 32  # of each row in an index; those that outliers are measured by
MAX_LISTED = 1000  # pairs, outliers and labels in one response
MAX_SELECTED = 10_000

Row = Annotated[int, Field(ge=0, lt=MAX_ROW)]
Split = Literal["train", "val", "test"]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Nearest(_Query):
    """The nearest rows to a row, or to the vector or the image in the body."""

    k: int = Field(10, ge=1, le=MAX_K)
    split: Split | None = None
    label: str | None = Field(None, max_length=MAX_CHARACTERS)
    row: Row | None = None
    exclude_self: bool = True
    body: Literal["", "vector", "image"] = ""


class Duplicates(_Query):
    """Pairs of rows of at least this cosine similarity."""

    threshold: float = Field(0.95, ge=0, le=1)
    limit: int = Field(100, ge=1, le=MAX_LISTED)
    across_splits: bool = False


class Outliers(_Query):
    """Rows that are far from their k nearest others."""

    k: int = Field(10, ge=1, le=MAX_NEIGHBOURS)
    limit: int = Field(100, ge=1, le=MAX_LISTED)
    split: Split | None = None
    label: str | None = Field(None, max_length=MAX_CHARACTERS)


class Selection(_Query):
    """Rows that cover the others, to be labelled first."""

    n: int = Field(100, ge=1, le=MAX_SELECTED)
    seed: int = Field(0, ge=0, lt=2**63)
    start: Row | None = None
    split: Split | None = None
    unlabelled: bool = False


class Labels(_Query):
    """Labels by the vote of the nearest labelled rows, for rows without one or for `rows`."""

    k: int = Field(20, ge=1, le=MAX_K)
    temperature: float = Field(0.1, ge=0.001, le=10)
    limit: int = Field(100, ge=1, le=MAX_LISTED)
    after: Row | None = None
    split: Split | None = None
    rows: tuple[Row, ...] | None = Field(None, max_length=MAX_LISTED)


Query = Nearest | Duplicates | Outliers | Selection | Labels
QUERIES: dict[str, type[Query]] = {
    "search": Nearest,
    "duplicates": Duplicates,
    "outliers": Outliers,
    "select": Selection,
    "labels": Labels,
}
