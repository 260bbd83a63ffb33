"""Exchange: a model for other programs, and other programs' weights as a model."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ssl_core.config.base import Kind, Layer
from ssl_core.config.fields import Auto, Closed, Fraction, Seed
from ssl_core.config.network import Stem, known_backbone
from ssl_core.config.requirements import Requirements

ExportFormat = Literal["torchvision", "timm", "torch_export", "onnx"]


class Export(Kind):
    """A model in formats that other programs load, each loaded back and compared with the model on real images.

    On the CPU in fp32, whatever trained it.
    """

    title = "Export"

    kind: Literal["export"] = Field("export", description="The job's own kind; need not be given.")
    formats: Annotated[tuple[ExportFormat, ...], Field(min_length=1, max_length=4)] | Auto = Field(
        "auto",
        description="`torchvision` and `timm`: the backbone's weights under their names; `torch_export` and `onnx`:"
        " uint8 images in, features out. auto: all, but timm only where it has this network.",
    )
    layer: Layer = Field("backbone", description="What comes out of `torch_export` and `onnx`.")
    images: int = Field(
        32,
        ge=1,
        le=4096,
        description="So many of the dataset's images, of any split, are what every format is checked on.",
    )
    seed: Seed = Field(0, description="Of the draw of these images.")
    tolerance: float = Field(
        1e-4,
        gt=0,
        le=0.1,
        description="The job fails when a feature differs by more than this share of the largest feature.",
    )

    @property
    def requirements(self) -> Requirements:
        return Requirements(layer=self.layer)


Spread = Annotated[float, Field(ge=0.001, le=1)]


class Import(Closed):
    """What a file of weights does not tell about the network that they are of, and how it wants its images."""

    backbone: str = Field(
        "auto", max_length=64, description="The network's name, as GET /backbones has it; auto: told by the weights."
    )
    stem: Stem = Field(
        "auto",
        description="What a 3×3 first convolution is: `cifar`, `cifar_stride2`, `cifar_padding2`, `cifar_no_relu`."
        " auto: as whoever's names these are has it.",
    )
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = Field(
        "auto", description="Side in pixels; auto: 32 behind a 3×3 stem, else 224."
    )
    mean: tuple[Fraction, Fraction, Fraction] | Auto = Field(
        "auto", description="Of each channel on [0, 1]; auto: CIFAR-10's behind a 3×3 stem, else ImageNet's."
    )
    std: tuple[Spread, Spread, Spread] | Auto = Field("auto", description="Standard deviation of each, likewise.")

    @field_validator("backbone")
    @classmethod
    def _exists(cls, name: str) -> str:
        return known_backbone(name)
