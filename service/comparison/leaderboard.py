"""The leaderboard of a dataset: models by the accuracy of evaluations that can be compared with each other.

These are of one kind, with the same protocol and the same number of labels; a protocol names the layer, the image size,
the test images and what else the accuracy depends on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from service import datasets
from service.db.kinds import JUDGED_KINDS
from service.db.models import Job, Model
from service.db.statuses import JobStatus
from service.jobs import owned_by

MOST_JOBS = 1_000  # the newest, which are looked at


@dataclass(frozen=True, slots=True)
class Entry:
    """A model, as the newest job of the group has judged it."""

    rank: int  # equal accuracies have equal ranks
    top1: float  # from 0 to 1
    top1_interval: list[float] | None
    model_id: str
    name: str
    method: str | None
    backbone: str | None
    epochs: float | None
    job_id: str
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """Models that can be compared, the best first. labels: of the training images; None: all that there are."""

    kind: str
    protocol: str
    labels: float | None
    entries: Sequence[Entry]


def rank(
    session: Session,
    tenant_id: str,
    dataset_id: str,
    kind: str | None = None,
    labels: float | None = None,
    limit: int = 20,
) -> list[Group]:
    """Return the groups of a dataset, of one kind and number of labels or of all, each with at most `limit` models.

    Raises DatasetNotFound.
    """
    datasets.get(session, tenant_id, dataset_id)
    kinds = JUDGED_KINDS if kind is None else (kind,)
    query = _SELECT.where(owned_by(tenant_id), Job.dataset_id == dataset_id, Job.kind.in_(kinds))
    groups: dict[tuple[str, str, float | None], dict[str, _Judged]] = {}
    for judged in _list_judged(session.execute(query)):
        if labels in (None, judged.labels):
            group = groups.setdefault((judged.row.kind, judged.row.protocol or "", judged.labels), {})
            group.setdefault(judged.row.model_id, judged)  # the newest
    return [Group(*key, _rank(groups[key].values(), limit)) for key in sorted(groups, key=_order)]


@dataclass(frozen=True, slots=True)
class _Judged:
    """An accuracy of a job; an evaluation with several numbers of labels has several."""

    row: Row[Any]
    labels: float | None
    top1: float
    top1_interval: list[float] | None


def _list_judged(rows: Iterable[Row[Any]]) -> Iterator[_Judged]:
    for row in rows:
        results = [result for result in row.results or () if result.get("features") == "model"]
        for result in results or [{"labels": row.labels, "top1": row.top1, "top1_interval": row.top1_interval}]:
            if result.get("top1") is not None:
                yield _Judged(row, result.get("labels"), result["top1"], result.get("top1_interval"))


def _rank(judged: Iterable[_Judged], limit: int) -> list[Entry]:
    ordered = sorted(judged, key=lambda each: -each.top1)
    accuracies = [each.top1 for each in ordered]
    return [
        Entry(
            rank=accuracies.index(each.top1) + 1,
            top1=each.top1,
            top1_interval=each.top1_interval,
            model_id=each.row.model_id,
            name=each.row.name,
            method=each.row.method,
            backbone=each.row.backbone,
            epochs=each.row.epochs if isinstance(each.row.epochs, int | float) else None,
            job_id=each.row.id,
            finished_at=each.row.finished_at,
        )
        for each in ordered[:limit]
    ]


def _order(key: tuple[str, str, float | None]) -> tuple[int, float, str]:
    """By kind, then the most labels first, then by protocol."""
    kind, protocol, labels = key
    return JUDGED_KINDS.index(kind), -float("inf") if labels is None else -labels, protocol


_SUMMARY, _CARD = Job.summary, Model.card
_SELECT = (
    select(
        Job.id,
        Job.kind,
        Job.finished_at,
        _SUMMARY["protocol"].as_string().label("protocol"),
        _SUMMARY["results"].as_json().label("results"),
        *(_SUMMARY[name].as_json().label(name) for name in ("labels", "top1", "top1_interval")),
        Model.id.label("model_id"),
        Model.name,
        _CARD["method"].as_string().label("method"),
        _CARD[("backbone", "name")].as_string().label("backbone"),
        _CARD[("config", "epochs")].as_json().label("epochs"),
    )
    .join(Model, Model.id == func.coalesce(Job.made_model_id, Job.model_id))  # that it has trained, or judged
    .where(Job.status == JobStatus.SUCCEEDED, Model.deleted_at.is_(None))
    .order_by(Job.id.desc())
    .limit(MOST_JOBS)
)
