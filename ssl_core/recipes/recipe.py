"""The recipe: a complete config that can be submitted unchanged, with its source and expected result."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """`kind` is a key of `ssl_core.config.KINDS`; `evaluation` is the `linear_eval` config that measures `result`."""

    name: str
    kind: str
    description: str
    source: str
    hardware: str
    duration: str
    result: str
    config: dict[str, Any]
    evaluation: dict[str, Any] | None = None
