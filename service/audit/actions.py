"""The actions that the audit trail records."""

from typing import Literal, get_args

Action = Literal[
    "dataset.create",
    "dataset.delete",
    "job.submit",
    "job.cancel",
    "model.import",
    "model.download",
    "artifact.download",
    "key.create",
    "key.revoke",
    "key.refuse",
]
ACTIONS: tuple[Action, ...] = get_args(Action)
