"""Export of an encoder, preprocessing included, as a graph of torch.export and of ONNX.

Input: `images`, uint8 N×S×S×C for any N. Output: `features`, float32 N×D. `ssl_core.data.centre_crop` prepares images
of other sizes.
"""

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ssl_core.errors import ExportFailed, PackageMissing
from ssl_core.models.encoder import Encoder

OPSET = 18  # ONNX operator set that torch's exporter writes without conversion
_MAX_BYTES = 2**31 - 2**20  # of weights in an ONNX file: a protobuf message, less the graph

FeatureFunction = Callable[[Tensor], Tensor]  # uint8 N×S×S×C -> float32 N×D


class ExportModule(nn.Module):
    """The module to export, for one layer of an encoder: uint8 N×S×S×C -> float32 N×D."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, layer: str) -> None:
        super().__init__()
        preprocessing = encoder.preprocessing
        below_head = layer == "backbone" or layer in encoder.backbone.block_dims
        # Unused weights would be in the file.
        self.encoder = Encoder(encoder.backbone, None, preprocessing) if below_head else encoder
        self.layer = layer
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scaled = images.permute(0, 3, 1, 2).float() / 255  # N×C×S×S
        return self.encoder((scaled - self.mean) / self.std, self.layer)


def trace(encoder: Encoder, layer: str) -> ExportedProgram:
    """Return the program of an encoder on the CPU, for batches of any size. Raises ExportFailed."""
    side = encoder.image_size
    example = torch.zeros((2, side, side, encoder.channels), dtype=torch.uint8)
    with _wrap_errors("torch.export"), torch.no_grad():
        module = ExportModule(encoder, layer).eval()
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it has paths of this machine
    return program


def to_pt2(program: ExportedProgram) -> bytes:
    """Return the program as a file of torch.export. Raises ExportFailed."""
    file = io.BytesIO()
    with _wrap_errors("torch.export"):
        torch.export.save(program, file)
    return file.getvalue()


def load_pt2(path: Path) -> FeatureFunction:
    """Load a file of `to_pt2`."""
    with _silence():
        return torch.export.load(path).module()


def require_onnx() -> None:
    """Raise PackageMissing unless the packages to write and run ONNX are installed."""
    try:
        for name in ("onnx", "onnxruntime", "onnxscript"):
            importlib.import_module(name)
    except ImportError as error:
        message = f"ONNX needs a package that is not installed ({error})"
        raise PackageMissing(f'{message}; `pip install "twoviews[export]"` installs it.') from error


def to_onnx(program: ExportedProgram) -> bytes:
    """Return the program as an ONNX file of opset OPSET. Raises ExportFailed."""
    if sum(value.nbytes for value in program.state_dict.values()) > _MAX_BYTES:
        raise ExportFailed("One ONNX file holds at most 2 GiB, and this network is larger; choose the other formats.")
    options: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "verbose": False}
    options |= {"input_names": ["images"], "output_names": ["features"]}
    with _wrap_errors("ONNX"):
        exported: Any = torch.onnx.export(program, (), **options)
        exported.rename_axes({exported.model.graph.inputs[0].shape[0]: "batch"})
        return exported.model_proto.SerializeToString()


def load_onnx(path: Path) -> FeatureFunction:
    """Load a file of `to_onnx` with onnxruntime."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])


@contextlib.contextmanager
def _wrap_errors(exporter: str) -> Iterator[None]:
    """Raise ExportFailed for every error of an exporter."""
    try:
        with _silence():
            yield
    except (MemoryError, ExportFailed):
        raise
    except Exception as error:  # exporters raise errors of any class
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise ExportFailed(f"{exporter} cannot export this network: {reason}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress exporters' warnings, and redirect their output from stdout, which has the events."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
