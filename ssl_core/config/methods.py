"""Configs of the methods: one class per method, which also resolves the method's `auto` fields."""

from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, get_args

from pydantic import Field, model_validator

from ssl_core.config.fields import Auto, Closed, Fraction, Share, Width, Widths

Temperature = Annotated[float, Field(ge=0.001, le=10)]

# By device. In the short runs of a CPU Muon is the better one: benchmarks/README.md.
DEFAULT_OPTIMIZERS = {"cpu": "muon", "cuda": "sgd"}


class Recommendation(Protocol):
    """What the optimizer and the network become where the config leaves them open; peak rates are before scaling."""

    learning_rates: ClassVar[dict[str, float]]  # by the optimizer's name
    optimizers: ClassVar[dict[str, str]]  # the name of the default one, by device
    decays_all: ClassVar[bool]  # whether batch norm and biases decay too
    zero_init_residual: ClassVar[bool]  # whether every residual block starts as the identity


class MethodConfig(Closed):
    """What every method's config states beside its fields. Learning rates are peaks before scaling."""

    name: str
    title: ClassVar[str]  # as its authors write it
    learning_rates: ClassVar[dict[str, float]] = {"sgd": 0.12, "lars": 1.0, "adamw": 1e-3, "muon": 0.1}
    optimizers: ClassVar[dict[str, str]] = DEFAULT_OPTIMIZERS
    decays_all: ClassVar[bool] = False  # whether the paper decays batch norm and biases too
    zero_init_residual: ClassVar[bool] = False  # whether every residual block starts as the identity
    most_views: ClassVar[int] = 2  # of an image in a step; at least two

    def resolved(self, dim: int, stem: str) -> Self:
        """Return the config with every `auto` resolved; dim: number of features; stem: the backbone's."""
        return self

    def _with(self, **changes: Any) -> Self:
        return type(self).model_validate({**dict(self), **changes})


class SimCLR(MethodConfig):
    """SimCLR (Chen et al. 2020, arXiv:2002.05709): NT-Xent over both views, which are one batch for the network."""

    title = "SimCLR"

    name: Literal["simclr"] = Field("simclr", description="The method's name.")
    temperature: Temperature = Field(0.2, description="Of the NT-Xent softmax.")
    projector: Widths | Auto = Field("auto", description="Output width of each head layer; auto: (features, 128).")
    projector_batch_norm: bool = Field(True, description="Batch norm after every head layer, the last one too.")
    same_view_negatives: bool = Field(
        True, description="Use other images' same view as negatives too; false: their other view alone."
    )
    decoupled: bool = Field(False, description="Leave the positive out of the denominator (DCL, arXiv:2110.06848).")

    def resolved(self, dim: int, stem: str) -> Self:
        return self._with(projector=(dim, 128)) if self.projector == "auto" else self


class SimSiam(MethodConfig):
    """SimSiam (Chen & He 2020, arXiv:2011.10566): stop-gradient and a predictor; each view passes separately.

    With more than two views it is FastSiam (Pototzky et al. 2022): each view predicts the mean of the others.
    """

    title = "SimSiam"
    learning_rates = MethodConfig.learning_rates | {"sgd": 0.06}
    decays_all = True
    zero_init_residual = True
    most_views = 16

    name: Literal["simsiam"] = Field("simsiam", description="The method's name.")
    projector: Widths | Auto = Field(
        "auto",
        description="Output width of each layer; auto: min(2048, 4·features), twice (CIFAR stem) or three times.",
    )
    projector_relu_first: bool = Field(
        False, description="ReLU before batch norm in the hidden layers of both heads; in the paper it comes after."
    )
    predictor_hidden: Width | Auto = Field("auto", description="auto: a quarter of the projector's output.")
    predictor_constant_lr: bool = Field(
        True, description="The predictor's learning rate neither warms up nor decays (paper, section 4.2)."
    )

    def resolved(self, dim: int, stem: str) -> Self:
        projector = self.projector
        if projector == "auto":
            projector = (min(2048, 4 * dim),) * (3 if stem == "imagenet" else 2)
        hidden = max(1, projector[-1] // 4) if self.predictor_hidden == "auto" else self.predictor_hidden
        return self._with(projector=projector, predictor_hidden=hidden)


class _Predicting(MethodConfig):
    """A projector of two layers to 256, and a predictor of the same width."""

    projector: Widths | Auto = Field("auto", description="Output width of each layer; auto: (2·features, 256).")
    predictor_hidden: Width | Auto = Field("auto", description="auto: as wide as the projector's first layer.")
    momentum: Fraction = Field(
        0.99, description="Momentum of the exponential moving average at the first step; rises to 1 by a cosine."
    )

    def resolved(self, dim: int, stem: str) -> Self:
        projector = (2 * dim, 256) if self.projector == "auto" else self.projector
        hidden = projector[0] if self.predictor_hidden == "auto" else self.predictor_hidden
        return self._with(projector=projector, predictor_hidden=hidden)


class BYOL(_Predicting):
    """BYOL (Grill et al. 2020, arXiv:2006.07733): predict the target network's embedding of the other view."""

    title = "BYOL"

    name: Literal["byol"] = Field("byol", description="The method's name.")


class MoCoV2(MethodConfig):
    """MoCo v2 (Chen et al. 2020, arXiv:2003.04297): contrast each query with its key against a queue of negatives."""

    title = "MoCo v2"

    name: Literal["moco_v2"] = Field("moco_v2", description="The method's name.")
    temperature: Temperature = Field(0.2, description="Of the InfoNCE softmax.")
    projector: Widths | Auto = Field("auto", description="Output width of each head layer; auto: (features, 128).")
    queue: int = Field(
        4096, ge=1, le=1_048_576, description="Number of keys of earlier batches, which are the negatives."
    )
    momentum: Fraction = Field(0.99, description="Momentum of the key encoder's exponential moving average.")

    def resolved(self, dim: int, stem: str) -> Self:
        return self._with(projector=(dim, 128)) if self.projector == "auto" else self


class MoCoV3(_Predicting):
    """MoCo v3 (Chen et al. 2021, arXiv:2104.02057): contrast predicted queries with the batch's momentum keys."""

    title = "MoCo v3"
    zero_init_residual = True

    name: Literal["moco_v3"] = Field("moco_v3", description="The method's name.")
    temperature: Temperature = Field(0.2, description="Of the InfoNCE softmax; the authors use 1 for a ResNet-50.")


class _Decorrelating(MethodConfig):
    """Losses over pairs of dimensions, whose gradients outgrow SGD's rates: LARS on a GPU, as in the papers."""

    optimizers = DEFAULT_OPTIMIZERS | {"cuda": "lars"}
    zero_init_residual = True

    projector: Widths | Auto = Field(
        "auto", description="Output width of each layer; auto: min(8192, 4·features), three times."
    )

    def resolved(self, dim: int, stem: str) -> Self:
        return self._with(projector=(min(8192, 4 * dim),) * 3) if self.projector == "auto" else self


class BarlowTwins(_Decorrelating):
    """Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230): decorrelated dimensions that agree across views."""

    title = "Barlow Twins"

    name: Literal["barlow_twins"] = Field("barlow_twins", description="The method's name.")
    redundancy: float = Field(0.005, ge=0, le=10, description="The paper's λ: weight of the off-diagonal terms.")


class VICReg(_Decorrelating):
    """VICReg (Bardes et al. 2021, arXiv:2105.04906): variance, invariance and covariance of embeddings."""

    title = "VICReg"

    name: Literal["vicreg"] = Field("vicreg", description="The method's name.")
    invariance: float = Field(25.0, ge=0, le=10_000, description="Weight of the distance between the views.")
    variance: float = Field(25.0, ge=0, le=10_000, description="Weight of the hinge on standard deviations.")
    covariance: float = Field(1.0, ge=0, le=10_000, description="Weight of the covariances.")


class DINO(MethodConfig):
    """DINO (Caron et al. 2021, arXiv:2104.14294): the student matches the EMA teacher's output on every view.

    The first two views are global crops, later ones may be local: give `views` as a list.
    """

    title = "DINO"
    most_views = 16

    name: Literal["dino"] = Field("dino", description="The method's name.")
    projector: Widths | Auto = Field(
        "auto", description="Output width of each layer; auto: min(2048, 4·features) twice, then 256."
    )
    projector_batch_norm: bool = Field(True, description="Batch norm in the head's hidden layers.")
    prototypes: int = Field(
        1024, ge=2, le=1_048_576, description="Output dimension of the head; the paper's is 65,536."
    )
    student_temperature: Temperature = Field(0.1, description="Of the student's softmax.")
    teacher_temperature: tuple[Temperature, Temperature] = Field(
        (0.04, 0.07), description="Of the teacher's softmax, at the start and after its warm-up."
    )
    teacher_warmup: Fraction = Field(0.3, description="Share of the run in which the teacher's temperature rises.")
    momentum: Fraction = Field(
        0.99, description="Momentum of the exponential moving average at the first step; rises to 1 by a cosine."
    )
    centre_momentum: Share = Field(0.9, description="Momentum of the centre.")
    frozen_epochs: float = Field(1.0, ge=0, le=10_000, description="Epochs in which the last layer is frozen.")

    @model_validator(mode="after")
    def _the_teacher_is_sharper(self) -> Self:
        if max(self.teacher_temperature) > self.student_temperature:
            raise ValueError("teacher_temperature must not be above student_temperature")
        return self

    def resolved(self, dim: int, stem: str) -> Self:
        wide = min(2048, 4 * dim)
        return self._with(projector=(wide, wide, 256)) if self.projector == "auto" else self


Method = Annotated[SimCLR | SimSiam | BYOL | MoCoV2 | MoCoV3 | BarlowTwins | VICReg | DINO, Field(discriminator="name")]
METHODS: dict[str, type[MethodConfig]] = {
    method.model_fields["name"].default: method for method in get_args(get_args(Method)[0])
}
