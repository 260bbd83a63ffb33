"""What a run is: one closed, frozen pydantic class per kind and per method.

The same classes are the request body's `config`, the JSON column of a job, and the trainer's argument. This module
imports pydantic and nothing heavier: the API validates with it and never loads torch.

Every field carries its bound, its unit and a good default, so `{"method": {"name": "simclr"}}` is a complete run.
A value of `"auto"` is settled once, by `ssl_core.resolve`, from the data and the device; the settled config is stored
with the job and is itself a valid config that resolves to itself.
"""

import difflib
import json
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from ssl_core.backbone_names import RESNETS, TORCHVISION
from ssl_core.fields import Auto, Closed, Fraction, Row, Seed, Share
from ssl_core.method_config import Method

# --- the network -----------------------------------------------------------------------------------------------------


BACKBONES: dict[str, str] = {name: shape.description for name, shape in RESNETS.items()} | {
    f"torchvision_{name}": f"{name} of torchvision, without its classifier." for name in TORCHVISION
}
# What these fields are of every torchvision model; its networks are taken as they are.
TORCHVISIONS_OWN = {
    "width": 1.0,
    "stem": "imagenet",
    "selective_kernel": False,
    "layout": "torchvision",
    "zero_init_residual": False,
}


def is_torchvisions(backbone: str) -> bool:
    """Return whether the name of a backbone is that of a torchvision model."""
    return backbone.startswith("torchvision_")


def known_backbone(name: str) -> str:
    """Return the name, which is "auto" or a key of BACKBONES. Raises ValueError."""
    if name != "auto" and name not in BACKBONES:
        close = difflib.get_close_matches(name, BACKBONES, n=1)
        raise ValueError(f"there is no backbone `{name}`" + (f"; did you mean `{close[0]}`?" if close else ""))
    return name


Stem = Literal["auto", "cifar", "cifar_stride2", "cifar_padding2", "cifar_no_relu", "imagenet"]


class Backbone(Closed):
    """The encoder: image batch -> features."""

    name: str = Field(
        "auto",
        max_length=64,
        pattern=r"^[a-z0-9_]+$",
        description="`resnet10` … `resnet152`, `wide_resnet50_2`, or any torchvision classification model as"
        " `torchvision_<name>`. auto: resnet10 on a CPU, resnet18 on a GPU, resnet50 for selective kernels.",
    )
    width: Annotated[float, Field(gt=0, le=8)] | Auto = Field(
        "auto",
        description="Width multiplier; auto: 0.5 on a CPU, 1 on a GPU and for ImageNet weights. Not for torchvision's"
        " models.",
    )
    stem: Stem = Field(
        "auto",
        description="cifar: 3×3 stride 1, no max-pool; cifar_padding2 and cifar_no_relu are solo-learn's and lightly's,"
        " for imported weights. auto: cifar up to 64 px, imagenet above. Not for torchvision's models.",
    )
    selective_kernel: bool | Auto = Field(
        "auto",
        description="SimCLRv2's SK: selective kernels, with ResNet-D's stem and shortcuts; from resnet50 up. auto: no.",
    )
    layout: Literal["auto", "torchvision", "google"] = Field(
        "auto",
        description="Whose padding, pooling and shortcuts: torchvision's, or google-research/simclr's, which alone"
        " has selective kernels. auto: google with those, else torchvision.",
    )
    weights: Literal["random", "imagenet"] = Field(
        "random",
        description="Starting weights when the job names no model; imagenet: torchvision's, for all but resnet10.",
    )
    zero_init_residual: bool | Auto = Field(
        "auto",
        description="Start each block as the identity; auto: in google's layout, and on a GPU as the method's paper;"
        " on a CPU, where runs are short, no. Not for torchvision's models.",
    )

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        return known_backbone(name)

    @field_validator("width", "stem", "selective_kernel", "layout", "zero_init_residual")
    @classmethod
    def _can_be_chosen(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        name, own = info.data.get("name", "auto"), TORCHVISIONS_OWN[info.field_name]
        if is_torchvisions(name) and value not in ("auto", own):
            raise ValueError(f"{name} is taken as torchvision has it; leave `{info.field_name}` out")
        return value

    @field_validator("selective_kernel")
    @classmethod
    def _has_room(cls, selective: bool | Auto, info: ValidationInfo) -> bool | Auto:
        name = info.data.get("name", "auto")
        if selective is True and name != "auto" and RESNETS[name].block != "bottleneck":
            raise ValueError(f"{name} has no bottleneck blocks; resnet50 is the smallest with selective kernels")
        return selective

    @field_validator("layout")
    @classmethod
    def _has_selective_kernels(cls, layout: str, info: ValidationInfo) -> str:
        if layout == "torchvision" and info.data.get("selective_kernel") is True:
            raise ValueError("selective kernels are of google's layout; torchvision has none")
        return layout

    @field_validator("weights")
    @classmethod
    def _exist(cls, weights: str, info: ValidationInfo) -> str:
        name, width = info.data.get("name", "auto"), info.data.get("width", "auto")
        if weights == "imagenet" and name in RESNETS.keys() - {*TORCHVISION}:
            raise ValueError(f"there are no ImageNet weights for {name}; resnet18 is the smallest ResNet that has them")
        if weights == "imagenet" and width not in ("auto", 1):
            raise ValueError(f"there are no ImageNet weights for width {width}, but for 1 alone")
        if weights == "imagenet" and (info.data.get("selective_kernel") is True or info.data.get("layout") == "google"):
            raise ValueError("ImageNet weights are torchvision's, for its own layout alone")
        return weights


# --- the views -------------------------------------------------------------------------------------------------------


class Views(Closed):
    """How a view is drawn from an image; parameters differ for every sample, seeded by (seed, epoch, image, view)."""

    num_views: Annotated[int, Field(ge=1, le=16)] | Auto = Field(
        "auto", description="How many views of an image are drawn so; auto: 2, or 1 each in a list of several."
    )
    size: float = Field(
        1.0, ge=0.05, le=1, description="Side of the view as a share of the run's: small crops are cheap."
    )
    crop_area: tuple[Fraction, Fraction] | None = Field(
        (0.2, 1.0), description="Share of the image's area; null: no crop."
    )
    crop_ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="Width over height of the crop.")
    flip: Fraction = Field(0.5, description="Probability of a horizontal flip.")
    jitter: Fraction = Field(0.8, description="Probability of colour jitter.")
    jitter_strength: float = Field(0.5, ge=0, le=2, description="The paper's s; multiplies the four parts below.")
    brightness: float = Field(0.8, ge=0, le=1, description="Brightness is multiplied by 1 ± at most this.")
    brightness_added: bool = Field(
        False, description="Brightness is added instead: up to ± that share of white (SimCLR's first version)."
    )
    contrast: float = Field(0.8, ge=0, le=1, description="Contrast, likewise multiplied.")
    contrast_range: tuple[float, float] | None = Field(
        None, description="Contrast is multiplied by a number from here instead, whatever the strength."
    )
    saturation: float = Field(0.8, ge=0, le=1, description="Saturation, likewise.")
    hue: float = Field(0.2, ge=0, le=0.5, description="Largest turn of the hue to either side; 1 is the full circle.")
    grey: Fraction = Field(0.2, description="Probability of losing all colour.")
    blur: Fraction = Field(0.0, description="Probability of a Gaussian blur whose kernel is a tenth of the side.")
    blur_sigma: tuple[float, float] = Field((0.1, 2.0), description="Standard deviation of the blur, in pixels.")
    solarize: Fraction = Field(0.0, description="Probability of turning every value above a half into its negative.")
    rotation: float = Field(0.0, ge=0, le=180, description="Largest rotation to either side, in degrees.")
    shear: float = Field(0.0, ge=0, le=1, description="Largest horizontal shear to either side, as a slope.")
    scale: tuple[float, float] = Field((1.0, 1.0), description="Zoom about the centre; below 1 the image shrinks.")
    translation: float = Field(0.0, ge=0, le=1, description="Largest shift along each axis, as a share of the side.")
    gamma: float = Field(0.0, ge=0, le=2, description="Exponent drawn from exp(±gamma).")
    noise: float = Field(
        0.0, ge=0, le=1, description="Standard deviation of additive Gaussian noise, on [0, 1] pixels."
    )

    @model_validator(mode="after")
    def _ranges_ascend(self) -> "Views":
        for name in ("crop_area", "crop_ratio", "blur_sigma", "scale", "contrast_range"):
            pair = getattr(self, name)
            if pair is not None and not 0.001 <= pair[0] <= pair[1] <= 10:
                raise ValueError(f"{name} must be two ascending numbers from 0.001 to 10")
        return self


ViewSets = Annotated[tuple[Views, ...], Field(min_length=1, max_length=16)]


def view_sets(views: Views | tuple[Views, ...]) -> tuple[Views, ...]:
    """Return one set for each kind of view, with its number settled."""
    several = views if isinstance(views, tuple) else (views,)
    usual = 2 if len(several) == 1 else 1
    return tuple(each.model_copy(update={"num_views": usual}) if each.num_views == "auto" else each for each in several)


class PlainViews(Views):
    """The views of training with labels: crop and flip, and the colours as they are unless told."""

    num_views: Literal[1] = Field(1, description="One view of an image in each epoch.")
    jitter: Fraction = Field(0.0, description="Probability of colour jitter.")
    grey: Fraction = Field(0.0, description="Probability of losing all colour.")


class Phase(Closed):
    """A stretch of training at one image size; small crops first buy many more steps."""

    until: float = Field(gt=0, le=1, description="Share of all steps at which the phase ends; the last is 1.")
    image_size: int = Field(ge=4, le=1024, description="Side of a view, in pixels.")


Phases = Annotated[tuple[Phase, ...], Field(min_length=1, max_length=16)]


# --- optimisation ----------------------------------------------------------------------------------------------------


class _Optimizer(Closed):
    lr: Annotated[float, Field(gt=0, le=1000)] | Auto = Field(
        "auto", description="Learning rate before `lr_scaling`; auto: as the method recommends."
    )
    weight_decay: float = Field(5e-4, ge=0, le=1, description="Added to the gradient; AdamW takes it off the weights.")
    decay_norm_and_bias: bool | Auto = Field(
        "auto", description="Decay batch norm and biases too; auto: of SimSiam yes, but not by muon; of others no."
    )


class SGD(_Optimizer):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = Field("sgd", description="Says which optimizer this is.")
    momentum: Fraction = Field(0.9, description="Share of the last step's direction that is kept.")
    nesterov: bool = Field(True, description="Nesterov's momentum.")


class AdamW(_Optimizer):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    name: Literal["adamw"] = Field("adamw", description="Says which optimizer this is.")
    betas: tuple[Share, Share] = Field(
        (0.9, 0.999), description="Shares of the gradient's and of its square's running means that are kept each step."
    )


class LARS(_Optimizer):
    """Layer-wise adaptive rates (arXiv:1708.03888), as google-research/simclr has it."""

    name: Literal["lars"] = Field("lars", description="Says which optimizer this is.")
    momentum: Fraction = Field(0.9, description="Share of the last step's direction that is kept.")
    trust: float = Field(0.001, gt=0, le=1, description="The trust coefficient.")
    classic_momentum: bool = Field(
        True, description="The learning rate goes inside the momentum buffer; false: outside."
    )
    nesterov: bool = Field(False, description="Nesterov's momentum.")


class Muon(_Optimizer):
    """Momentum that is orthogonalised before each step (Jordan et al. 2024), as torch.optim.Muon has it."""

    name: Literal["muon"] = Field("muon", description="Says which optimizer this is.")
    weight_decay: float = Field(0.1, ge=0, le=1, description="Times the learning rate, taken off the weights.")
    momentum: Fraction = Field(0.9, description="Share of the last step's direction that is kept.")
    nesterov: bool = Field(True, description="Nesterov's momentum.")
    steps: int = Field(3, ge=1, le=10, description="Newton–Schulz steps; more come closer to orthogonal and cost more.")
    vector_lr: float = Field(
        0.12,
        gt=0,
        le=1000,
        description="Learning rate of norms and biases, which take plain momentum; scaled likewise.",
    )


Optimizer = Annotated[SGD | AdamW | LARS | Muon, Field(discriminator="name")]


class Schedule(Closed):
    """The learning rate at each step: linear warm-up, then cosine to 0."""

    lr_scaling: Literal["none", "linear", "sqrt"] = Field(
        "linear", description="none: lr; linear: lr·batch/256; sqrt: lr·√batch."
    )
    warmup_epochs: Annotated[float, Field(ge=0, le=10_000)] | Auto = Field(
        "auto", description="auto: a twentieth of the run."
    )
    decay: Literal["cosine", "none"] = Field("cosine", description="After the warm-up: towards 0, or not at all.")
    decay_steps: int | None = Field(
        None, ge=1, lt=2**31, description="Steps after which the cosine has come to 0 and stays; null: the whole run."
    )


class OnlineAccuracy(Closed):
    """How often a classifier is judged while it trains, and on how many images."""

    every_epochs: Annotated[int, Field(ge=0, le=100_000)] | Auto = Field(
        "auto",
        description="0: never. auto: eight times in a run, or fewer where that would take much of its `minutes`.",
    )
    max_images: Annotated[int, Field(ge=10, le=1_000_000)] | Auto = Field(
        "auto", description="At most so many images of each split are looked at; auto: 5,000, on a CPU 2,500."
    )


class OnlineEvaluation(OnlineAccuracy):
    """What is measured while the encoder trains; kNN and the probe only where the images have labels."""

    knn_k: int = Field(200, ge=1, le=100_000, description="Neighbours that vote.")
    knn_temperature: float = Field(0.1, gt=0, le=10, description="A vote weighs exp(similarity / temperature).")


class Checkpoints(Closed):
    """When a run writes down what it needs to go on."""

    every_minutes: float = Field(2.0, gt=0, le=1440, description="How often a checkpoint is written.")
    every_steps: int | None = Field(None, ge=1, lt=2**31, description="Also at every multiple of so many steps.")
    keep: int = Field(
        2,
        ge=2,
        le=100,
        description="The newest so many stay on disk; never 1, as the one before is all there is while the newest is"
        " being recorded.",
    )


class EarlyStop(Closed):
    """When a run ends before its length; it is a success, and its model is that of its end, not that of the best."""

    metric: Literal["rankme", "knn"] = Field(
        "rankme", description="What has to rise: `rankme`, once an epoch; `knn`, at each online evaluation."
    )
    patience: int = Field(
        5, ge=1, le=100_000, description="The run ends at so many measurements in a row without a new best."
    )
    min_epochs: int = Field(0, ge=0, le=100_000, description="It never ends before so many epochs.")
    min_delta: float = Field(0.0, ge=0, le=100_000, description="How far above the last best a new one has to be.")


# --- the kinds -------------------------------------------------------------------------------------------------------


class _Seeded(Closed):
    kind: str
    seed: Seed = Field(0, description="Of everything random; the same seed gives the same run.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the device gains from it."
    )


class _Run(_Seeded):
    subset: int | None = Field(
        None,
        ge=2,
        lt=2**31,
        description="Train on so many images, drawn evenly from the classes by the seed; null: all.",
    )


class TrainingRun(_Run):
    """What every run that trains a network has, with labels or without."""

    backbone: Backbone = Field(Backbone(), description="The encoder.")
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = Field(
        "auto", description="Side in pixels; auto: the images' own up to 64, 64 on a CPU, 224 on a GPU."
    )
    phases: Phases | Auto = Field(
        "auto",
        description="auto: of a ResNet on a CPU 1/2, 5/8, 3/4 and all of the full size, until 0.5, 0.8, 0.95 and 1;"
        " else the full size.",
    )
    views: Views | ViewSets = Field(
        Views(), description="How a view is drawn from an image; a list where the views of an image differ in kind."
    )
    epochs: int | None = Field(
        None, ge=1, le=100_000, description="Length of the run; 100 when `minutes` is not given either."
    )
    minutes: float | None = Field(
        None, gt=0, le=43_200, description="Length in minutes, turned into epochs from the first steps' speed."
    )
    batch_size: int = Field(256, ge=2, le=65_536, description="Images per step.")
    optimizer: Optimizer | Auto = Field(
        "auto", description="`sgd`, `adamw`, `lars` or `muon`; auto: muon on a CPU, else sgd."
    )
    schedule: Schedule = Field(Schedule(), description="The learning rate at each step.")
    evaluation: OnlineAccuracy = Field(OnlineAccuracy(), description="What is measured on the way.")
    checkpoints: Checkpoints = Field(Checkpoints(), description="When the run writes down what it needs to go on.")
    devices: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that train together, each with a GPU of its own, or a share of the CPU. `batch_size` is"
        " theirs together, and so are batch norm's statistics.",
    )
    chunk_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Views that pass the backbone at a time, to be computed again for the gradient (GradCache): memory"
        " for so many, and all negatives of the batch. Batch norm then sees a chunk. null: all at once.",
    )
    pictures: bool = Field(
        True, description="Leave pictures: some views at the start, curves at the end, and these for TensorBoard."
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.minutes is not None:
            raise ValueError("give epochs or minutes, not both")
        return self

    @model_validator(mode="after")
    def _devices_share_evenly(self) -> Self:
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of devices {self.devices}")
        if self.devices > 1 and self.minutes is not None:
            raise ValueError("give epochs, not minutes, with more than one device")
        return self

    @model_validator(mode="after")
    def _phases_ascend(self) -> Self:
        if self.phases != "auto":
            ends = [phase.until for phase in self.phases]
            if ends != sorted(set(ends)) or ends[-1] != 1:
                raise ValueError("phases must ascend in `until` and the last must end at 1")
        return self


class Pretrain(TrainingRun):
    """Self-supervised pretraining of an encoder; labels are never used to train it."""

    kind: Literal["pretrain"] = Field("pretrain", description="The job's own kind; need not be given.")
    method: Method = Field(description="How to learn: its `name`, and what differs from that method's defaults.")
    batch_size: int = Field(256, ge=2, le=65_536, description="Images per step; each gives two views or more.")
    normalisation: Literal["dataset", "imagenet", "half", "none"] = Field(
        "dataset",
        description="dataset: each channel less its mean over its deviation in the training split; imagenet: those of"
        " ImageNet; half: from -1 to 1; none: from 0 to 1.",
    )
    evaluation: OnlineEvaluation = Field(OnlineEvaluation(), description="What is measured on the way.")
    early_stop: EarlyStop | None = Field(
        None, description="End the run once its features no longer get better; null: never."
    )

    @model_validator(mode="after")
    def _views_suit_the_method(self) -> Self:
        count, most = sum(int(each.num_views) for each in view_sets(self.views)), self.method.most_views
        if not 2 <= count <= most:
            wanted = "two views" if most == 2 else f"2 to {most} views"
            raise ValueError(f"{self.method.name} takes {wanted} of an image, not {count}")
        return self

    @model_validator(mode="after")
    def _early_stop_is_measured(self) -> Self:
        if self.early_stop and self.early_stop.metric == "knn" and self.evaluation.every_epochs == 0:
            raise ValueError("early_stop on knn needs evaluation.every_epochs above 0")
        return self

    @model_validator(mode="after")
    def _subset_holds_a_batch(self) -> Self:
        if self.subset is not None and self.batch_size > self.subset:
            raise ValueError(f"batch_size {self.batch_size} is larger than subset {self.subset}")
        return self


class Labelled(TrainingRun):
    """What the runs have that train a classifier. The learning rates are peaks before scaling."""

    learning_rates: ClassVar[dict[str, float]] = {"sgd": 0.1, "lars": 2.0, "adamw": 8e-3, "muon": 0.1}
    cpu_optimizer: ClassVar[Literal["sgd", "muon"]] = "muon"
    decays_all: ClassVar[bool] = False
    zero_init_residual: ClassVar[bool] = False

    phases: Phases | Auto = Field("auto", description="auto: the full size.")
    views: PlainViews = Field(PlainViews(), description="How a view is drawn from an image.")
    batch_size: int = Field(
        64, ge=2, le=65_536, description="Images per step; all images of the run where it has fewer."
    )
    label_fraction: float = Field(
        1.0, gt=0, le=1, description="Share of the training labels that is used, drawn evenly from the classes."
    )
    label_rows: Annotated[tuple[Row, ...], Field(min_length=2, max_length=100_000)] | None = Field(
        None, description="Use the labels of just these training images, numbered from 0 in the dataset's order."
    )

    @model_validator(mode="after")
    def _one_choice_of_labels(self) -> Self:
        if self.label_rows is not None and self.label_fraction < 1:
            raise ValueError("give label_fraction or label_rows, not both")
        return self


class Supervised(Labelled):
    """A classifier trained from its labels alone: the baseline that stands beside every other result."""

    kind: Literal["supervised"] = Field("supervised", description="The job's own kind; need not be given.")


class Finetune(Labelled):
    """A model of ours trained on with labels: a new classifier on its features or on a layer of its head.

    SimCLRv2 (Chen et al. 2020, arXiv:2006.10029), section 3.
    """

    learning_rates: ClassVar = {"sgd": 0.05, "lars": 1.0, "adamw": 4e-3, "muon": 0.02}

    kind: Literal["finetune"] = Field("finetune", description="The job's own kind; need not be given.")
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = Field(
        "auto", description="Side in pixels; auto: the model's."
    )
    fine_tune_after_block: int = Field(
        -1,
        ge=-1,
        le=4,
        description="What learns: -1 all, 0 all after the stem, 1 to 3 all after that group of blocks, 4 the head"
        " alone. What is frozen keeps its batch norm's statistics too.",
    )
    ft_proj_selector: int = Field(
        0,
        ge=0,
        le=8,
        description="Where the classifier stands: 0 on the features, k on layer k of the model's head. The layers below"
        " it are kept, and learn.",
    )


class Distill(Labelled):
    """A new network that learns a model's answers: a smaller one, or one that learns from images without labels.

    SimCLRv2 (Chen et al. 2020, arXiv:2006.10029), section 2. The job's model is the teacher, and has a classifier.
    """

    kind: Literal["distill"] = Field("distill", description="The job's own kind; need not be given.")
    backbone: Backbone = Field(Backbone(), description="The student: random weights, unless `weights` names others.")
    temperature: float = Field(
        1.0, ge=0.01, le=100, description="Divides the logits of both; the loss is multiplied by its square."
    )
    label_weight: Fraction = Field(
        0.0,
        description="Share of the loss that is cross-entropy with true labels, where they are used; 0 needs no label.",
    )


Layer = Annotated[str, Field(pattern=r"^(backbone|projection|logits|block[1-4]|head[1-8])$")]
Baseline = Literal["pixels", "random"]


class _Evaluation(_Run):
    layer: Layer = Field(
        "backbone",
        description="The representation: `backbone`, `block1` … `block4`, `projection`, or `head1` … under it; `logits`"
        " of a classifier.",
    )
    baselines: tuple[Baseline, ...] = Field(
        (), max_length=2, description="Also evaluate raw pixels, and a network of the same shape with random weights."
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the training images held out to judge when there is no test or val split.",
    )


class LinearEval(_Evaluation):
    """Logistic regression on the frozen encoder's features; rates and decays picked on a validation split."""

    kind: Literal["linear_eval"] = Field("linear_eval", description="The job's own kind; need not be given.")
    label_fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1.0,), min_length=1, max_length=16, description="Shares of the training labels, each evaluated by itself."
    )
    draws: int = Field(
        1, ge=1, le=100, description="Draws of the labelled images for each share below 1; the mean is reported."
    )
    label_rows: Annotated[tuple[Row, ...], Field(min_length=2, max_length=100_000)] | None = Field(
        None,
        description="The labelled images instead of a share, as rows of the dataset counted from 0; null: drawn by"
        " `label_fractions`.",
    )
    augment: bool = Field(
        False,
        description="New views of the training images in every epoch, by a crop of 8 % to all of the area and a flip;"
        " false: features of the images as they are, computed once.",
    )
    standardise: bool = Field(
        True,
        description="Bring features to mean 0 and deviation 1 over the training images, then each image to length 1;"
        " false: as they are, as published protocols have it.",
    )
    learning_rates: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = Field(
        (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        min_length=1,
        max_length=64,
        description="All are trained in one pass, and the best on the validation split is kept.",
    )
    weight_decays: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.0, 1e-4, 1e-3), min_length=1, max_length=16, description="Likewise, each with every learning rate."
    )
    epochs: int = Field(100, ge=1, le=10_000, description="Passes over the labelled features.")
    batch_size: int = Field(256, ge=1, le=65_536, description="Feature vectors per step.")
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="Held out of the labelled training images when there is no val split."
    )

    @field_validator("label_rows")
    @classmethod
    def _differ(cls, rows: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if rows is not None and len(set(rows)) < len(rows):
            raise ValueError("each row can be given once")
        return rows

    @model_validator(mode="after")
    def _one_choice_of_labels(self) -> "LinearEval":
        if self.label_rows is not None and self.label_fractions != (1.0,):
            raise ValueError("give label_rows or label_fractions, not both")
        return self


class KnnEval(_Evaluation):
    """Weighted k-nearest-neighbour vote on unit features (Wu et al. 2018, arXiv:1805.01978)."""

    kind: Literal["knn_eval"] = Field("knn_eval", description="The job's own kind; need not be given.")
    k: int = Field(200, ge=1, le=100_000, description="Neighbours; at most the number of training images.")
    temperature: float = Field(0.1, gt=0, le=10, description="A vote weighs exp(similarity / temperature).")


Projection = Literal["tsne", "pca", "umap"]


class Project(_Seeded):
    """A map of the images: their features in two dimensions, as coordinates and as pictures."""

    kind: Literal["project"] = Field("project", description="The job's own kind; need not be given.")
    layer: Layer = Field(
        "backbone", description="The representation: `backbone`, `projection`, or `block1` … `block4`."
    )
    split: Literal["auto", "train", "val", "test"] = Field(
        "auto", description="Where the images are from; auto: test where there is one, else val, else train."
    )
    images: int = Field(
        2_000, ge=4, le=20_000, description="At most so many, drawn evenly from the classes by the seed."
    )
    methods: Annotated[tuple[Projection, ...], Field(min_length=1, max_length=3)] = Field(
        ("tsne", "pca"),
        description="`tsne`, `pca` and `umap` (where it is installed); the first places the thumbnails.",
    )
    perplexity: float = Field(
        30.0, ge=1, le=1_000, description="About how many neighbours t-SNE keeps near; at most a third of the images."
    )
    neighbours: int = Field(15, ge=2, le=200, description="How many neighbours UMAP keeps near.")

    @field_validator("methods")
    @classmethod
    def _are_named_once(cls, methods: tuple[Projection, ...]) -> tuple[Projection, ...]:
        if len(set(methods)) < len(methods):
            raise ValueError("a method is named twice")
        return methods


ExportFormat = Literal["torchvision", "timm", "torch_export", "onnx"]


class Export(Closed):
    """A model in formats that other programs load, each loaded back and compared with the model on real images.

    On the CPU in fp32, whatever trained it.
    """

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


# --- weights from elsewhere ------------------------------------------------------------------------------------------


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


RunConfig = Pretrain | Supervised | Finetune | Distill | LinearEval | KnnEval | Project | Export
KINDS: dict[str, type[RunConfig]] = {
    "pretrain": Pretrain,
    "supervised": Supervised,
    "finetune": Finetune,
    "distill": Distill,
    "linear_eval": LinearEval,
    "knn_eval": KnnEval,
    "project": Project,
    "export": Export,
}


MAX_FAULTS = 100
_MAX_NAME = 64  # characters of a field's name that are told back


def parse(data: Any, kind: str = "pretrain") -> RunConfig:
    """Return the config of that `kind` (a key of KINDS) that `data`, plain JSON values, describes.

    Raises pydantic.ValidationError; `faults` turns it into places and sentences.
    """
    # Through JSON, where a list may become a tuple although nothing else is coerced.
    return KINDS[kind].model_validate_json(json.dumps(data))


def faults(error: ValidationError, kind: str | None) -> list[dict[str, str]]:
    """Return what is wrong as `{pointer, code, detail}`, the first hundred; pointers (RFC 6901) start at the config.

    `kind`: of the run that was to be; None for an Import.
    """
    found: dict[str, dict[str, str]] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        fault = _fault(item, KINDS[kind] if kind is not None else Import)
        found.setdefault(fault["pointer"], fault)  # a union complains once for each of its arms
        if len(found) == MAX_FAULTS:
            break
    # Of a list with a wrong item, pydantic also says that it is too short, or that it is not "auto".
    return [fault for place, fault in found.items() if not any(other.startswith(place + "/") for other in found)]


def _fault(item: ErrorDetails, root: type[BaseModel]) -> dict[str, str]:
    unknown = item["type"] == "extra_forbidden"
    place, model = _walk(item["loc"][:-1] if unknown else item["loc"], root)
    detail = item["msg"].removeprefix("Value error, ")
    if unknown:
        place.append(str(item["loc"][-1])[:_MAX_NAME])
        names = difflib.get_close_matches(str(place[-1]), list(model.model_fields), n=1)
        detail = f"There is no field `{place[-1]}` here" + (f"; did you mean `{names[0]}`?" if names else ".")
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
    return {"pointer": pointer, "code": item["type"], "detail": detail}


def _walk(loc: tuple[int | str, ...], root: type[BaseModel]) -> tuple[list[int | str], type[BaseModel]]:
    """Follow pydantic's location from `root`; return the JSON path, without the tags of unions, and the last model."""
    place: list[int | str] = []
    model, options = root, [root]
    for part in loc:
        if isinstance(part, int):
            place.append(part)
        elif part in model.model_fields:
            place.append(part)
            options = _models(model.model_fields[part].annotation)
            model = options[0] if options else model
        else:  # the tag of a union's arm
            model = next((option for option in options if _tag(option) == part), model)
    return place, model


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("name")
    return field.default if field else None
