"""The methods' configs: one class per method, which also says what `auto` becomes under it. Imports pydantic alone."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from ssl_core.fields import Auto, Closed, Width, Widths


class MethodConfig(Closed):
    """What every method's config says beside its fields; peak rates are those before scaling."""

    name: str
    learning_rates: ClassVar[dict[str, float]] = {"sgd": 0.12, "lars": 1.0, "adamw": 1e-3, "muon": 0.1}
    # What learns more in the short runs of a CPU: benchmarks/README.md.
    cpu_optimizer: ClassVar[Literal["sgd", "muon"]] = "sgd"
    decays_all: ClassVar[bool] = False  # whether the paper decays batch norm and biases too
    zero_init_residual: ClassVar[bool] = False  # whether the paper starts every residual block as the identity

    def settled(self, dim: int, stem: str) -> Self:
        """Return the config with every `auto` settled; dim: the backbone's features, stem: the backbone's."""
        return self

    def _with(self, **changes: Any) -> Self:
        return type(self).model_validate({**dict(self), **changes})


class SimCLR(MethodConfig):
    """SimCLR (Chen et al. 2020, arXiv:2002.05709): NT-Xent over both views, which pass the network as one batch."""

    cpu_optimizer = "muon"

    name: Literal["simclr"] = Field("simclr", description="Says which method this is.")
    temperature: float = Field(0.2, ge=0.001, le=10, description="Of the NT-Xent softmax.")
    projector: Widths | Auto = Field("auto", description="Output width of each head layer; auto: (features, 128).")
    projector_batch_norm: bool = Field(True, description="Batch norm after every head layer, the last one too.")

    def settled(self, dim: int, stem: str) -> Self:
        return self._with(projector=(dim, 128)) if self.projector == "auto" else self


class SimSiam(MethodConfig):
    """SimSiam (Chen & He 2020, arXiv:2011.10566): stop-gradient and a predictor; each view passes by itself."""

    learning_rates = MethodConfig.learning_rates | {"sgd": 0.06}
    decays_all = True
    zero_init_residual = True

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

    def settled(self, dim: int, stem: str) -> Self:
        projector = self.projector
        if projector == "auto":
            projector = (min(2048, 4 * dim),) * (3 if stem == "imagenet" else 2)
        hidden = max(1, projector[-1] // 4) if self.predictor_hidden == "auto" else self.predictor_hidden
        return self._with(projector=projector, predictor_hidden=hidden)


METHODS: dict[str, type[MethodConfig]] = {"simclr": SimCLR, "simsiam": SimSiam}
Method = Annotated[SimCLR | SimSiam, Field(discriminator="name")]
