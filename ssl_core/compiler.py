"""The compiler: torch.compile, whose kernels fuse several operations.

It is deterministic here: by default Inductor chooses among kernels by timing them, and a resumed process might choose
others. What it has compiled is kept on disk for later runs, in TORCHINDUCTOR_CACHE_DIR or the user's cache.
"""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

_SHAPES = 64  # for each of which a function may be compiled: phases, kinds of views, a last chunk


def compile_whole(function: Callable[..., Tensor], *, is_recorded: bool = False) -> Callable[..., Tensor]:
    """Return the function, compiled as one graph at its first call with each shape of tensors.

    is_recorded: on a GPU, launch its kernels as a CUDA graph, which is recorded in the second and third call; call
    `begin_step` before every step then, as tensors that it returned are overwritten in the next. The first call raises
    many kinds of exceptions where the compiler fails; the function itself has not run then.
    """
    from torch._dynamo import config as dynamo  # noqa: PLC0415 - takes seconds to load
    from torch._inductor import config as inductor  # noqa: PLC0415

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", _find_cache_folder())
    # Of this thread, and of the backward pass, in which its context is copied. Not for a block: shapes come later.
    dynamo.recompile_limit, inductor.deterministic = _SHAPES, True
    options: dict[str, Any] = {"options": {"triton.cudagraphs": True}} if is_recorded else {}
    whole: Callable[..., Tensor] = torch.compile(function, fullgraph=True, dynamic=False, **options)
    return whole


begin_step = torch.compiler.cudagraph_mark_step_begin


compile_once = cache(compile_whole)


def _find_cache_folder() -> str:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(caches, "twoviews", "inductor")
