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
    "job.delete",
    "index.create",
    "index.delete",
    "sweep.create",
    "sweep.pause",
    "sweep.resume",
    "sweep.cancel",
    "sweep.delete",
    "model.import",
    "model.delete",
    "model.download",
    "artifact.download",
    "alias.put",
    "alias.delete",
    "key.create",
    "key.revoke",
    "key.refuse",
    "session.token",
    "session.open",
]
ACTIONS: tuple[Action, ...] = get_args(Action)
