"""Training with labels: supervised, finetune and distill."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ssl_core.config.fields import Auto, Fraction, Row
from ssl_core.config.methods import DEFAULT_OPTIMIZERS, Recommendation
from ssl_core.config.network import Backbone
from ssl_core.config.requirements import Requirements
from ssl_core.config.training import BatchSize, TrainingRun
from ssl_core.config.views import Phases, PlainViews


class Labelled(TrainingRun):
    """What runs that train a classifier share. Learning rates are peaks before scaling."""

    accuracy_metric: ClassVar = "online/top1"
    learning_rates: ClassVar[dict[str, float]] = {"sgd": 0.1, "lars": 2.0, "adamw": 8e-3, "muon": 0.1}
    optimizers: ClassVar[dict[str, str]] = DEFAULT_OPTIMIZERS
    decays_all: ClassVar[bool] = False
    zero_init_residual: ClassVar[bool] = False
    learns_labels: ClassVar = True
    largest_auto_batch: ClassVar = 64

    phases: Phases | Auto = Field("auto", description="auto: the full size.")
    views: PlainViews = Field(PlainViews(), description="Augmentation that makes a view of an image.")
    batch_size: BatchSize = Field(
        "auto",
        description="Images per step; all of them where the run has fewer. auto: 64, rounded down to a multiple of"
        " `devices`.",
    )
    label_fraction: float = Field(
        1.0, gt=0, le=1, description="Share of the training labels to use, drawn evenly from the classes."
    )
    label_rows: Annotated[tuple[Row, ...], Field(min_length=2, max_length=200_000)] | None = Field(
        None, description="Use the labels of these training images only, as rows of the dataset counted from 0."
    )

    @model_validator(mode="after")
    def _one_choice_of_labels(self) -> Self:
        if self.label_rows is not None and self.label_fraction < 1:
            raise ValueError("give label_fraction or label_rows, not both")
        return self

    @property
    def uses_labels(self) -> bool:
        """Whether true labels enter the loss."""
        return True

    @property
    def recommendation(self) -> Recommendation:
        return self

    @property
    def requirements(self) -> Requirements:
        rows, labels = self.label_rows or (), "/dataset" if self.uses_labels else None
        return replace(super().requirements, labels=labels, label_rows=rows)


class Supervised(Labelled):
    """A classifier trained from labels alone: the baseline of the other results."""

    title = "Training with labels"
    needs_model = False
    is_baseline = True

    kind: Literal["supervised"] = Field("supervised", description="The kind of the job; may be left out.")


class Finetune(Labelled):
    """Fine-tuning of a model with labels: a new classifier on its features or on a layer of its head.

    SimCLRv2 (Chen et al. 2020, arXiv:2006.10029), section 3.
    """

    title = "Fine-tuning"
    has_baselines = True
    keeps_preprocessing = True
    learning_rates: ClassVar = {"sgd": 0.05, "lars": 1.0, "adamw": 4e-3, "muon": 0.02}

    kind: Literal["finetune"] = Field("finetune", description="The kind of the job; may be left out.")
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = Field(
        "auto", description="Side in pixels; auto: the model's."
    )
    fine_tune_after_block: int = Field(
        -1,
        ge=-1,
        le=4,
        description="What is trained: -1 all, 0 all after the stem, 1 to 3 all after that group of blocks, 4 the head"
        " alone. Frozen layers keep their batch norm statistics too.",
    )
    ft_proj_selector: int = Field(
        0,
        ge=0,
        le=8,
        description="Input of the classifier: 0 the features, k layer k of the model's head. The head's layers up to k"
        " are kept and trained.",
    )

    @property
    def head_layers(self) -> int:
        return self.ft_proj_selector

    @property
    def requirements(self) -> Requirements:
        return replace(super().requirements, head_layers=self.head_layers)


class Distill(Labelled):
    """Distillation of a model into a new network, possibly smaller, on images that need no labels.

    SimCLRv2 (Chen et al. 2020, arXiv:2006.10029), section 2. The job's model is the teacher and must have a classifier.
    """

    title = "Distillation"
    has_baselines = True
    model_is_teacher = True

    kind: Literal["distill"] = Field("distill", description="The kind of the job; may be left out.")
    backbone: Backbone = Field(
        Backbone(), description="The student; with random weights, unless `weights` says otherwise."
    )
    temperature: float = Field(
        1.0,
        ge=0.01,
        le=100,
        description="Divides the logits of teacher and student; the loss is multiplied by its square.",
    )
    label_weight: Fraction = Field(
        0.0,
        description="Share of the cross-entropy with true labels in the loss; with 0 no label is needed.",
    )

    @property
    def uses_labels(self) -> bool:
        return self.label_weight > 0

    @property
    def requirements(self) -> Requirements:
        return replace(super().requirements, classifier=True, backbone={})
