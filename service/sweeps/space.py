"""The space of a sweep: values or ranges for fields of the config, and the trials that a grid or draws make of it.

A field is named by its JSON pointer into the config (RFC 6901), such as `/method/temperature`. All trials are known
when the sweep is created, so that each of their configs is checked then.
"""

import itertools
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from ssl_core.errors import Fault, json_pointer

MAX_FIELDS = 20
MAX_TRIALS = 1000
_LARGEST = 1e15  # whole numbers up to it are exact
_MAX_VALUE = 10_000  # characters of a value as JSON
_MAX_STORED = 20_000_000  # characters of the configs of all trials
_MAX_PARTS = 8  # of a pointer
_DIGITS = 6  # significant ones of a number that is drawn or interpolated
_DRAWS_PER_TRIAL = 20  # until a space is taken to have no other trials

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Params = dict[str, Any]  # the value of each field, by its pointer
Search = Literal["grid", "random"]


class SpaceError(ValueError):
    """A space cannot be searched; `field` is the pointer of the field at fault, or None."""

    def __init__(self, field: str | None, code: str, detail: str) -> None:
        super().__init__(detail)
        self.field, self.code, self.detail = field, code, detail


class _Field(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Values(_Field):
    """The values that a field takes."""

    values: list[Any] = Field(min_length=1, max_length=MAX_TRIALS, description="Each may be of any type of the field.")

    @field_validator("values")
    @classmethod
    def _check_sizes(cls, values: list[Any]) -> list[Any]:
        if any(_measure(value) > _MAX_VALUE for value in values):
            raise ValueError(f"a value may have at most {_MAX_VALUE:,} characters")
        return values


class Range(_Field):
    """A range of numbers that a field takes."""

    low: float = Field(ge=-_LARGEST, le=_LARGEST)
    high: float = Field(ge=-_LARGEST, le=_LARGEST)
    log: bool = Field(False, description="Whether numbers are spaced or drawn on a logarithmic scale.")
    integer: bool = Field(False, description="Whether they are whole.")
    points: int | None = Field(
        None,
        ge=2,
        le=MAX_TRIALS,
        description="How many numbers a grid takes from it, evenly spaced; without it, of a"
        " range of whole numbers all.",
    )

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.log and self.low <= 0:
            raise ValueError("low must be positive on a logarithmic scale")
        if self.integer and (self.low % 1 or self.high % 1):
            raise ValueError("low and high must be whole when integer is true")
        return self

    def draw(self, generator: random.Random) -> float | int:
        """Return a number drawn uniformly, on the scale of the range."""
        if self.integer and not self.log:
            return generator.randint(int(self.low), int(self.high))
        half = 0.5 if self.integer else 0.0  # so that the numbers at both ends are as likely as others
        return self._place(generator.random(), half)

    def grid(self) -> list[float | int]:
        """Return the numbers of a grid. Raises SpaceError."""
        if self.points is None:
            if not self.integer or self.log or self.high - self.low >= MAX_TRIALS:
                raise SpaceError(
                    None, "points_needed", "A grid needs `points`: how many numbers it takes from a range."
                )
            return [*range(int(self.low), int(self.high) + 1)]
        return [*dict.fromkeys(self._place(number / (self.points - 1), 0.0) for number in range(self.points))]

    def _place(self, share: float, margin: float) -> float | int:
        """Return the number that lies at this share of the range, widened by a margin, on its scale."""
        low, high = self.low - margin, self.high + margin
        number = low * (high / low) ** share if self.log else low + (high - low) * share
        number = round(number) if self.integer else float(f"{number:.{_DIGITS}g}")
        ends = (int(self.low), int(self.high)) if self.integer else (self.low, self.high)
        return min(max(number, ends[0]), ends[1])


def _get_tag(value: object) -> str:
    given = value if isinstance(value, Mapping) else vars(value) if isinstance(value, BaseModel) else {}
    return "values" if "values" in given else "range"


Choices = Annotated[Annotated[Values, Tag("values")] | Annotated[Range, Tag("range")], Discriminator(_get_tag)]
Space = dict[str, Choices]


def expand(space: Mapping[str, Values | Range], search: Search, trials: int | None, seed: int) -> list[Params]:
    """Return the parameters of each trial: of a grid the product of all fields, the last varying fastest; at random,
    `trials` different draws, or fewer when the space has no more.

    Raises SpaceError.
    """
    found = _expand_grid(space, trials) if search == "grid" else _draw(space, trials, seed)
    if len(found) > MAX_TRIALS:
        raise SpaceError(None, "too_many_trials", f"A sweep has at most {MAX_TRIALS:,} trials.")
    return found


def check_size(config: Mapping[str, Any], trials: Sequence[Params]) -> None:
    """Check that the configs of all trials are not too large to be stored. Raises SpaceError."""
    size = _measure(config) * len(trials) + sum(_measure(params) for params in trials)
    if size > _MAX_STORED:
        detail = f"The configs of all trials would have {size:,} characters; at most {_MAX_STORED:,} are allowed."
        raise SpaceError(None, "too_large", detail)


def apply(config: Mapping[str, Any], params: Params) -> dict[str, Any]:
    """Return the config with the parameters in their places; sections that are missing are made.

    Raises SpaceError for a pointer that leads through something else than a section.
    """
    changed: dict[str, Any] = deepcopy(dict(config))
    for pointer in sorted(params, key=len):  # a section before its fields
        *sections, name = split(pointer)
        place = changed
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SpaceError(pointer, "not_a_section", f"{section} has a value, and no fields.")
        place[name] = deepcopy(params[pointer])
    return changed


def locate(fault: Fault, params: Params) -> Fault:
    """Return the fault of a trial's config as one of the space, with the value, when it lies in a field of it."""
    place = fault["pointer"].removeprefix("/config")
    for field in sorted(params, key=len, reverse=True):
        if place == field or place.startswith(f"{field}/"):
            detail = f"{fault['detail']} (The value is {params[field]!r:.100}.)"
            return Fault(pointer=json_pointer("space", field), code=fault["code"], detail=detail)
    return fault


def split(pointer: str) -> list[str]:
    """Return the parts of a JSON pointer. Raises SpaceError."""
    start, *parts = pointer.split("/")
    if start or not 1 <= len(parts) <= _MAX_PARTS or not all(map(_NAME.fullmatch, parts)):
        detail = "Must be a JSON pointer to a field of the config, such as /method/temperature."
        raise SpaceError(pointer, "not_a_pointer", detail)
    return parts


def _expand_grid(space: Mapping[str, Values | Range], trials: int | None) -> list[Params]:
    if trials is not None:
        raise SpaceError(
            None, "trials_of_a_grid", "A grid has as many trials as its space; `trials` is for random search."
        )
    columns = []
    for pointer, choices in space.items():
        try:
            columns.append(choices.values if isinstance(choices, Values) else choices.grid())
        except SpaceError as error:
            raise SpaceError(pointer, error.code, error.detail) from error
    count = math.prod(len(column) for column in columns)
    if count > MAX_TRIALS:
        detail = f"The grid has {count:,} trials; a sweep has at most {MAX_TRIALS:,}. Take fewer, or draw at random."
        raise SpaceError(None, "too_many_trials", detail)
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*columns)]


def _draw(space: Mapping[str, Values | Range], trials: int | None, seed: int) -> list[Params]:
    if trials is None:
        raise SpaceError(None, "trials_needed", "Random search needs `trials`: how many there are.")
    generator = random.Random(seed)
    found: dict[tuple[float, ...], Params] = {}
    for _ in range(trials * _DRAWS_PER_TRIAL):
        if len(found) == trials:
            break
        drawn = [_draw_one(choices, generator) for choices in space.values()]
        found.setdefault(
            tuple(place for place, _ in drawn),
            {pointer: value for pointer, (_, value) in zip(space, drawn, strict=True)},
        )
    return [*found.values()]


def _draw_one(choices: Values | Range, generator: random.Random) -> tuple[float, Any]:
    """Return a value, and a number that is another one for any other value."""
    if isinstance(choices, Values):
        place = generator.randrange(len(choices.values))
        return place, choices.values[place]
    number = choices.draw(generator)
    return number, number


def _measure(value: object) -> int:
    return len(json.dumps(value, default=str))
