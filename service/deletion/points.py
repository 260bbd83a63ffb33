"""Points that no job has any more, deleted in parts that are short enough for other writers."""

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.db.models import Point, Series

PART = 20_000  # points in one transaction


def delete_part(session: Session, most: int = PART) -> bool:
    """Delete about `most` points of a series without a job, and the series with its last points; return whether there
    was any."""
    query = select(Series.id).where(Series.job_id.is_(None)).order_by(Series.id).limit(1)
    series_id = session.scalars(query.with_for_update(skip_locked=True)).one_or_none()
    if series_id is None:
        return False
    of_series = Point.series_id == series_id
    first = select(Point.seq).where(of_series).order_by(Point.seq).limit(most).subquery()
    last = session.execute(select(func.max(first.c.seq))).scalar_one()
    if last is not None:
        session.execute(delete(Point).where(of_series, Point.seq <= last))
    if session.execute(select(Point.seq).where(of_series).limit(1)).first() is None:
        session.execute(delete(Series).where(Series.id == series_id))
    return True
