"""Training: the config that all runs share that train a network, and that of pretraining."""

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ssl_core.config.base import Run
from ssl_core.config.fields import Auto, Closed
from ssl_core.config.methods import Method, Recommendation
from ssl_core.config.network import Backbone
from ssl_core.config.optimisation import Optimizer, Schedule
from ssl_core.config.requirements import Requirements
from ssl_core.config.views import RGB, Phases, Views, ViewSets, view_sets


class OnlineAccuracy(Closed):
    """How often a classifier is evaluated while it trains, and on how many images."""

    every_epochs: Annotated[int, Field(ge=0, le=100_000)] | Auto = Field(
        "auto",
        description="Epochs between evaluations; 0: never. auto: eight evaluations in a run, or fewer where they would"
        " take much of `minutes`.",
    )
    max_images: Annotated[int, Field(ge=10, le=1_000_000)] | Auto = Field(
        "auto", description="Largest number of images of each split; auto: 5,000, on a CPU 2,500."
    )


class OnlineEvaluation(OnlineAccuracy):
    """The online evaluation: kNN and a linear probe while the encoder trains, where the images have labels."""

    knn_k: int = Field(200, ge=1, le=100_000, description="Number of neighbours.")
    knn_temperature: float = Field(0.1, gt=0, le=10, description="A vote weighs exp(similarity / temperature).")


class Checkpoints(Closed):
    """When a run writes a checkpoint to resume from."""

    every_minutes: float = Field(2.0, gt=0, le=1440, description="Minutes between checkpoints.")
    every_steps: int | None = Field(
        None, ge=1, lt=2**31, description="Also write one at every multiple of this number of steps."
    )
    keep: int = Field(
        2,
        ge=2,
        le=100,
        description="Number of newest checkpoints kept on disk; at least 2, since only the one before is usable while"
        " the newest is being recorded.",
    )


class EarlyStop(Closed):
    """Early stopping. The run succeeds, and its model is that of the last step, not that of the best metric."""

    metric: Literal["rankme", "knn"] = Field(
        "rankme", description="The metric that has to rise: `rankme`, once an epoch; `knn`, at each online evaluation."
    )
    patience: int = Field(
        5,
        ge=1,
        le=100_000,
        description="Number of consecutive measurements without a new best after which the run ends.",
    )
    min_epochs: int = Field(0, ge=0, le=100_000, description="Least number of epochs.")
    min_delta: float = Field(0.0, ge=0, le=100_000, description="Least rise that counts as a new best.")


BatchSize = Annotated[int, Field(ge=2, le=65_536)] | Auto


class TrainingRun(Run):
    """What all runs share that train a network, with labels or without."""

    trains: ClassVar = True
    largest_auto_batch: ClassVar[int] = 256  # images
    keeps_preprocessing: ClassVar[bool] = False  # of the model it starts from
    progressive_sizes: ClassVar[bool] = False  # `phases: auto` trains on smaller images first where that pays

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
        Views(), description="Augmentation that makes a view of an image; a list where an image's views differ."
    )
    epochs: int | None = Field(
        None, ge=1, le=100_000, description="Length of the run; 100 when `minutes` is not given either."
    )
    minutes: float | None = Field(
        None,
        gt=0,
        le=43_200,
        description="Length in minutes, converted to epochs by the measured speed of a few steps.",
    )
    batch_size: BatchSize = Field("auto", description="Images per step; auto: 256, or all where there are fewer.")
    optimizer: Optimizer | Auto = Field(
        "auto",
        description="`sgd`, `adamw`, `lars` or `muon`; auto: muon on a CPU; on a GPU lars for Barlow Twins and VICReg,"
        " else sgd.",
    )
    schedule: Schedule = Field(Schedule(), description="The learning rate at each step.")
    evaluation: OnlineAccuracy = Field(OnlineAccuracy(), description="The evaluation during training.")
    checkpoints: Checkpoints = Field(Checkpoints(), description="When checkpoints are written.")
    devices: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of processes that train together, each with its own GPU or a share of the CPU. `batch_size`"
        " is the total over all, and batch norm statistics are synchronised.",
    )
    exact: bool | Auto = Field(
        "auto",
        description="On a GPU, use deterministic kernels, so that the same run on the same GPU gives the same weights,"
        " interrupted or not; false: the fastest kernels, chosen by timing. auto: true. A CPU's are exact.",
    )
    compile: bool | Auto = Field(
        "auto",
        description="Fuse the operations of backbone and colours by torch.compile: a minute at the start, less where"
        " the machine has done it before. Weights are the same each time, but not those without. It needs a C compiler,"
        " and on a CPU, where it gains nothing, one for C++; if it fails, the run goes on without it and says so. One"
        " device, no `chunk_size`. auto: for ResNets on a GPU, in runs of 10,000 steps or 10 minutes and more.",
    )
    chunk_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Views that pass through the backbone at a time, recomputed for the gradient (GradCache): memory"
        " for one chunk, all negatives of the batch. Batch norm statistics are per chunk. null: all at once.",
    )
    pictures: bool = Field(
        True,
        description="Write figures: a grid of views at the start, curves at the end, and the curves for TensorBoard.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.minutes is not None:
            raise ValueError("give epochs or minutes, not both")
        return self

    @model_validator(mode="after")
    def _devices_share_evenly(self) -> Self:
        if self.batch_size != "auto" and self.batch_size % self.devices:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of devices {self.devices}")
        if self.devices > 1 and self.minutes is not None:
            raise ValueError("give epochs, not minutes, with more than one device")
        return self

    @model_validator(mode="after")
    def _compiles_alone(self) -> Self:
        if self.compile is True and (self.devices > 1 or self.chunk_size is not None):
            raise ValueError("compile needs one device and no chunk_size")
        return self

    @model_validator(mode="after")
    def _phases_ascend(self) -> Self:
        if self.phases != "auto":
            ends = [phase.until for phase in self.phases]
            if ends != sorted(set(ends)) or ends[-1] != 1:
                raise ValueError("phases must ascend in `until` and the last must end at 1")
        return self

    @property
    @abstractmethod
    def recommendation(self) -> Recommendation:
        """What the method, or the kind itself, recommends for what is "auto"."""

    @property
    def method_name(self) -> str:
        """The name of what the network learns by, as a model's card has it."""
        return self.kind

    @property
    def kept_checkpoints(self) -> int:
        """Number of newest checkpoints kept on disk."""
        return self.checkpoints.keep

    @property
    def heading(self) -> str:
        """The title of a run, for its figures."""
        return self.title

    @property
    def fewest_images(self) -> int:
        """Training images that the smallest batch has: two, for batch norm and negatives, and one for each device."""
        return max(2, self.devices)

    @property
    def online_probe(self) -> OnlineEvaluation | None:
        """Settings of the kNN vote and the linear probe that evaluate the encoder while it trains; None: neither."""
        return None

    @property
    def stopping_rule(self) -> EarlyStop | None:
        """When the run ends before its length; None: never."""
        return None

    @property
    def channel_statistics(self) -> str:
        """Which mean and deviation normalise the channels: "dataset", or the name of fixed ones."""
        return "dataset"

    @property
    def head_layers(self) -> int:
        """Layers of the model's head that are trained on, from below."""
        return 0

    def with_method_resolved(self, dim: int) -> Self:
        """Return the config with the method's own "auto" resolved; dim: the backbone's number of features."""
        return self

    @property
    def requirements(self) -> Requirements:
        backbone = self.backbone.model_dump(mode="json")
        channels = {"/config/backbone/channels": self.backbone.channels} if self.backbone.channels != "auto" else {}
        if self.backbone.weights != "random":
            channels["/config/backbone/weights"] = RGB
        return Requirements(subset=self.subset, images=self.fewest_images, backbone=backbone, channels=channels)


class Pretrain(TrainingRun):
    """Self-supervised pretraining of an encoder; labels are never used to train it."""

    accuracy_metric: ClassVar = "online/knn"
    title = "Pretraining"
    needs_model = False
    progressive_sizes = True

    kind: Literal["pretrain"] = Field("pretrain", description="The kind of the job; may be left out.")
    method: Method = Field(description="The method: its `name`, and the fields that differ from the method's defaults.")
    batch_size: BatchSize = Field(
        "auto",
        description="Images per step; each gives two views or more. auto: 256, or all where there are fewer, rounded"
        " down to a multiple of `devices`.",
    )
    normalisation: Literal["dataset", "imagenet", "half", "none"] = Field(
        "dataset",
        description="dataset: standardise each channel by its mean and deviation in the training split; imagenet: by"
        " those of ImageNet, of RGB images; half: scale to [-1, 1]; none: keep [0, 1].",
    )
    evaluation: OnlineEvaluation = Field(OnlineEvaluation(), description="The evaluation during training.")
    early_stop: EarlyStop | None = Field(
        None, description="End the run once its features no longer improve; null: never."
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
        if self.subset is not None and self.batch_size != "auto" and self.batch_size > self.subset:
            raise ValueError(f"batch_size {self.batch_size} is larger than subset {self.subset}")
        return self

    @property
    def recommendation(self) -> Recommendation:
        return self.method

    @property
    def method_name(self) -> str:
        return self.method.name

    @property
    def heading(self) -> str:
        return f"{self.title} with {self.method.title}"

    @property
    def online_probe(self) -> OnlineEvaluation | None:
        return self.evaluation

    @property
    def stopping_rule(self) -> EarlyStop | None:
        return self.early_stop

    @property
    def channel_statistics(self) -> str:
        return self.normalisation

    def with_method_resolved(self, dim: int) -> Self:
        return self.model_copy(update={"method": self.method.resolved(dim, self.backbone.stem)})

    @property
    def requirements(self) -> Requirements:
        stops_by_labels = self.early_stop is not None and self.early_stop.metric == "knn"
        labels = "/config/early_stop/metric" if stops_by_labels else None
        needed = super().requirements
        channels = {**needed.channels, **({"/config/normalisation": RGB} if self.normalisation == "imagenet" else {})}
        batch_size = None if self.batch_size == "auto" else self.batch_size
        return replace(needed, batch_size=batch_size, labels=labels, channels=channels)
