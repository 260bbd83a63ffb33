"""Types of config fields: closed, frozen data and the bounds that many fields share."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"]
T = TypeVar("T")
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=16384)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
Row = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Closed(BaseModel):
    """Frozen data: no unknown field, no coercion between types, no NaN, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


def known(value: T | Auto) -> T:
    """Return a value of a resolved config, where nothing is "auto", in its own type."""
    assert value != "auto", "the config is not resolved"
    return value
