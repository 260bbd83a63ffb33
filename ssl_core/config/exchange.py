"""Exchange: export of a model to other programs' formats, and import of other programs' weights."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from ssl_core.config.base import Kind, Layer
from ssl_core.config.fields import Auto, Closed, Fraction, Seed
from ssl_core.config.network import Stem, known_backbone
from ssl_core.config.reading import MAX_CHANNELS
from ssl_core.config.requirements import Requirements
from ssl_core.config.views import RGB

ExportFormat = Literal["torchvision", "timm", "torch_export", "onnx"]


class Export(Kind):
    """A model in formats that other programs load, each loaded back and compared with the model on real images.

    Computed on the CPU in fp32.
    """

    title = "Export"

    kind: Literal["export"] = Field("export", description="The kind of the job; may be left out.")
    formats: Annotated[tuple[ExportFormat, ...], Field(min_length=1, max_length=4)] | Auto = Field(
        "auto",
        description="`torchvision` and `timm`: the backbone's weights under their names; `torch_export` and `onnx`:"
        " uint8 images in, features out. auto: all, but timm only where it has the network.",
    )
    layer: Layer = Field("backbone", description="The layer that `torch_export` and `onnx` return.")
    images: int = Field(
        32,
        ge=1,
        le=4096,
        description="Number of the dataset's images, of any split, on which every format is checked.",
    )
    seed: Seed = Field(0, description="Seed of the draw of these images.")
    tolerance: float = Field(
        1e-4,
        gt=0,
        le=0.1,
        description="The job fails when a feature differs by more than this share of the largest feature.",
    )

    @property
    def requirements(self) -> Requirements:
        return Requirements(layer=self.layer)


_OF_EACH_CHANNEL = Field(min_length=1, max_length=MAX_CHANNELS)
Spread = Annotated[float, Field(ge=0.001, le=1)]


class Import(Closed):
    """What a file of weights does not state about its network and the network's preprocessing."""

    backbone: str = Field(
        "auto", max_length=64, description="The network's name, as in GET /backbones; auto: inferred from the weights."
    )
    stem: Stem = Field(
        "auto",
        description="The kind of a 3×3 first convolution: `cifar`, `cifar_stride2`, `cifar_padding2`, `cifar_no_relu`."
        " auto: inferred from the checkpoint's key names.",
    )
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = Field(
        "auto", description="Side in pixels; auto: 32 with a 3×3 stem, else 224."
    )
    mean: Annotated[tuple[Fraction, ...], _OF_EACH_CHANNEL] | Auto = Field(
        "auto",
        description="Mean of each channel on [0, 1]; auto: CIFAR-10's with a 3×3 stem, else ImageNet's, of RGB alone.",
    )
    std: Annotated[tuple[Spread, ...], _OF_EACH_CHANNEL] | Auto = Field(
        "auto", description="Standard deviation of each channel, likewise."
    )

    @field_validator("backbone")
    @classmethod
    def _exists(cls, name: str) -> str:
        return known_backbone(name)

    @field_validator("std")
    @classmethod
    def _are_of_the_same_channels(cls, std: tuple[float, ...] | Auto, info: ValidationInfo) -> tuple[float, ...] | Auto:
        mean, std_count = info.data.get("mean", "auto"), RGB if std == "auto" else len(std)
        if (mean_count := RGB if mean == "auto" else len(mean)) != std_count:
            raise ValueError(f"mean is of {mean_count} channels, and std of {std_count}")
        return std
