"""The actions that the audit trail records."""

from typing import Literal, get_args

Action = Literal[
    "dataset.create",
    "dataset.delete",
    "job.submit",
    "job.change",
    "job.cancel",
    "job.pause",
    "job.resume",
    "job.retry",
    "model.import",
    "model.download",
    "artifact.download",
    "key.create",
    "key.revoke",
    "key.refuse",
    "session.open",
]
ACTIONS: tuple[Action, ...] = get_args(Action)
