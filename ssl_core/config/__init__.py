"""Configs of runs: one closed, frozen pydantic class per kind and per method.

The same classes validate the request body's `config`, the JSON column of a job, and the trainer's argument. This
package imports nothing heavier than pydantic, so that the API validates without loading torch.

Every field has a bound, a unit and a good default, so `{"method": {"name": "simclr"}}` is a complete config.
A value of `"auto"` is resolved once, by `ssl_core.training.resolve`, from the dataset and the device; the resolved
config is stored with the job and is itself a valid config that resolves to itself.
"""

from ssl_core.config.embedding import EmbedDataset
from ssl_core.config.errors import MAX_FAULTS, faults
from ssl_core.config.evaluation import KnnEval, LinearEval, Project
from ssl_core.config.exchange import Export, Import
from ssl_core.config.kinds import KINDS, RunConfig, parse
from ssl_core.config.labelled import Distill, Finetune, Labelled, Supervised
from ssl_core.config.network import BACKBONES, TORCHVISIONS_OWN, Backbone, Stem, is_torchvisions
from ssl_core.config.optimisation import LARS, OPTIMIZERS, SGD, AdamW, Muon, Optimizer, Schedule
from ssl_core.config.reading import Reading
from ssl_core.config.training import EarlyStop, OnlineEvaluation, Pretrain, TrainingRun
from ssl_core.config.views import Phase, Views, view_sets

__all__ = [
    "BACKBONES",
    "KINDS",
    "LARS",
    "MAX_FAULTS",
    "OPTIMIZERS",
    "SGD",
    "TORCHVISIONS_OWN",
    "AdamW",
    "Backbone",
    "Distill",
    "EarlyStop",
    "EmbedDataset",
    "Export",
    "Finetune",
    "Import",
    "KnnEval",
    "Labelled",
    "LinearEval",
    "Muon",
    "OnlineEvaluation",
    "Optimizer",
    "Phase",
    "Pretrain",
    "Project",
    "Reading",
    "RunConfig",
    "Schedule",
    "Stem",
    "Supervised",
    "TrainingRun",
    "Views",
    "faults",
    "is_torchvisions",
    "parse",
    "view_sets",
]
