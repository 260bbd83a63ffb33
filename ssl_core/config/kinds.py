"""The kinds of runs by name, and how plain data becomes one's config."""

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
    """Return the config of that `kind` (a key of KINDS) that `data`, plain JSON values, describes.

    Raises pydantic.ValidationError; `faults` turns it into places and sentences.
    """
    # Through JSON, where a list may become a tuple although nothing else is coerced.
    return KINDS[kind].model_validate_json(json.dumps(data))
