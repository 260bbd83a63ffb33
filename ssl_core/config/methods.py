"""The methods' configs: one class per method, which also says what `auto` becomes under it. Imports pydantic alone."""

from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, get_args

from pydantic import Field, model_validator

from ssl_core.config.fields import Auto, Closed, Fraction, Share, Width, Widths

Temperature = Annotated[float, Field(ge=0.001, le=10)]


class Recommendation(Protocol):
    """What the optimizer and the network become where the config leaves them open; peak rates are before scaling."""

    learning_rates: ClassVar[dict[str, float]]  # by the optimizer's name
    cpu_optimizer: ClassVar[Literal["sgd", "muon"]]
    decays_all: ClassVar[bool]  # whether batch norm and biases decay too
    zero_init_residual: ClassVar[bool]  # whether every residual block starts as the identity


class MethodConfig(Closed):
    """What every method's config says beside its fields; peak rates are those before scaling."""

    name: str
    title: ClassVar[str]  # as its authors write it
    learning_rates: ClassVar[dict[str, float]] = {"sgd": 0.12, "lars": 1.0, "adamw": 1e-3, "muon": 0.1}
    # What learns more in the short runs of a CPU: benchmarks/README.md.
    cpu_optimizer: ClassVar[Literal["sgd", "muon"]] = "muon"
    decays_all: ClassVar[bool] = False  # whether the paper decays batch norm and biases too
    zero_init_residual: ClassVar[bool] = False  # whether its authors start every residual block as the identity
    most_views: ClassVar[int] = 2  # of an image in a step; never fewer than two

    def resolved(self, dim: int, stem: str) -> Self:
        """Return the config with every `auto` resolved; dim: the backbone's features, stem: the backbone's."""
        return self

    def _with(self, **changes: Any) -> Self:
        return type(self).model_validate({**dict(self), **changes})


class SimCLR(MethodConfig):
    """SimCLR (Chen et al. 2020, arXiv:2002.05709): NT-Xent over both views, which pass the network as one batch."""

    title = "SimCLR"

    name: Literal["simclr"] = Field("simclr", description="Says which method this is.")
    temperature: Temperature = Field(0.2, description="Of the NT-Xent softmax.")
    projector: Widths | Auto = Field("auto", description="Output width of each head layer; auto: (features, 128).")
    projector_batch_norm: bool = Field(True, description="Batch norm after every head layer, the last one too.")
    same_view_negatives: bool = Field(
        True, description="Whether other images' same view counts as a negative too, or their other view alone."
    )
    decoupled: bool = Field(False, description="Leave the positive out of the denominator (DCL, arXiv:2110.06848).")

    def resolved(self, dim: int, stem: str) -> Self:
        return self._with(projector=(dim, 128)) if self.projector == "auto" else self


class SimSiam(MethodConfig):
    """SimSiam (Chen & He 2020, arXiv:2011.10566): stop-gradient and a predictor; each view passes by itself.

    With more than two views it is FastSiam (Pototzky et al. 2022): each predicts the mean of the others.
    """

    title = "SimSiam"
    learning_rates = MethodConfig.learning_rates | {"sgd": 0.06}
    decays_all = True
    zero_init_residual = True
    most_views = 16

    name: Literal["simsiam"] = Field("simsiam", description="Says which method this is.")
    projector: Widths | Auto = Field(
        "auto",
        description="Output width of each layer; auto: min(2048, 4·features), twice (CIFAR stem) or three times.",
    )
    projector_relu_first: bool = Field(
        False, description="ReLU before batch norm in the hidden layers of both heads; the paper has it after."
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
    """Two layers to 256, and a predictor as wide."""

    projector: Widths | Auto = Field("auto", description="Output width of each layer; auto: (2·features, 256).")
    predictor_hidden: Width | Auto = Field("auto", description="auto: as wide as the projector's first layer.")
    momentum: Fraction = Field(
        0.99, description="Share that the slow copy keeps of itself at the first step; rises to 1 by a cosine."
    )

    def resolved(self, dim: int, stem: str) -> Self:
        projector = (2 * dim, 256) if self.projector == "auto" else self.projector
        hidden = projector[0] if self.predictor_hidden == "auto" else self.predictor_hidden
        return self._with(projector=projector, predictor_hidden=hidden)


class BYOL(_Predicting):
    """BYOL (Grill et al. 2020, arXiv:2006.07733): predict a slow copy's embedding of the other view; no negatives."""

    title = "BYOL"

    name: Literal["byol"] = Field("byol", description="Says which method this is.")


class MoCoV2(MethodConfig):
    """MoCo v2 (Chen et al. 2020, arXiv:2003.04297): one view finds its image's key among those of a queue."""

    title = "MoCo v2"

    name: Literal["moco_v2"] = Field("moco_v2", description="Says which method this is.")
    temperature: Temperature = Field(0.2, description="Of the InfoNCE softmax.")
    projector: Widths | Auto = Field("auto", description="Output width of each head layer; auto: (features, 128).")
    queue: int = Field(4096, ge=1, le=1_048_576, description="Keys of earlier batches that are the negatives.")
    momentum: Fraction = Field(0.99, description="Share that the slow copy keeps of itself at each step.")

    def resolved(self, dim: int, stem: str) -> Self:
        return self._with(projector=(dim, 128)) if self.projector == "auto" else self


class MoCoV3(_Predicting):
    """MoCo v3 (Chen et al. 2021, arXiv:2104.02057): a predicted query finds its key, a slow copy's, in the batch."""

    title = "MoCo v3"
    zero_init_residual = True

    name: Literal["moco_v3"] = Field("moco_v3", description="Says which method this is.")
    temperature: Temperature = Field(0.2, description="Of the InfoNCE softmax; the authors' is 1 for a ResNet-50.")


class _Decorrelating(MethodConfig):
    zero_init_residual = True

    projector: Widths | Auto = Field(
        "auto", description="Output width of each layer; auto: min(8192, 4·features), three times."
    )

    def resolved(self, dim: int, stem: str) -> Self:
        return self._with(projector=(min(8192, 4 * dim),) * 3) if self.projector == "auto" else self


class BarlowTwins(_Decorrelating):
    """Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230): dimensions agree across views, and with no other one."""

    title = "Barlow Twins"

    name: Literal["barlow_twins"] = Field("barlow_twins", description="Says which method this is.")
    redundancy: float = Field(0.005, ge=0, le=10, description="The paper's λ: weight of all that is off the diagonal.")


class VICReg(_Decorrelating):
    """VICReg (Bardes et al. 2021, arXiv:2105.04906): views agree, every dimension varies, no two vary together."""

    title = "VICReg"

    name: Literal["vicreg"] = Field("vicreg", description="Says which method this is.")
    invariance: float = Field(25.0, ge=0, le=10_000, description="Weight of the distance between the views.")
    variance: float = Field(25.0, ge=0, le=10_000, description="Weight of the hinge on standard deviations.")
    covariance: float = Field(1.0, ge=0, le=10_000, description="Weight of the covariances.")


class DINO(MethodConfig):
    """DINO (Caron et al. 2021, arXiv:2104.14294): every view foretells a slow copy's sharpened, centred classes.

    The first two views are global, those after them may be small: `views` as a list.
    """

    title = "DINO"
    most_views = 16

    name: Literal["dino"] = Field("dino", description="Says which method this is.")
    projector: Widths | Auto = Field(
        "auto", description="Output width of each layer; auto: min(2048, 4·features) twice, then 256."
    )
    projector_batch_norm: bool = Field(True, description="Batch norm in the head's hidden layers.")
    prototypes: int = Field(1024, ge=2, le=1_048_576, description="Classes that are foretold; the paper has 65,536.")
    student_temperature: Temperature = Field(0.1, description="Of the student's softmax.")
    teacher_temperature: tuple[Temperature, Temperature] = Field(
        (0.04, 0.07), description="Of the teacher's softmax, at the start and after its warm-up."
    )
    teacher_warmup: Fraction = Field(0.3, description="Share of the run in which the teacher's temperature moves.")
    momentum: Fraction = Field(
        0.99, description="Share that the slow copy keeps of itself at the first step; rises to 1 by a cosine."
    )
    centre_momentum: Share = Field(0.9, description="Share of the centre that is kept at each step.")
    frozen_epochs: float = Field(1.0, ge=0, le=10_000, description="How long the prototypes stay as they began.")

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
