"""A tensor on the pretended GPU: its device is cuda:0, and it wraps the CPU tensor that has its values."""

from typing import Any, NoReturn

import torch
from torch import Tensor

from tests.gpu.pretended.record import RECORD, Kind

CUDA = torch.device("cuda", 0)


class GpuTensor(Tensor):
    """Computes by the mode of `tests.gpu.pretended.dispatch`, which every thread has to be in."""

    held: Tensor  # on the CPU

    @staticmethod
    def __new__(cls, held: Tensor) -> "GpuTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=CUDA,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        raise AssertionError(f"{func} outside the pretence: this thread is not in its dispatch mode")

    def __reduce_ex__(self, protocol: Any) -> Any:
        RECORD.add(Kind.WAIT, "saved")
        return self.held.detach().clone().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> "GpuTensor":
        memo[id(self)] = self.detach().clone().requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({tuple(self.shape)}, {self.dtype})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to host memory.")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def _set_data(self, other: "GpuTensor") -> None:
        Tensor.data.__set__(self, other)
        self.held = other.held

    data = property(lambda self: self.detach(), _set_data)
