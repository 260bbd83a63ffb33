"""What is known of torch's operators on CUDA: which have a kernel, launch none, wait, or are not deterministic."""

from functools import cache
from pathlib import Path
from typing import Any

import torchgen
import yaml
from torch._ops import OpOverload

# Launch no kernel though they return a new tensor or a number.
_FREE = frozenset(
    {"_unsafe_view", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
    | {"is_same_size", "sym_size", "sym_numel", "sym_stride", "_has_compatible_shallow_copy_type"}
)
# Return a number to the host, or a tensor of a size that the host has to know.
WAITING = frozenset(
    {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "histc"}
    | {"_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"}
    | {"_linalg_svd", "linalg_svdvals", "_linalg_eigh", "linalg_qr"}
)
# Raise or warn under torch.use_deterministic_algorithms on CUDA (torch 2.11).
NOT_DETERMINISTIC = frozenset(
    {"scatter_add", "scatter_add_", "index_add", "index_add_", "put_", "histc", "cumsum", "kthvalue", "median"}
    | {"_embedding_bag", "nll_loss2d_forward", "grid_sampler_2d_backward", "upsample_bilinear2d_backward"}
    | {"reflection_pad2d_backward", "replication_pad2d_backward"}
    | {"max_pool2d_with_indices_backward", "_adaptive_avg_pool2d_backward"}
)
INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})


def name_of(func: OpOverload) -> str:
    """Return the operator's name without namespace and overload."""
    return func._schema.name.partition("::")[2]


def launches_kernel(func: OpOverload) -> bool:
    """Whether it computes something, rather than make a view or reserve memory."""
    return not func.is_view and name_of(func) not in _FREE


@cache
def has_cuda_kernel(func: OpOverload) -> bool:
    """Whether torch's own list of operators has an implementation for CUDA; other libraries' are not known."""
    if func.namespace != "aten":
        return True
    overload = func._schema.overload_name
    entry = _native_functions().get(f"{name_of(func)}.{overload}" if overload else name_of(func), {})
    if "structured_delegate" in entry:
        entry = _native_functions()[entry["structured_delegate"]]
    keys = {key.strip() for joined in entry.get("dispatch", {}) for key in joined.split(",")}
    generated = "ufunc_inner_loop" in entry  # for CPU and CUDA, from one expression
    return not keys or generated or any(key == "CUDA" or key.startswith("Composite") for key in keys)


@cache
def _native_functions() -> dict[str, dict[str, Any]]:
    """The entries of the list from which torch is built, by operator and overload."""
    path = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    entries = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry["func"].partition("(")[0]: entry for entry in entries}
