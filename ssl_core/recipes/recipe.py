"""A recipe: a complete config that can be submitted as it stands, with where it comes from and what it should give."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """`kind` is a key of `ssl_core.config.KINDS`; `evaluation` is the `linear_eval` by which the result was judged."""

    name: str
    kind: str
    description: str
    source: str
    hardware: str
    duration: str
    result: str
    config: dict[str, Any]
    evaluation: dict[str, Any] | None = None
