"""Pruners of a sweep: the rules by which a trial that does worse than others is stopped early.

They are Optuna's, which `worker.sweeps` calls. A step of theirs is an epoch here, so that trials of other batch sizes
are compared fairly.

Source of the names and defaults: Optuna 5, `optuna.pruners`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Epochs = Annotated[int, Field(ge=1, le=1_000_000)]


class _Pruner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    patience: int | None = Field(
        None, ge=0, le=1_000_000, description="Epochs without improvement for which a trial is left alone."
    )


class _Compared(_Pruner):
    startup_trials: int = Field(5, ge=0, le=1000, description="Trials that have to succeed before any is stopped.")
    warmup_epochs: int = Field(0, ge=0, le=1_000_000, description="Epochs of a trial before it may be stopped.")
    interval_epochs: _Epochs = Field(1, description="Epochs from one decision to the next.")
    min_trials: int = Field(1, ge=1, le=1000, description="Trials that must have reached the epoch.")


class Median(_Compared):
    """Stops a trial whose best value so far is worse than the median of the others' at the same epoch."""

    name: Literal["median"]


class Percentile(_Compared):
    """Stops a trial whose best value so far is not among the best so many percent of the others' at the same epoch."""

    name: Literal["percentile"]
    percentile: float = Field(ge=0, le=100)


class SuccessiveHalving(_Pruner):
    """Asynchronous successive halving (Li et al. 2018, arXiv:1810.05934): at 1, 4, 16 … times `min_epochs`, the best
    `1 / reduction_factor` of the trials that have come so far go on.
    """

    name: Literal["successive_halving"]
    min_epochs: _Epochs = 1
    reduction_factor: int = Field(4, ge=2, le=100)
    min_early_stopping_rate: int = Field(0, ge=0, le=20)


class Hyperband(_Pruner):
    """Successive halving with several first rungs, between which the trials are divided (Li et al. 2018, JMLR 18)."""

    name: Literal["hyperband"]
    min_epochs: _Epochs = 1
    max_epochs: _Epochs
    reduction_factor: int = Field(3, ge=2, le=100)

    @model_validator(mode="after")
    def _check(self) -> "Hyperband":
        if self.max_epochs < self.min_epochs:
            raise ValueError("max_epochs must not be less than min_epochs")
        return self


class Threshold(_Pruner):
    """Stops a trial whose value leaves the bounds, or is not a number."""

    name: Literal["threshold"]
    lower: float | None = None
    upper: float | None = None
    warmup_epochs: int = Field(0, ge=0, le=1_000_000)
    interval_epochs: _Epochs = 1

    @model_validator(mode="after")
    def _check(self) -> "Threshold":
        if self.lower is None and self.upper is None:
            raise ValueError("give lower or upper")
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise ValueError("lower must be less than upper")
        return self


Pruner = Annotated[Median | Percentile | SuccessiveHalving | Hyperband | Threshold, Field(discriminator="name")]
