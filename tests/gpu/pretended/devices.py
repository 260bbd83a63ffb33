"""Which calls CUDA refuses: tensors of two devices, and operators without a kernel."""

import torch
from torch import Tensor

from tests.gpu.pretended.call import Call
from tests.gpu.pretended.operators import INDEXING, has_cuda_kernel
from tests.gpu.pretended.record import RECORD, Kind
from tests.gpu.pretended.tensor import GpuTensor

_MAY_MIX = ("_to_copy", "copy_")


def check_devices(call: Call) -> None:
    """Raise RuntimeError, or NotImplementedError, where CUDA would, and record it as a fault."""
    if not has_cuda_kernel(call.func):
        _refuse(NotImplementedError(f"Could not run {call.func} with arguments from the 'CUDA' backend"))
    if not call.on_gpu or not call.on_cpu or call.name in _MAY_MIX:
        return
    if call.name in INDEXING:
        _check_indexing(call)
    elif any(tensor.ndim for tensor in call.on_cpu):
        gpu, cpu = ([tuple(tensor.shape) for tensor in tensors] for tensors in (call.on_gpu, call.on_cpu))
        _refuse(RuntimeError(f"{call.name}: expected all tensors on one device, found cuda:0 {gpu}, cpu {cpu}"))
    elif torch.Tag.pointwise in call.func.tags or call.name.startswith("_foreach"):
        RECORD.add(Kind.NOTE, f"{call.name} of a CPU scalar, which only pointwise operators take")
    else:
        _refuse(RuntimeError(f"{call.name}: a CPU scalar beside GPU tensors, and the operator is not pointwise"))


def _check_indexing(call: Call) -> None:
    """A GPU tensor takes indices of both devices, a CPU tensor its own only; values may be a CPU scalar."""
    if not isinstance(call.args[0], GpuTensor):
        _refuse(RuntimeError(f"{call.name}: a CPU tensor is indexed by a GPU tensor"))
    values = call.args[2] if len(call.args) > 2 else None
    if isinstance(values, Tensor) and not isinstance(values, GpuTensor) and values.ndim:
        _refuse(RuntimeError(f"{call.name}: values of the CPU are put into a GPU tensor"))


def _refuse(error: Exception) -> None:
    RECORD.add(Kind.FAULT, str(error))
    raise error
