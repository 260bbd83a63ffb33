"""What a call costs: an operator on the GPU, a wait of the host, a copy between the devices."""

import torch
from torch import Tensor

from tests.gpu.pretended.call import Call
from tests.gpu.pretended.operators import INDEXING, NOT_DETERMINISTIC, WAITING, launches_kernel
from tests.gpu.pretended.record import RECORD, Kind
from tests.gpu.pretended.tensor import GpuTensor

_MASKS = (torch.bool, torch.uint8)


def record_traffic(call: Call) -> None:
    """Record what the call costs; it is one that CUDA takes."""
    if launches_kernel(call.func):
        _record_operator(call)
    if call.name == "_to_copy":
        _record_to(call)
    elif call.name == "copy_":
        _record_copy(call)
    elif call.name in INDEXING:
        _record_indexing(call)
    elif call.name in WAITING:
        RECORD.add(Kind.WAIT, call.name)


def _record_operator(call: Call) -> None:
    RECORD.add(Kind.OPERATOR, call.name)
    if call.name in NOT_DETERMINISTIC:
        RECORD.add(Kind.NOTE, f"{call.name} is not deterministic")
    if any(tensor.dtype == torch.float64 and tensor.ndim for tensor in call.on_gpu):
        RECORD.add(Kind.NOTE, f"{call.name} in float64")


def _record_to(call: Call) -> None:
    source, non_blocking = call.args[0], bool(call.kwargs.get("non_blocking"))
    if isinstance(source, GpuTensor) and not call.returns_gpu_tensors:
        _record_to_host(non_blocking)  # the memory of the result is pinned if it is not blocking
    elif not isinstance(source, GpuTensor) and call.returns_gpu_tensors:
        _record_to_gpu(source, call.kwargs.get("dtype") or source.dtype, non_blocking)


def _record_copy(call: Call) -> None:
    target, source = call.args[:2]
    non_blocking = bool(call.args[2] if len(call.args) > 2 else call.kwargs.get("non_blocking"))
    if isinstance(source, GpuTensor) and not isinstance(target, GpuTensor):
        _record_to_host(non_blocking and target.is_pinned())
    elif not isinstance(source, GpuTensor) and isinstance(target, GpuTensor):
        _record_to_gpu(source, target.dtype, non_blocking and target.is_contiguous())


def _record_to_host(overlaps: bool) -> None:
    RECORD.add(Kind.OVERLAPPING_COPY if overlaps else Kind.WAIT, "device to host")


def _record_to_gpu(source: Tensor, dtype: torch.dtype, non_blocking: bool) -> None:
    """A copy that converts or gathers goes through other memory, which is not pinned."""
    if not non_blocking:
        RECORD.add(Kind.BLOCKING_COPY, "host to device")
    elif not source.is_pinned():
        RECORD.add(Kind.BLOCKING_COPY, "host to device, not pinned")
    elif source.dtype != dtype or not source.is_contiguous():
        RECORD.add(Kind.BLOCKING_COPY, "host to device, converted or not contiguous")
    else:
        RECORD.add(Kind.OVERLAPPING_COPY, "host to device")


def _record_indexing(call: Call) -> None:
    for index in call.args[1]:
        if isinstance(index, GpuTensor) and index.dtype in _MASKS:
            RECORD.add(Kind.WAIT, "boolean index")
        elif isinstance(index, Tensor) and not isinstance(index, GpuTensor):
            RECORD.add(Kind.BLOCKING_COPY, "host to device, an index")
    if call.name != "index" and len(call.args) > 3 and call.args[3]:
        RECORD.add(Kind.NOTE, f"{call.name} accumulates by sorting")
