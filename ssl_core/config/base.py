"""The kind of a run: its seed, device and precision, and what the class of each kind states about it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ssl_core.config.fields import Closed, Seed
from ssl_core.config.requirements import Requirements


class Kind(Closed):
    """The config of a run. Its class variables are what the core and the service ask of a kind, whichever it is."""

    title: ClassVar[str]  # as people write it
    trains: ClassVar[bool] = False  # trains a network and leaves a model
    needs_model: ClassVar[bool] = True  # the job has to name a model
    learns_labels: ClassVar[bool] = False  # trains a classifier
    model_is_teacher: ClassVar[bool] = False  # the job's model is not where training starts, but what it learns from
    is_baseline: ClassVar[bool] = False  # its accuracies are shown beside those of other kinds
    has_baselines: ClassVar[bool] = False  # baselines' accuracies are shown beside its own
    accuracy_metric: ClassVar[str | None] = None  # the name of the metric that judges its runs, if they report any
    is_shared: ClassVar[bool] = False  # divided into shards, which several workers compute
    checkpoint_folder: ClassVar[str] = ""  # of its checkpoints, within the run's directory

    kind: str

    @classmethod
    def reports(cls, metric: str) -> bool:
        """Whether runs of this kind may report a metric of that name."""
        groups = {cls.accuracy_metric and cls.accuracy_metric.split("/")[0], "train" if cls.trains else None}
        return metric.split("/")[0] in groups

    @property
    def requirements(self) -> Requirements:
        """What the dataset and the model have to hold for this run."""
        return Requirements()

    @property
    def kept_checkpoints(self) -> int:
        """Number of newest checkpoints kept on disk."""
        return 2


class OnDevice(Kind):
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="auto: bf16 autocast where the device is faster with it. fp32: convolutions on a GPU use TF32, as"
        " is PyTorch's default.",
    )


class _Random(Kind):
    seed: Seed = Field(0, description="Seed of all random draws; the same seed gives the same run.")


class Seeded(OnDevice, _Random):
    """A run with random draws; pydantic lists the fields of the last base first."""


class Run(Seeded):
    subset: int | None = Field(
        None,
        ge=2,
        lt=2**31,
        description="Number of training images to use, drawn evenly from the classes by the seed; null: all.",
    )


Layer = Annotated[str, Field(pattern=r"^(backbone|projection|logits|block[1-4]|head[1-8])$")]
