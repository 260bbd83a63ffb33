"""A call of an operator as the dispatch mode receives it, and where its tensors are."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from tests.gpu.pretended.operators import name_of
from tests.gpu.pretended.tensor import GpuTensor


@dataclass(frozen=True)
class Call:
    """An operator with its arguments: tensors, other values, and lists of them."""

    func: OpOverload
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    @cached_property
    def name(self) -> str:
        return name_of(self.func)

    @cached_property
    def on_gpu(self) -> list[GpuTensor]:
        return [tensor for tensor in self._tensors if isinstance(tensor, GpuTensor)]

    @cached_property
    def on_cpu(self) -> list[Tensor]:
        return [tensor for tensor in self._tensors if not isinstance(tensor, GpuTensor)]

    @cached_property
    def device(self) -> str | None:
        """The type of the device that is asked for, if one is."""
        asked = self.kwargs.get("device")
        return None if asked is None else torch.device(asked).type

    @property
    def concerns_gpu(self) -> bool:
        return bool(self.on_gpu) or self.device == "cuda"

    @cached_property
    def returns_gpu_tensors(self) -> bool:
        if self.name == "copy_":
            return isinstance(self.args[0], GpuTensor)
        return self.device in (None, "cuda")

    def compute(self) -> Any:
        """Run the operator on the CPU tensors that the GPU tensors hold."""
        kwargs = {name: map_values(_to_cpu, value) for name, value in self.kwargs.items()}
        if self.device == "cuda":
            kwargs["device"] = torch.device("cpu")
        return self.func(*map_values(_to_cpu, self.args), **kwargs)

    @cached_property
    def _tensors(self) -> list[Tensor]:
        return [value for value in _flatten((*self.args, *self.kwargs.values())) if isinstance(value, Tensor)]


def map_values(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply the function to a value, or to each in a list or tuple, at any depth."""
    if isinstance(value, (list, tuple)):
        return type(value)(map_values(function, part) for part in value)
    return function(value)


def _to_cpu(value: Any) -> Any:
    return value.held if isinstance(value, GpuTensor) else value


def _flatten(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flatten(value)
        else:
            yield value
