"""The graph: an encoder as one function of uint8 images, preprocessing inside, in the files of torch.export and ONNX.

Both take a batch of any size, uint8 N×S×S×3 named `images`, and give float32 N×D named `features`. Where S comes from
larger images, `ssl_core.data.centre_crop` says how.
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

OPSET = 18  # of the ONNX operators: the one that torch's exporter writes without converting
_MOST_BYTES = 2**31 - 2**20  # what one ONNX file holds: a protobuf message, less room for the graph

Answer = Callable[[Tensor], Tensor]  # uint8 N×S×S×3 -> float32 N×D


class Graph(nn.Module):
    """One layer of an encoder: uint8 N×S×S×3 -> float32 N×D."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, layer: str) -> None:
        super().__init__()
        preprocessing = encoder.preprocessing
        below_head = layer == "backbone" or layer in encoder.backbone.block_dims
        # Weights that the layer does not need would be kept in the file.
        self.encoder = Encoder(encoder.backbone, None, preprocessing) if below_head else encoder
        self.layer = layer
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scaled = images.permute(0, 3, 1, 2).float() / 255  # N×3×S×S
        return self.encoder((scaled - self.mean) / self.std, self.layer)


def trace(encoder: Encoder, layer: str) -> ExportedProgram:
    """Return the program of an encoder on the CPU, for batches of any size. Raises ExportFailed."""
    side = encoder.image_size
    example = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    with _exporting("torch.export"), torch.no_grad():
        graph = Graph(encoder, layer).eval()
        program = torch.export.export(graph, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names this machine's folders
    return program


def to_pt2(program: ExportedProgram) -> bytes:
    """Return the program as torch.export saves it."""
    file = io.BytesIO()
    with _exporting("torch.export"):
        torch.export.save(program, file)
    return file.getvalue()


def from_pt2(path: Path) -> Answer:
    """Load what `to_pt2` gave."""
    with _quiet():
        return torch.export.load(path).module()


def require_onnx() -> None:
    """Raise PackageMissing unless ONNX can be written and run here."""
    try:
        for name in ("onnx", "onnxruntime", "onnxscript"):
            importlib.import_module(name)
    except ImportError as error:
        needed = f"ONNX needs a package that is not installed here ({error})"
        raise PackageMissing(f'{needed}; `pip install "twoviews[export]"` brings it.') from error


def to_onnx(program: ExportedProgram) -> bytes:
    """Return the program as an ONNX file of opset OPSET. Raises ExportFailed."""
    if sum(value.nbytes for value in program.state_dict.values()) > _MOST_BYTES:
        raise ExportFailed("One ONNX file holds at most 2 GiB, and this network is larger; name the other formats.")
    options: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "verbose": False}
    options |= {"input_names": ["images"], "output_names": ["features"]}
    with _exporting("ONNX"):
        made: Any = torch.onnx.export(program, (), **options)
        made.rename_axes({made.model.graph.inputs[0].shape[0]: "batch"})
        return made.model_proto.SerializeToString()


def from_onnx(path: Path) -> Answer:
    """Load what `to_onnx` gave, into onnxruntime."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])


@contextlib.contextmanager
def _exporting(what: str) -> Iterator[None]:
    """Turn whatever an exporter raises into ExportFailed."""
    try:
        with _quiet():
            yield
    except (MemoryError, ExportFailed):
        raise
    except Exception as error:  # there is no telling what comes out of an exporter
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise ExportFailed(f"{what} cannot take this network: {reason}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters' warnings to themselves, and their progress off stdout, where events go."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
