"""Route of /audit: who made, cancelled, deleted and downloaded what, and which keys were made, revoked and refused."""

from typing import Annotated

from fastapi import APIRouter, Query

from api import responses, schemas, serializers
from api.deps import AdminCaller
from api.json_body import JsonRoute
from api.parameters.cursor import After
from api.parameters.instants import Instant
from api.responses import JSONResponse
from service import audit
from service.audit import Action

router = APIRouter(tags=["audit"], route_class=JsonRoute)


@router.get("/audit", response_model=schemas.AuditList, summary="List the audit trail, newest first")
def list_(
    caller: AdminCaller,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    action: Action | None = None,
    key: Annotated[str | None, Query(max_length=64, description="The id of a key.")] = None,
    since: Annotated[Instant | None, Query(description="RFC 3339; earlier entries are left out.")] = None,
) -> JSONResponse:
    """What was done with the owner's keys. Entries are kept for a year, or as the operator has set."""
    with caller.reading() as unit:
        page = audit.list_(unit.session, unit.tenant_id, after, limit, action=action, key=key, since=since)
        return responses.page([serializers.audit_entry(row) for row in page.items], page.has_more, page.next)
