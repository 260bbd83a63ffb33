"""Evaluation: linear and kNN evaluation of a model's features, and their projection to two dimensions."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ssl_core.config.base import Layer, Run, Seeded
from ssl_core.config.fields import Row
from ssl_core.config.requirements import Requirements

Baseline = Literal["pixels", "random"]


class _Evaluation(Run):
    has_baselines: ClassVar = True

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
        description="Share of the training images held out for testing when there is no test or val split; an encoder"
        " trained on the same dataset has seen them, without their labels.",
    )

    @property
    def draws_labels(self) -> bool:
        """Whether accuracies are means over several draws of labels."""
        return False

    @property
    def requirements(self) -> Requirements:
        return Requirements(subset=self.subset, labels="/dataset", layer=self.layer)


class LinearEval(_Evaluation):
    """Logistic regression on the frozen encoder's features; rates and decays selected on a validation split."""

    accuracy_metric: ClassVar = "linear/top1"
    title = "Linear evaluation"
    checkpoint_folder = "linear_eval"  # apart from the checkpoints of a training run

    kind: Literal["linear_eval"] = Field("linear_eval", description="The kind of the job; may be left out.")
    label_fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1.0,), min_length=1, max_length=16, description="Shares of the training labels, each evaluated separately."
    )
    draws: int = Field(
        1, ge=1, le=100, description="Random draws of the labelled images for each share below 1; the mean is reported."
    )
    label_rows: Annotated[tuple[Row, ...], Field(min_length=2, max_length=200_000)] | None = Field(
        None,
        description="The labelled images, as rows of the dataset counted from 0, instead of a share; null: drawn by"
        " `label_fractions`.",
    )
    augment: bool = Field(
        False,
        description="New views of the training images in every epoch, by a crop of 8 % to all of the area and a flip;"
        " false: features of the images as they are, computed once.",
    )
    standardise: bool = Field(
        True,
        description="Standardise features to mean 0 and deviation 1 over the training images, then scale each image's"
        " to length 1; false: leave them as they are, as in published protocols.",
    )
    learning_rates: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = Field(
        (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        min_length=1,
        max_length=64,
        description="All are trained in one pass; the best on the validation split is selected.",
    )
    weight_decays: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.0, 1e-4, 1e-3), min_length=1, max_length=16, description="Likewise, each combined with every learning rate."
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

    @property
    def draws_labels(self) -> bool:
        return self.draws > 1

    @property
    def requirements(self) -> Requirements:
        return replace(super().requirements, label_rows=self.label_rows or ())


class KnnEval(_Evaluation):
    """Weighted k-nearest-neighbour vote on unit features (Wu et al. 2018, arXiv:1805.01978)."""

    accuracy_metric: ClassVar = "knn/top1"
    title = "kNN evaluation"

    kind: Literal["knn_eval"] = Field("knn_eval", description="The kind of the job; may be left out.")
    k: int = Field(200, ge=1, le=100_000, description="Neighbours; at most the number of training images.")
    temperature: float = Field(0.1, gt=0, le=10, description="A vote weighs exp(similarity / temperature).")


Projection = Literal["tsne", "pca", "umap"]


class Project(Seeded):
    """The images' features projected to two dimensions, as coordinates and as figures."""

    title = "Projection"

    kind: Literal["project"] = Field("project", description="The kind of the job; may be left out.")
    layer: Layer = Field(
        "backbone",
        description="The representation: `backbone`, `block1` … `block4`, `projection`, or `head1` … under it; `logits`"
        " of a classifier.",
    )
    split: Literal["auto", "train", "val", "test"] = Field(
        "auto",
        description="The split that the images are drawn from; auto: test where there is one, else val, else train.",
    )
    images: int = Field(
        2_000, ge=4, le=20_000, description="Number of images at most, drawn evenly from the classes by the seed."
    )
    methods: Annotated[tuple[Projection, ...], Field(min_length=1, max_length=3)] = Field(
        ("tsne", "pca"),
        description="`tsne`, `pca` and `umap` (where it is installed); the first arranges the thumbnails.",
    )
    perplexity: float = Field(
        30.0,
        ge=1,
        le=1_000,
        description="t-SNE's perplexity, about its number of neighbours; at most a third of the images.",
    )
    neighbours: int = Field(15, ge=2, le=200, description="UMAP's number of neighbours.")

    @field_validator("methods")
    @classmethod
    def _are_named_once(cls, methods: tuple[Projection, ...]) -> tuple[Projection, ...]:
        if len(set(methods)) < len(methods):
            raise ValueError("a method is named twice")
        return methods

    @property
    def requirements(self) -> Requirements:
        return Requirements(split=None if self.split == "auto" else self.split, layer=self.layer)
