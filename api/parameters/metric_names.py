"""The parameter `names`: names of metrics, which are of a closed list, but for those of a job's earlier version."""

from collections.abc import Collection, Sequence
from typing import Annotated

from fastapi import Query
from pydantic import WithJsonSchema

from api.parameters import filters
from service import metrics
from service.db.session import Reader
from ssl_core.config import metric_names

_KNOWN = metric_names.list_known()
_ONE = f"(?:{'|'.join(_KNOWN)})"
_Item = Annotated[str, WithJsonSchema({"type": "string", "pattern": rf"^ *(?:{_ONE} *(?:, *{_ONE} *)*)?$"})]
Names = Annotated[
    list[_Item] | None,
    Query(
        max_length=100, description="Names of series, with commas between them, or repeated.", examples=["train/loss"]
    ),
]


def split(names: list[str] | None) -> tuple[str, ...] | None:
    """Return the names of the parameter, sorted; None stays None."""
    if names is None:
        return None
    return tuple(sorted({name.strip() for item in names for name in item.split(",") if name.strip()}))


def check(reader: Reader, job_ids: str | Sequence[str], names: Collection[str] | None) -> None:
    """Raise InvalidRequest for a name that is neither known nor that of a series of the job, or of one of the jobs."""
    if unknown := set(names or ()).difference(_KNOWN):
        several = [job_ids] if isinstance(job_ids, str) else job_ids
        known = [*_KNOWN, *(name for job_id in several for name in metrics.list_names(reader, job_id))]
        for name in sorted(unknown):
            filters.check("names", name, known, "metric")
