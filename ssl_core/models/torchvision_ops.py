"""Operator declarations that `import torchvision` needs where its compiled extension cannot be loaded.

On import, torchvision registers shape rules for `torchvision::nms` and `torchvision::qnms`, which fails when the two
are not declared, as with a wheel built for CUDA beside a torch built for the CPU. Its models and their weights need no
compiled operator, so the two signatures are declared here when they are missing; calling one still fails. Import this
module before torchvision.
"""

import importlib.machinery
import importlib.util
from pathlib import Path

import torch

_SIGNATURES = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a declaration lives as long as its Library


def declare_operators() -> None:
    """Declare the missing operators, once."""
    if _declared or _extension_loads():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, signature in _SIGNATURES.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + signature)
    _declared.append(library)


def _extension_loads() -> bool:
    """Load torchvision's compiled extension, as its import would, and return whether that succeeds."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    folder = Path(spec.origin).parent
    for suffix in (*importlib.machinery.EXTENSION_SUFFIXES, ".so"):
        if (folder / f"_C{suffix}").is_file():
            try:
                torch.ops.load_library(folder / f"_C{suffix}")
            except (OSError, RuntimeError):
                return False
            return True
    return False


declare_operators()
