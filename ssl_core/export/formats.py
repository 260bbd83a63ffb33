"""The export run: a saved model in the formats of torchvision, timm, torch.export and ONNX.

Every file is loaded back, with the library of its format if that is installed, and its features are compared with the
model's on images of the dataset.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

import ssl_core.models.torchvision_ops  # noqa: F401 - has to come before timm, which imports torchvision
from ssl_core import rng
from ssl_core.config import Export
from ssl_core.config.requirements import no_such_layer
from ssl_core.data.dataset import Dataset
from ssl_core.data.image_store import read_centre_crops
from ssl_core.errors import ConfigUnfit, ExportFailed
from ssl_core.evaluation.features import extract_features
from ssl_core.events import Artifact, Event, Log, Progress, Result, Stopped
from ssl_core.export import graph
from ssl_core.export.graph import FeatureFunction
from ssl_core.files import write_atomic
from ssl_core.inputs import Inputs
from ssl_core.models import other_libraries, torchvision_models
from ssl_core.models.encoder import Encoder
from ssl_core.serialization import saved_model


def run_export(config: Export, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Write each format into `directory`; the Result has the difference of each from the model. Raises RunFailure."""
    if inputs.model is None:
        raise ConfigUnfit("An export needs a model.")
    model = _ExportedModel.load(inputs.model, config.layer)
    formats = _select_formats(config, model)
    if config.formats == "auto" and "timm" not in formats:
        yield Log("info", "timm has no such network; its format is omitted.", "format_left_out")
    pixels = _draw_images(Dataset.open(inputs.dataset), config, model.encoder.image_size)
    started, rows = time.monotonic(), []
    for number, name in enumerate(formats):
        if inputs.stop():
            yield Stopped(number)
            return
        row, written = _export_format(name, model, pixels, directory, config.tolerance)
        rows.append(row)
        yield written
        yield _build_progress(number + 1, len(formats), len(pixels), time.monotonic() - started)
    yield Result(_build_summary(config, model, rows, len(pixels)))


@dataclass(frozen=True)
class _ExportedModel:
    """The model to export, on the CPU in fp32."""

    folder: Path
    card: Mapping[str, Any]
    encoder: Encoder
    layer: str

    @classmethod
    def load(cls, folder: Path, layer: str) -> "_ExportedModel":
        card, encoder = saved_model.load_card(folder), saved_model.load(folder)
        if layer not in encoder.layers:
            raise ConfigUnfit(no_such_layer(layer, encoder.layers))
        return cls(folder, card, encoder, layer)

    @property
    def backbone(self) -> Mapping[str, Any]:
        return self.card["backbone"]

    @cached_property
    def program(self) -> ExportedProgram:
        return graph.trace(self.encoder, self.layer)

    def to_safetensors(self) -> bytes:
        """Return the backbone's weights, under the names that torchvision and timm share."""
        tensors = self.encoder.backbone.body.state_dict()
        return safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})

    def load_into(self, network: nn.Module, path: Path) -> FeatureFunction:
        """Return the features of another library's network with the file's weights, after our preprocessing."""
        network.load_state_dict(safetensors.torch.load(path.read_bytes()))
        network.eval()
        normalise_ = self.encoder.preprocessing.normalise_

        def compute_features(pixels: Tensor) -> Tensor:
            with torch.inference_mode():
                return network(normalise_(pixels.permute(0, 3, 1, 2).float().div_(255))).flatten(1)

        return compute_features


@dataclass(frozen=True)
class _Format:
    file: str
    media_type: str
    write: Callable[[_ExportedModel], bytes]
    load: Callable[[_ExportedModel, Path], tuple[FeatureFunction, str]]  # with the name of the loading library
    has_layer: bool  # whether it gives the config's layer, or the backbone's features


def _load_torchvision(model: _ExportedModel, path: Path) -> tuple[FeatureFunction, str]:
    network, library = _build_torchvision(model)
    return model.load_into(network, path), library


def _load_timm(model: _ExportedModel, path: Path) -> tuple[FeatureFunction, str]:
    try:
        import timm  # noqa: PLC0415 - optional
    except ImportError:  # torchvision's network has the same names
        return _load_torchvision(model, path)
    arguments = other_libraries.get_timm_arguments(model.backbone)
    assert arguments is not None
    network = timm.create_model(**arguments)
    return model.load_into(_replace_stem(network, model.backbone), path), f"timm {timm.__version__}"


def _load_pt2(model: _ExportedModel, path: Path) -> tuple[FeatureFunction, str]:
    return graph.load_pt2(path), f"torch {torch.__version__}"


def _load_onnx(model: _ExportedModel, path: Path) -> tuple[FeatureFunction, str]:
    import onnxruntime  # noqa: PLC0415 - optional

    return graph.load_onnx(path), f"onnxruntime {onnxruntime.__version__}, opset {graph.OPSET}"


_MEDIA_TYPE = "application/octet-stream"
FORMATS: dict[str, _Format] = {
    "torchvision": _Format(
        "torchvision.safetensors", _MEDIA_TYPE, _ExportedModel.to_safetensors, _load_torchvision, False
    ),
    "timm": _Format("timm.safetensors", _MEDIA_TYPE, _ExportedModel.to_safetensors, _load_timm, False),
    "torch_export": _Format("model.pt2", _MEDIA_TYPE, lambda model: graph.to_pt2(model.program), _load_pt2, True),
    "onnx": _Format("model.onnx", _MEDIA_TYPE, lambda model: graph.to_onnx(model.program), _load_onnx, True),
}


def _select_formats(config: Export, model: _ExportedModel) -> list[str]:
    """Return the formats to write, each once. Raises ConfigUnfit and PackageMissing."""
    in_timm = other_libraries.get_timm_arguments(model.backbone) is not None
    selected = list(FORMATS if config.formats == "auto" else dict.fromkeys(config.formats))
    if not in_timm and config.formats == "auto":
        selected.remove("timm")
    if not in_timm and "timm" in selected:
        raise ConfigUnfit("timm has no such network; remove `timm` from `formats`.")
    if "onnx" in selected:
        graph.require_onnx()
    return selected


def _draw_images(dataset: Dataset, config: Export, side: int) -> Tensor:
    """Return uint8 N×S×S×C: random images of all splits, centre-cropped."""
    order = rng.permutation(rng.stream(config.seed, rng.Stream.EXPORT), len(dataset))
    return read_centre_crops(dataset, np.sort(order[: config.images].numpy()), side)


def _export_format(
    name: str, model: _ExportedModel, pixels: Tensor, directory: Path, tolerance: float
) -> tuple[dict[str, Any], Artifact]:
    """Write one format, load it back, and compare. Raises ExportFailed when the features differ."""
    form = FORMATS[name]
    written = write_atomic(directory / form.file, form.write(model))
    compute_features, library = form.load(model, written.path)
    expected = extract_features(model.encoder, pixels, model.layer if form.has_layer else "backbone").cpu()
    # In two batches of other sizes than the traced example.
    features = torch.cat([compute_features(part) for part in (pixels[:1], pixels[1:]) if len(part)])
    largest = expected.abs().max().item()
    difference = (features - expected).abs().max().item()
    if not difference <= tolerance * largest:  # also for NaN
        written.path.unlink()
        raise ExportFailed(
            f"{form.file}, loaded by {library}, differs from the model by {difference:.2g} where the largest feature is"
            f" {largest:.2g}; the relative tolerance is {tolerance:g}."
        )
    row = {
        "format": name,
        "file": form.file,
        "size_bytes": written.size_bytes,
        "loaded_by": library,
        "difference": difference,
        "relative_difference": difference / largest if largest else 0.0,
    }
    return row, Artifact(form.file, form.file, form.media_type, written.sha256, written.size_bytes)


def _build_torchvision(model: _ExportedModel) -> tuple[nn.Module, str]:
    """Return torchvision's network if it has this one, else a new one of ours, and the library's name."""
    backbone = model.backbone
    if other_libraries.write_torchvision_code(backbone, "") is None:
        untrained = saved_model.load_untrained(model.folder, seed=1).backbone
        return untrained.body, "Twoviews: torchvision has no such network"
    network = torchvision_models.build_torchvision_network(backbone["name"], channels=model.encoder.channels)
    return _replace_stem(network, backbone), f"torchvision {version('torchvision')}"


def _replace_stem(network: Any, backbone: Mapping[str, Any]) -> nn.Module:
    """Replace the network's stem by the model's, if that is one for small images."""
    if backbone.get("stem") in other_libraries.SMALL_STEMS:
        stride, padding = other_libraries.SMALL_STEMS[backbone["stem"]]
        first = network.conv1
        network.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, stride, padding, bias=False)
        network.maxpool = nn.Identity()
    return network


def _build_progress(done: int, total: int, images: int, seconds: float) -> Progress:
    speed = done * images / max(seconds, 1e-9)
    return Progress(0, 1, done, total, speed, seconds / done * (total - done))


def _build_summary(config: Export, model: _ExportedModel, rows: list[dict[str, Any]], images: int) -> dict[str, Any]:
    backbone = model.backbone
    code = {"torchvision": other_libraries.write_torchvision_code, "timm": other_libraries.write_timm_code}
    lines = {row["format"]: code[row["format"]](backbone, row["file"]) for row in rows if row["format"] in code}
    return {
        "protocol": f"Largest difference between the model's features and those of each file, loaded back, on {images}"
        f" of the dataset's images at {model.encoder.image_size} px, in fp32 on the CPU; relative: to the largest"
        f" feature. torch_export and onnx give {config.layer}, the others are the backbone.",
        "layer": config.layer,
        "channels": model.encoder.channels,
        "images": images,
        "difference": max(row["difference"] for row in rows),
        "results": rows,
        "create_model": other_libraries.get_timm_arguments(backbone) if "timm" in lines else None,
        "load": lines,
    }
