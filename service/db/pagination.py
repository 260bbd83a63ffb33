"""Pagination by cursor, newest rows first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.db import ids
from service.errors import InvalidRequest
from ssl_core.errors import Fault

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of rows; `next` is the `after` of the next page, None on the last one."""

    items: Sequence[T]
    has_more: bool
    next: str | None


def newest_first(
    session: Session, query: Select[Any], id_column: InstrumentedAttribute[str], after: str | None, limit: int
) -> Page[Any]:
    """Return at most `limit` rows of `query` that are older than the id `after`; ids sort by age.

    Raises InvalidRequest when `after` is not an id.
    """
    if after is not None:
        if not ids.is_valid(after):
            raise InvalidRequest(errors=[Fault(pointer="after", code="not_an_id", detail="Must be an id.")])
        query = query.where(id_column < after)
    rows = session.scalars(query.order_by(id_column.desc()).limit(limit + 1)).all()
    items, has_more = rows[:limit], len(rows) > limit
    return Page(items, has_more, str(getattr(items[-1], id_column.key)) if has_more else None)
