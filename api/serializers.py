"""Serializers: database rows as plain values for JSON responses (`api.schemas` documents them)."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from api.responses import rfc3339
from service.comparison.jobs import Comparison
from service.comparison.leaderboard import Group
from service.db.forecast import Forecast
from service.db.models import (
    Alias,
    Artifact,
    AuditEntry,
    Checkpoint,
    Dataset,
    Job,
    JobEvent,
    Key,
    Model,
    Sweep,
    VectorIndex,
)
from service.db.statuses import JobStatus
from service.jobs import ShownJob, StatusChange, SupervisedBaseline
from service.keys import scopes
from service.sweeps import registry as sweeps

Json = dict[str, Any]
_FROM_CARD = ("method", "backbone", "layers", "preprocessing", "config", "metrics")


def dataset(row: Dataset) -> Json:
    return {
        "id": row.id,
        "object": "dataset",
        "name": row.name,
        "status": row.status,
        "on_bad_file": row.on_bad_file,
        "reading": json.loads(row.reading or "{}"),
        "sha256": row.sha256,
        "size_bytes": row.size_bytes,
        "report": row.report,
        "error": row.error,
        "created_at": rfc3339(row.created_at),
        "ready_at": rfc3339(row.ready_at),
    }


def job(
    row: Job | ShownJob,
    transitions: Sequence[StatusChange],
    baselines: Sequence[SupervisedBaseline] = (),
    place: Forecast | None = None,
) -> Json:
    return {
        "id": row.id,
        "object": "job",
        "kind": row.kind,
        "status": row.status,
        "status_detail": row.status_detail,
        "name": row.name,
        "dataset": row.dataset_id,
        "model": row.model_id or row.parent_id,
        "sweep": row.sweep_id,
        "priority": row.priority,
        "metadata": row.user_metadata,
        "config": row.config,
        "resolved": row.resolved,
        "max_runtime": row.max_runtime,
        "queue": {"position": place.position, "estimated_start": rfc3339(place.starts_at)} if place else None,
        "progress": row.progress,
        "summary": row.summary,
        "supervised": [asdict(run) for run in baselines],
        "error": row.error,
        "attempt": row.attempt,
        "model_id": row.made_model_id if row.status == JobStatus.SUCCEEDED else None,
        "created_at": rfc3339(row.created_at),
        "started_at": rfc3339(row.started_at),
        "finished_at": rfc3339(row.finished_at),
        "transitions": [_transition(change) for change in transitions],
        "urls": _urls(row.id),
    }


def comparison(found: Comparison) -> Json:
    jobs = [
        {
            "id": each.row.id,
            "name": each.row.name,
            "kind": each.row.kind,
            "method": each.method,
            "dataset": each.row.dataset_id,
            "model": each.row.model_id or each.row.parent_id,
            "status": each.row.status,
            "summary": each.row.summary,
            "series": each.series,
        }
        for each in found.jobs
    ]
    return {"object": "comparison", "jobs": jobs, "differences": found.differences}


def leaderboard(dataset_id: str, group: Group) -> Json:
    entries = [
        {
            "rank": entry.rank,
            "top1": entry.top1,
            "top1_interval": entry.top1_interval,
            "model": entry.model_id,
            "name": entry.name,
            "method": entry.method,
            "backbone": entry.backbone,
            "epochs": entry.epochs,
            "job": entry.job_id,
            "finished_at": rfc3339(entry.finished_at),
        }
        for entry in group.entries
    ]
    return {
        "object": "leaderboard",
        "dataset": dataset_id,
        "protocol": group.kind,
        "description": group.protocol,
        "labels": group.labels,
        "entries": entries,
    }


def event(row: JobEvent) -> Json:
    return {
        "seq": row.seq,
        "time": rfc3339(row.time),
        "attempt": row.attempt,
        "level": row.level,
        "code": row.code,
        "message": row.message,
        "data": row.data,
    }


def checkpoint(row: Checkpoint) -> Json:
    return {
        "id": row.id,
        "object": "checkpoint",
        "attempt": row.attempt,
        "step": row.step,
        "epoch": row.epoch,
        "sha256": row.sha256,
        "size_bytes": row.size_bytes,
        "metrics": row.metrics,
        "created_at": rfc3339(row.created_at),
    }


def artifact(row: Artifact) -> Json:
    return {
        "object": "artifact",
        "name": row.name,
        "media_type": row.media_type,
        "sha256": row.sha256,
        "size_bytes": row.size_bytes,
        "created_at": rfc3339(row.created_at),
        "url": f"/jobs/{row.job_id}/artifacts/{quote(row.name, safe='')}",
    }


def model(row: Model, aliases: Sequence[str]) -> Json:
    return {
        "id": row.id,
        "object": "model",
        "name": row.name,
        "job_id": row.job_id,
        "sha256": row.sha256,
        "size_bytes": row.size_bytes,
        "dim": row.dim,
        "aliases": [*aliases],
        **{field: row.card.get(field) for field in _FROM_CARD},
        "card": row.card,
        "created_at": rfc3339(row.created_at),
        "urls": {"self": f"/models/{row.id}", "download": f"/models/{row.id}/download", "job": f"/jobs/{row.job_id}"},
    }


def alias(row: Alias) -> Json:
    return {
        "object": "alias",
        "name": row.name,
        "model": row.model_id,
        "created_at": rfc3339(row.created_at),
        "moved_at": rfc3339(row.moved_at),
    }


def sweep(row: Sweep, summary: sweeps.Summary) -> Json:
    url = f"/sweeps/{row.id}"
    best = summary.best
    return {
        "id": row.id,
        "object": "sweep",
        "name": row.name,
        "status": row.status,
        "status_detail": row.status_detail,
        "kind": row.kind,
        "dataset": row.dataset_id,
        "model": row.model_id or row.parent_id,
        "config": row.config,
        "space": row.space,
        **row.search,
        "parallel": row.parallel,
        "metric": row.metric,
        "goal": row.goal,
        "pruner": row.pruner,
        "priority": row.priority,
        "metadata": row.user_metadata,
        "max_runtime": row.max_runtime,
        "counts": summary.counts,
        "best": trial(row, best) if best is not None else None,
        "error": row.error,
        "created_at": rfc3339(row.created_at),
        "finished_at": rfc3339(row.finished_at),
        "urls": {"self": url, **{verb: f"{url}/{verb}" for verb in ("trials", "pause", "resume", "cancel")}},
    }


def trial(of: Sweep, row: sweeps.ShownTrial) -> Json:
    state = sweeps.find_state(of, row)
    return {
        "object": "trial",
        "number": row.number,
        "state": state,
        "params": row.params,
        "value": row.value,
        "job": row.job_id,
        "model": row.model_id if state == "succeeded" else None,
        "error": row.error,
    }


def index(row: VectorIndex) -> Json:
    url = f"/indexes/{row.id}"
    verbs = ("search", "duplicates", "outliers", "select", "labels")
    return {
        "id": row.id,
        "object": "index",
        "name": row.name,
        "status": row.status,
        "job": row.job_id,
        "dataset": row.dataset_id,
        "model": row.model_id,
        "layer": row.layer,
        "metadata": row.user_metadata,
        "report": row.report,
        "error": row.error,
        "created_at": rfc3339(row.created_at),
        "ready_at": rfc3339(row.ready_at),
        "urls": {"self": url, **{verb: f"{url}/{verb}" for verb in verbs}},
    }


def key(row: Key) -> Json:
    return {
        "id": row.id,
        "object": "key",
        "name": row.name,
        "role": row.role,
        "scopes": scopes.sort(scopes.parse(row.scopes)),
        "created_at": rfc3339(row.created_at),
        "expires_at": rfc3339(row.expires_at),
        "last_used_at": rfc3339(row.last_used_at),
        "revoked_at": rfc3339(row.revoked_at),
    }


def audit_entry(row: AuditEntry) -> Json:
    return {
        "id": row.id,
        "object": "audit_entry",
        "at": rfc3339(row.at),
        "action": row.action,
        "target": row.target,
        "key": row.key_id,
        "key_name": row.key_name,
        "address": row.address,
        "request_id": row.request_id,
        "detail": row.detail,
    }


def _transition(change: StatusChange) -> Json:
    return {"status": change.data["status"], "at": rfc3339(change.time), "detail": change.message}


def _urls(job_id: str) -> Json:
    url = f"/jobs/{job_id}"
    names = ("metrics", "events", "checkpoints", "artifacts", "cancel", "pause", "resume", "retry", "clone")
    return {"self": url, **{name: f"{url}/{name}" for name in names}}
