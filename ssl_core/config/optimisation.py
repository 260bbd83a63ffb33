"""Optimisation: the optimizers and the learning rate at each step."""

from typing import Annotated, Literal

from pydantic import Field

from ssl_core.config.fields import Auto, Closed, Fraction, Share


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
    vector_lr: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="Learning rate of norms, biases and a classifier, scaled likewise; null: that of the weights."
    )


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
