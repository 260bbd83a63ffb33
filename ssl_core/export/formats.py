"""The export run: a model in formats that other programs load.

Every file is loaded back, by the library it is for where that is installed, and has to give the model's own features on
real images.
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
from ssl_core.export.graph import Answer
from ssl_core.files import write_atomic
from ssl_core.inputs import Inputs
from ssl_core.models import other_libraries, torchvision_models
from ssl_core.models.encoder import Encoder
from ssl_core.serialization import saved_model


def run_export(config: Export, inputs: Inputs, directory: Path) -> Iterator[Event]:
    """Write each format into `directory`; the Result tells how far each is from the model. Raises RunFailure."""
    if inputs.model is None:
        raise ConfigUnfit("An export needs a model.")
    subject = _Subject.load(inputs.model, config.layer)
    formats = _formats(config, subject)
    if config.formats == "auto" and "timm" not in formats:
        yield Log("info", "timm has no network of this shape; its format is left out.", "format_left_out")
    pixels = _drawn(Dataset.open(inputs.dataset), config, subject.encoder.image_size)
    started, rows = time.monotonic(), []
    for number, name in enumerate(formats):
        if inputs.stop():
            yield Stopped(number)
            return
        row, written = _export(name, subject, pixels, directory, config.tolerance)
        rows.append(row)
        yield written
        yield _progress(number + 1, len(formats), len(pixels), time.monotonic() - started)
    yield Result(_summary(config, subject, rows, len(pixels)))


@dataclass(frozen=True)
class _Subject:
    """The model that is exported, on the CPU in fp32."""

    folder: Path
    card: Mapping[str, Any]
    encoder: Encoder
    layer: str

    @classmethod
    def load(cls, folder: Path, layer: str) -> "_Subject":
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

    def weights(self) -> bytes:
        """The backbone's weights, under the names that torchvision and timm share."""
        tensors = self.encoder.backbone.body.state_dict()
        return safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})

    def loaded_into(self, network: nn.Module, path: Path) -> Answer:
        """A network of another library with the weights of the file, behind our preprocessing."""
        network.load_state_dict(safetensors.torch.load_file(path))
        network.eval()
        normalise_ = self.encoder.preprocessing.normalise_

        def answer(pixels: Tensor) -> Tensor:
            with torch.inference_mode():
                return network(normalise_(pixels.permute(0, 3, 1, 2).float().div_(255))).flatten(1)

        return answer


@dataclass(frozen=True)
class _Format:
    file: str
    media_type: str
    write: Callable[[_Subject], bytes]
    read: Callable[[_Subject, Path], tuple[Answer, str]]  # and the words for what loaded it
    holds_layer: bool  # false: the backbone alone


def _read_torchvision(subject: _Subject, path: Path) -> tuple[Answer, str]:
    network, by = _torchvisions(subject)
    return subject.loaded_into(network, path), by


def _read_timm(subject: _Subject, path: Path) -> tuple[Answer, str]:
    try:
        import timm  # noqa: PLC0415 - there for those who use it
    except ImportError:  # whose networks are torchvision's here, and whose names are the same
        return _read_torchvision(subject, path)
    arguments = other_libraries.get_timm_arguments(subject.backbone)
    assert arguments is not None
    network = timm.create_model(**arguments)
    return subject.loaded_into(_with_stem(network, subject.backbone), path), f"timm {timm.__version__}"


def _read_pt2(subject: _Subject, path: Path) -> tuple[Answer, str]:
    return graph.from_pt2(path), f"torch {torch.__version__}"


def _read_onnx(subject: _Subject, path: Path) -> tuple[Answer, str]:
    import onnxruntime  # noqa: PLC0415 - of an extra

    return graph.from_onnx(path), f"onnxruntime {onnxruntime.__version__}, opset {graph.OPSET}"


_BYTES = "application/octet-stream"
FORMATS: dict[str, _Format] = {
    "torchvision": _Format("torchvision.safetensors", _BYTES, _Subject.weights, _read_torchvision, False),
    "timm": _Format("timm.safetensors", _BYTES, _Subject.weights, _read_timm, False),
    "torch_export": _Format("model.pt2", _BYTES, lambda subject: graph.to_pt2(subject.program), _read_pt2, True),
    "onnx": _Format("model.onnx", _BYTES, lambda subject: graph.to_onnx(subject.program), _read_onnx, True),
}


def _formats(config: Export, subject: _Subject) -> list[str]:
    """What is to be written, each once. Raises ConfigUnfit and PackageMissing before anything is."""
    in_timm = other_libraries.get_timm_arguments(subject.backbone) is not None
    asked = list(FORMATS if config.formats == "auto" else dict.fromkeys(config.formats))
    if not in_timm and config.formats == "auto":
        asked.remove("timm")
    if not in_timm and "timm" in asked:
        raise ConfigUnfit("timm has no network of this model's shape; leave `timm` out of `formats`.")
    if "onnx" in asked:
        graph.require_onnx()
    return asked


def _drawn(dataset: Dataset, config: Export, side: int) -> Tensor:
    """Return uint8 N×S×S×3: images of any split, as an encoder sees them."""
    order = rng.permutation(rng.stream(config.seed, rng.Stream.EXPORT), len(dataset))
    return read_centre_crops(dataset, np.sort(order[: config.images].numpy()), side)


def _export(
    name: str, subject: _Subject, pixels: Tensor, directory: Path, tolerance: float
) -> tuple[dict[str, Any], Artifact]:
    """Write one format, load it back, and compare. Raises ExportFailed when it is another model then."""
    form = FORMATS[name]
    written = write_atomic(directory / form.file, form.write(subject))
    answer, by = form.read(subject, written.path)
    expected = extract_features(subject.encoder, pixels, subject.layer if form.holds_layer else "backbone")
    # In two batches of other sizes than the example with which a graph was traced.
    given = torch.cat([answer(part) for part in (pixels[:1], pixels[1:]) if len(part)])
    largest = expected.abs().max().item()
    difference = (given - expected).abs().max().item()
    if not difference <= tolerance * largest:  # nor when it is no number
        written.path.unlink()
        raise ExportFailed(
            f"{form.file}, loaded by {by}, is {difference:.2g} from the model where the largest feature is"
            f" {largest:.2g}; {tolerance:g} of it would pass."
        )
    row = {
        "format": name,
        "file": form.file,
        "size_bytes": written.size_bytes,
        "loaded_by": by,
        "difference": difference,
        "relative_difference": difference / largest if largest else 0.0,
    }
    return row, Artifact(form.file, form.file, form.media_type, written.sha256, written.size_bytes)


def _torchvisions(subject: _Subject) -> tuple[nn.Module, str]:
    """torchvision's own network where it has this one, else a new one of ours."""
    backbone = subject.backbone
    if other_libraries.write_torchvision_code(backbone, "") is None:
        fresh = saved_model.load_untrained(subject.folder, seed=1).backbone
        return fresh.body, "Twoviews: torchvision has no such network"
    network = torchvision_models.build_torchvision_network(backbone["name"])
    return _with_stem(network, backbone), f"torchvision {version('torchvision')}"


def _with_stem(network: Any, backbone: Mapping[str, Any]) -> nn.Module:
    """The network with our stem for small images, where the model has that."""
    if backbone.get("stem") in other_libraries.SMALL_STEMS:
        stride, padding = other_libraries.SMALL_STEMS[backbone["stem"]]
        network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, stride, padding, bias=False)
        network.maxpool = nn.Identity()
    return network


def _progress(done: int, total: int, images: int, seconds: float) -> Progress:
    speed = done * images / max(seconds, 1e-9)
    return Progress(0, 1, done, total, speed, seconds / done * (total - done))


def _summary(config: Export, subject: _Subject, rows: list[dict[str, Any]], images: int) -> dict[str, Any]:
    backbone = subject.backbone
    shown = {"torchvision": other_libraries.write_torchvision_code, "timm": other_libraries.write_timm_code}
    lines = {row["format"]: shown[row["format"]](backbone, row["file"]) for row in rows if row["format"] in shown}
    return {
        "protocol": f"Largest difference between the model's features and those of each file, loaded back, on {images}"
        f" of the dataset's images at {subject.encoder.image_size} px, in fp32 on the CPU; relative: to the largest"
        f" feature. torch_export and onnx give {config.layer}, the others are the backbone.",
        "layer": config.layer,
        "images": images,
        "difference": max(row["difference"] for row in rows),
        "results": rows,
        "create_model": other_libraries.get_timm_arguments(backbone) if "timm" in lines else None,
        "load": lines,
    }
