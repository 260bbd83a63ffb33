"""Route of /usage: what the owner uses, and what it may use."""

import dataclasses
from typing import Any

from fastapi import APIRouter, Request

from api import schemas
from api.deps import ReadCaller, SettingsDep
from api.responses import JSONResponse
from service.quotas import usage

router = APIRouter(tags=["usage"])


@router.get("/usage", response_model=schemas.Usage, summary="Show what is used and allowed")
def show(request: Request, caller: ReadCaller, settings: SettingsDep) -> JSONResponse:
    """The owner's jobs, stored bytes and requests, each with its quota."""
    with caller.reading() as unit:
        counts = {queue: usage.count_jobs(unit.session, unit.tenant_id, queue) for queue in ("train", "data")}
        stored = usage.measure_bytes(unit.session, unit.tenant_id)
        requests = request.app.state.request_rate.count(unit.tenant_id)
    queued, running = settings.quota_queued_jobs, settings.quota_running_jobs
    jobs, uploads = (
        {"queued": _amount(found.queued, queued), "running": _amount(found.running, running)}
        for found in (counts["train"], counts["data"])
    )
    return JSONResponse(
        {
            "object": "usage",
            "jobs": jobs,
            "uploads": uploads,
            "bytes": {**_amount(stored.total, settings.quota_bytes), "of": dataclasses.asdict(stored)},
            "requests_per_minute": _amount(requests.used, requests.allowed),
        }
    )


def _amount(used: int, allowed: int | None) -> dict[str, Any]:
    return {"used": used, "allowed": allowed or None}
