"""Optimisation: optimizers and the learning-rate schedule."""

from typing import Annotated, Literal

from pydantic import Field

from ssl_core.config.fields import Auto, Closed, Fraction, Share


class _Optimizer(Closed):
    lr: Annotated[float, Field(gt=0, le=1000)] | Auto = Field(
        "auto", description="Learning rate before `lr_scaling`; auto: the method's recommendation."
    )
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="Added to the gradient; AdamW subtracts it from the weights."
    )
    decay_norm_and_bias: bool | Auto = Field(
        "auto", description="Decay batch norm and biases too; auto: yes for SimSiam, unless with muon; else no."
    )


class SGD(_Optimizer):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = Field("sgd", description="The optimizer's name.")
    momentum: Fraction = Field(0.9, description="Momentum factor.")
    nesterov: bool = Field(True, description="Use Nesterov momentum.")


class AdamW(_Optimizer):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    name: Literal["adamw"] = Field("adamw", description="The optimizer's name.")
    betas: tuple[Share, Share] = Field(
        (0.9, 0.999), description="Decay rates of the running means of the gradient and of its square."
    )


class LARS(_Optimizer):
    """Layer-wise adaptive rates (arXiv:1708.03888), as in google-research/simclr."""

    name: Literal["lars"] = Field("lars", description="The optimizer's name.")
    momentum: Fraction = Field(0.9, description="Momentum factor.")
    trust: float = Field(0.001, gt=0, le=1, description="The trust coefficient.")
    classic_momentum: bool = Field(
        True, description="Apply the learning rate inside the momentum buffer; false: outside."
    )
    nesterov: bool = Field(False, description="Use Nesterov momentum.")
    vector_lr: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="Learning rate of norms, biases and a classifier, scaled likewise; null: that of the weights."
    )


class Muon(_Optimizer):
    """Momentum orthogonalised before each step (Jordan et al. 2024), as in torch.optim.Muon."""

    name: Literal["muon"] = Field("muon", description="The optimizer's name.")
    weight_decay: float = Field(0.1, ge=0, le=1, description="Times the learning rate, subtracted from the weights.")
    momentum: Fraction = Field(0.9, description="Momentum factor.")
    nesterov: bool = Field(True, description="Use Nesterov momentum.")
    steps: int = Field(3, ge=1, le=10, description="Newton–Schulz steps; more are more accurate and cost more.")
    vector_lr: float = Field(
        0.12,
        gt=0,
        le=1000,
        description="Learning rate of norms and biases, which are updated by plain momentum; scaled likewise.",
    )


Optimizer = Annotated[SGD | AdamW | LARS | Muon, Field(discriminator="name")]
OPTIMIZERS: dict[str, type[SGD | AdamW | LARS | Muon]] = {"sgd": SGD, "adamw": AdamW, "lars": LARS, "muon": Muon}


class Schedule(Closed):
    """The learning rate at each step: linear warm-up, then cosine to 0."""

    lr_scaling: Literal["none", "linear", "sqrt"] = Field(
        "linear", description="none: lr; linear: lr·batch/256; sqrt: lr·√batch."
    )
    warmup_epochs: Annotated[float, Field(ge=0, le=10_000)] | Auto = Field(
        "auto", description="auto: a twentieth of the run."
    )
    decay: Literal["cosine", "none"] = Field(
        "cosine", description="Decay after the warm-up: to 0 by a cosine, or none."
    )
    decay_steps: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="Step at which the cosine reaches 0 and stays there; null: the end of the run.",
    )
