"""Kinds of runs by name, and the parsing of plain data into a config."""

import json
from typing import Any, get_args

from ssl_core.config.embedding import EmbedDataset
from ssl_core.config.evaluation import KnnEval, LinearEval, Project
from ssl_core.config.exchange import Export
from ssl_core.config.labelled import Distill, Finetune, Supervised
from ssl_core.config.training import Pretrain

RunConfig = Pretrain | Supervised | Finetune | Distill | LinearEval | KnnEval | Project | Export | EmbedDataset
KINDS: dict[str, type[RunConfig]] = {kind.model_fields["kind"].default: kind for kind in get_args(RunConfig)}


def parse(data: Any, kind: str = "pretrain") -> RunConfig:
    """Return the config of that `kind` (a key of KINDS) from `data`, plain JSON values.

    Raises pydantic.ValidationError; `faults` converts it to places and sentences.
    """
    # Through JSON, where a list may become a tuple although nothing else is coerced.
    return KINDS[kind].model_validate_json(json.dumps(data))
