"""Metrics: named time series of a job, appended by its worker and read in columns.

`seq` numbers all points of a job in the order they were stored, so it is the cursor that clients poll with. A long run
has millions of points and a client needs some hundreds: `query` selects evenly spaced `seq`s by the primary key, so its
cost depends on the number of points returned, not on the number stored.
"""

import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from sqlalchemy import ARRAY, BigInteger, ColumnElement, FromClause, bindparam, column, func, literal, select, update
from sqlalchemy.orm import Session, aliased

from service import text
from service.db.models import Job, Point, Series
from service.db.session import Reader
from ssl_core.events import Metrics

MAX_SERIES = 500  # of a job
MAX_NAME = 100  # characters
MAX_POINTS = 10_000  # of each series in one response
DEFAULT_POINTS = 1_000
PAGE_POINTS = 2_000  # of all series together, in a page of `list_points`

Row = tuple[int, int, int, float, float, float | None]  # series_id, seq, step, epoch, time, value


class BadPoint(ValueError):
    """A point cannot be stored."""


class Column(TypedDict):
    """One series, its points in ascending step."""

    name: str
    step: list[int]
    epoch: list[float]
    time: list[float]
    value: list[float | None]


class Columns(TypedDict):
    """Some series, and the cursor to send as `after` in the next query."""

    series: list[Column]
    last: int


# --- writing ---------------------------------------------------------------------------------------------------------


def append(session: Session, job: Job, events: Sequence[Metrics]) -> bool:
    """Store the events' values, dropping steps that their series already has; return whether any point is new.

    The caller has locked the job's row. Raises BadPoint.
    """
    if not events:
        return False
    series = _get_series(session, job, {name for event in events for name in event.values})
    rows, changed = _build_rows(events, series, job.last_point)
    if rows:
        job.last_point = rows[-1][1]
        _insert(session, rows)
        session.execute(update(Series), changed)
    return bool(rows)


def check_finite(value: object, name: str) -> float:
    """Return `value` when it is a finite number. Raises BadPoint."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    raise BadPoint(f"{name} must be a finite number: {value!r}")


class _SeriesState:
    """The columns of a series that change while points are added to it."""

    def __init__(self, row: Series) -> None:
        self.id, self.points = row.id, row.points
        self.first_seq, self.last_seq, self.last_step = row.first_seq, row.last_seq, row.last_step

    def as_row(self) -> dict[str, int]:
        return vars(self)


def _get_series(session: Session, job: Job, names: set[str]) -> dict[str, _SeriesState]:
    """Return the job's series of these names; missing ones are created."""
    rows = {row.name: row for row in session.scalars(select(Series).where(Series.job_id == job.id))}
    new = sorted(names - rows.keys())
    if len(rows) + len(new) > MAX_SERIES:
        raise BadPoint(f"a job can have at most {MAX_SERIES} metrics: {new[-1][:MAX_NAME]!r} is one more")
    for name in new:
        if not (0 < len(name) <= MAX_NAME and text.is_printable(name)):
            raise BadPoint(f"a metric's name must be 1 to {MAX_NAME} printable characters: {name[:MAX_NAME]!r}")
        rows[name] = Series(job_id=job.id, name=name, points=0, first_seq=0, last_seq=0, last_step=-1)
        session.add(rows[name])
    session.flush()
    return {name: _SeriesState(rows[name]) for name in names}


def _build_rows(
    events: Iterable[Metrics], series: dict[str, _SeriesState], last: int
) -> tuple[list[Row], list[dict[str, int]]]:
    """Return the rows to store, numbered from `last` + 1, and the state of the series that got any."""
    rows: list[Row] = []
    seq = last
    for event in events:
        step, epoch, time = (
            _check_step(event.step),
            check_finite(event.epoch, "epoch"),
            check_finite(event.time, "time"),
        )
        for name, value in event.values.items():
            state = series[name]
            if step > state.last_step:
                seq += 1
                rows.append((state.id, seq, step, epoch, time, _check_value(value)))
                state.first_seq = state.first_seq or seq
                state.last_seq, state.last_step = seq, step
                state.points += 1
    return rows, [state.as_row() for state in series.values() if state.last_seq > last]


def _check_step(step: object) -> int:
    if isinstance(step, int) and 0 <= step < 2**63:
        return step
    raise BadPoint(f"step must be an integer from 0: {step!r}")


def _check_value(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if math.isfinite(value) else None
    raise BadPoint(f"a metric's value must be a number or null: {value!r}")


def _insert(session: Session, rows: list[Row]) -> None:
    """Insert points by the fastest way of the driver: executemany for SQLite, COPY for PostgreSQL."""
    columns = "series_id, seq, step, epoch, time, value"
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"INSERT INTO points ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY points ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


# --- reading ---------------------------------------------------------------------------------------------------------


def query(
    session: Session,
    job: Job,
    names: Collection[str] | None = None,
    after: int = 0,
    max_points: int = DEFAULT_POINTS,
) -> Columns:
    """Return the job's points with `after` < seq, of each series at most `max_points` (2 to 10,000).

    Longer series are thinned evenly and keep their first and last point. A series without such points is left out.
    """
    last, after = job.last_point, min(after, job.last_point)
    found = session.scalars(
        select(Series).where(Series.job_id == job.id, Series.last_seq > after).order_by(Series.name)
    )
    selected = [row for row in found if names is None or row.name in names]
    limit = max(2, min(max_points, MAX_POINTS))
    columns = [_read_column(session, row, after, last, limit) for row in selected]
    return {"series": [item for item in columns if item["step"]], "last": last}


def detach(session: Session, job: Job) -> None:
    """Take the job's series away from it; `service.deletion.points` deletes them, with their points, in parts."""
    session.execute(update(Series).where(Series.job_id == job.id).values(job_id=None))


def find_first_series(reader: Reader, job_id: str) -> int | None:
    """Return the id of the job's first series: another one once its points were deleted."""
    return reader.execute(select(func.min(Series.id)).where(Series.job_id == job_id)).scalar_one()


def list_names(reader: Reader, job_id: str) -> list[str]:
    """Return the names of the job's series, sorted."""
    query = select(Series.name).where(Series.job_id == job_id).order_by(Series.name)
    return list(reader.execute(query).scalars())


class NamedPoint(NamedTuple):
    """A point and the name of its series."""

    name: str
    step: int
    epoch: float  # may be fractional
    time: float  # Unix seconds
    value: float | None
    seq: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some points of a job in ascending `seq`; `last` is the `after` of the next page."""

    points: Sequence[NamedPoint]
    last: int

    def to_columns(self) -> Columns:
        """Return the points in the form of `query`."""
        series: dict[str, list[NamedPoint]] = {}
        for point in self.points:
            series.setdefault(point.name, []).append(point)
        return {"series": [_build_column(name, series[name]) for name in sorted(series)], "last": self.last}


def list_points(
    reader: Reader, job_id: str, names: Collection[str] | None, after: int, until: int, limit: int = PAGE_POINTS
) -> Page:
    """Return the page of the job's points, of all series or of those named, with `after` < seq <= `until`.

    It ends `limit` seqs behind its first point, so that its cost depends neither on what is before nor behind it.
    """
    series = reader.execute(_SELECT_NEXT, {"job_id": job_id, "after": after}).all()
    selected = [row for row in series if row.next_seq and (names is None or row.name in names)]
    first = min((row.next_seq for row in selected), default=until + 1)
    last = min(first + limit - 1, until)
    by_id = {row.id: row.name for row in selected if row.next_seq <= last}
    if not by_id:
        return Page([], until)
    rows = reader.execute(_SELECT_WINDOW, {"series": list(by_id), "first": first, "last": last})
    return Page([NamedPoint(by_id[series_id], *point) for series_id, *point in rows], last)


# Built once: building a statement takes longer than running it.
_SERIES, _POINTS = Series.__table__.c, Point.__table__.c
_SELECT_NEXT = select(
    _SERIES.id,
    _SERIES.name,
    select(func.min(_POINTS.seq))
    .where(_POINTS.series_id == _SERIES.id, _POINTS.seq > bindparam("after"))
    .scalar_subquery()
    .label("next_seq"),
).where(_SERIES.job_id == bindparam("job_id"), _SERIES.last_seq > bindparam("after"))
_SELECT_WINDOW = (
    select(_POINTS.series_id, _POINTS.step, _POINTS.epoch, _POINTS.time, _POINTS.value, _POINTS.seq)
    .where(_POINTS.series_id.in_(bindparam("series", expanding=True)))
    .where(_POINTS.seq >= bindparam("first"), _POINTS.seq <= bindparam("last"))
    .order_by(_POINTS.seq)
)


def _build_column(name: str, points: Sequence[NamedPoint]) -> Column:
    step, epoch, time, value = (list(part) for part in list(zip(*points, strict=True))[1:5])
    return {"name": name, "step": step, "epoch": epoch, "time": time, "value": value}


def _read_column(session: Session, series: Series, after: int, last: int, limit: int) -> Column:
    rows = _read_points(session, series.id, after, last, limit)
    step, epoch, time, value = (list(part) for part in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return {"name": series.name, "step": step, "epoch": epoch, "time": time, "value": value}


def _read_points(session: Session, series_id: int, after: int, last: int, limit: int) -> Sequence[Any]:
    """Return (step, epoch, time, value) of at most `limit` points with `after` < seq <= `last`."""
    in_range = (Point.series_id == series_id, Point.seq > after, Point.seq <= last)
    columns = (Point.step, Point.epoch, Point.time, Point.value)
    rows = session.execute(select(*columns, Point.seq).where(*in_range).order_by(Point.seq).limit(limit + 1)).all()
    if len(rows) <= limit:
        return [row[:4] for row in rows]
    last_seq = session.execute(select(func.max(Point.seq)).where(*in_range)).scalar_one()
    seqs = _select_next_seqs(session, series_id, _spaced_evenly(rows[0].seq, last_seq, limit))
    query = select(*columns).where(Point.series_id == series_id, Point.seq.in_(seqs)).order_by(Point.seq)
    return session.execute(query).all()


def _spaced_evenly(first: int, last: int, count: int) -> list[int]:
    """Return `count` evenly spaced integers from `first` to `last`, both included."""
    return [first + (last - first) * index // (count - 1) for index in range(count)]


def _select_next_seqs(session: Session, series_id: int, targets: list[int]) -> Any:
    """Return the query for the seq of the series' first point at or after each target."""
    target, source = _as_table(session.get_bind().dialect.name, targets)
    point = aliased(Point)
    first = select(func.min(point.seq)).where(point.series_id == series_id, point.seq >= target)
    return select(first.correlate(source).scalar_subquery()).select_from(source)


def _as_table(dialect: str, numbers: list[int]) -> tuple[ColumnElement[int], FromClause]:
    """Return a table of one column with the numbers, sent as one parameter."""
    if dialect == "sqlite":
        table = func.json_each(json.dumps(numbers)).table_valued(column("value", BigInteger))
        return table.c.value, table
    array = func.unnest(literal(numbers, ARRAY(BigInteger))).table_valued(column("value", BigInteger)).render_derived()
    return array.c.value, array
