"""Kinds of runs by name, and the parsing of plain data into a config."""

import json
from typing import Any

from ssl_core.config.evaluation import KnnEval, LinearEval, Project
from ssl_core.config.exchange import Export
from ssl_core.config.labelled import Distill, Finetune, Supervised
from ssl_core.config.training import Pretrain

RunConfig = Pretrain | Supervised | Finetune | Distill | LinearEval | KnnEval | Project | Export
KINDS: dict[str, type[RunConfig]] = {
    "pretrain": Pretrain,
    "supervised": Supervised,
    "finetune": Finetune,
    "distill": Distill,
    "linear_eval": LinearEval,
    "knn_eval": KnnEval,
    "project": Project,
    "export": Export,
}


def parse(data: Any, kind: str = "pretrain") -> RunConfig:
    """Return the config of that `kind` (a key of KINDS) from `data`, plain JSON values.

    Raises pydantic.ValidationError; `faults` converts it to places and sentences.
    """
    # Through JSON, where a list may become a tuple although nothing else is coerced.
    return KINDS[kind].model_validate_json(json.dumps(data))
