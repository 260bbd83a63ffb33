"""The dispatch mode: each operator that concerns the pretended GPU is checked, recorded, and computed on the CPU."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.gpu.pretended.call import Call, map_values
from tests.gpu.pretended.devices import check_devices
from tests.gpu.pretended.tensor import GpuTensor
from tests.gpu.pretended.traffic import record_traffic

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class PretendedGpu(TorchDispatchMode):
    """A thread that is in this mode has the pretended GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = Call(func, args, kwargs or {})
        if not call.concerns_gpu:
            return func(*call.args, **call.kwargs)
        if call.device == "meta":
            return call.compute()
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):  # in inference mode they come whole
            with PretendedGpu():
                return func.decompose(*call.args, **call.kwargs)
        check_devices(call)
        record_traffic(call)
        return _wrap(call, call.compute())


def _wrap(call: Call, results: Any) -> Any:
    """Return the results as tensors of their device; a tensor that was changed in place is the argument itself."""
    if not call.returns_gpu_tensors:
        return call.args[0] if call.name == "copy_" else results
    known = {id(tensor.held): tensor for tensor in call.on_gpu}

    def wrap(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return known[id(leaf)] if id(leaf) in known else GpuTensor(leaf)

    return map_values(wrap, results)
