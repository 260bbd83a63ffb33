"""Routes that compare: jobs side by side, and the leaderboard of a dataset."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import WithJsonSchema

from api import responses, schemas, serializers
from api.deps import ReadCaller
from api.json_body import JsonRoute
from api.parameters import filters, metric_names
from api.parameters.patterns import ID
from api.responses import JSONResponse
from service import metrics
from service.comparison import jobs as comparison
from service.comparison import leaderboard
from service.db.kinds import JUDGED_KINDS
from service.errors import InvalidRequest
from ssl_core.errors import Fault

router = APIRouter(tags=["comparison"], route_class=JsonRoute)
_JOB_ID = ID.strip("^$").replace("[a-z]{2,4}", "job")
_ONE_OR_MORE = rf"^ *{_JOB_ID}(?: *, *{_JOB_ID}){{0,{comparison.MAX_JOBS - 1}}} *$"
_Ids = Annotated[str, WithJsonSchema({"type": "string", "pattern": _ONE_OR_MORE})]


@router.get("/jobs/compare", response_model=schemas.Comparison, summary="Compare jobs")
def compare(
    caller: ReadCaller,
    ids: Annotated[
        list[_Ids],
        Query(
            min_length=1,
            max_length=comparison.MAX_JOBS,
            description=f"Ids of at most {comparison.MAX_JOBS} jobs, with commas between them, or repeated.",
        ),
    ],
    names: metric_names.Names = None,
    max_points: Annotated[
        int, Query(ge=2, le=metrics.MAX_POINTS, description="Of each series; fewer when there are very many.")
    ] = comparison.DEFAULT_POINTS,
) -> JSONResponse:
    """Summaries and metrics of jobs, in the order of `ids`, and the fields in which their resolved configs differ."""
    job_ids, wanted = _split(ids), metric_names.split(names)
    with caller.reading() as unit:
        found = comparison.find(unit.session, unit.tenant_id, job_ids)
        metric_names.check(unit.session, job_ids, wanted)
        return JSONResponse(serializers.comparison(comparison.compare(unit.session, found, wanted, max_points)))


@router.get("/leaderboard", response_model=schemas.LeaderboardList, summary="Rank models by accuracy")
def show(
    caller: ReadCaller,
    dataset: Annotated[str, Query(max_length=64, description="A `ds_` id.")],
    protocol: Annotated[str | None, filters.one_of(JUDGED_KINDS)] = None,
    labels: Annotated[
        float | None, Query(ge=0, allow_inf_nan=False, description="Only results of this number of labels.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Models of each group.")] = 20,
) -> JSONResponse:
    """The models that were evaluated on a dataset, in groups that can be compared: of the same kind of evaluation, the
    same protocol and the same number of labels. Of several evaluations of a model in a group the newest counts.
    """
    filters.check("protocol", protocol, JUDGED_KINDS)
    with caller.reading() as unit:
        groups = leaderboard.rank(unit.session, unit.tenant_id, dataset, protocol, labels, limit)
    data: list[dict[str, Any]] = [serializers.leaderboard(dataset, group) for group in groups]
    return responses.page(data, False, None)


def _split(ids: list[str]) -> list[str]:
    """Return the ids, each once. Raises InvalidRequest."""
    found = [*dict.fromkeys(each.strip() for item in ids for each in item.split(",") if each.strip())]
    if not 1 <= len(found) <= comparison.MAX_JOBS:
        detail = f"Give 1 to {comparison.MAX_JOBS} ids of jobs."
        raise InvalidRequest(f"ids: {detail}", errors=[Fault(pointer="ids", code="number_of_ids", detail=detail)])
    return found
