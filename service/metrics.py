"""Metrics: named numbers over the steps of a job, appended by its runner and read in columns.

`seq` counts all points of a job in the order they were stored, so it is the cursor that readers poll with. A long run
has millions of points, and a reader wants some hundreds, evenly spread: `query` names evenly spaced `seq`s and asks the
primary key for the next point at each, so its cost depends on what is asked for, not on what is there.
"""

import json
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypedDict

from sqlalchemy import ARRAY, BigInteger, ColumnElement, FromClause, column, func, literal, select, update
from sqlalchemy.orm import Session, aliased

from service import text
from service.db.models import Job, Point, Series
from ssl_core.events import Metrics

MAX_SERIES = 500  # names a job may use
MAX_NAME = 100  # characters
MAX_POINTS = 10_000  # that a reader may ask for, in each series
DEFAULT_POINTS = 1_000

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
    """Some series, and the cursor to send as `after` for what comes next."""

    series: list[Column]
    last: int


# --- writing ---------------------------------------------------------------------------------------------------------


def append(session: Session, job: Job, events: Sequence[Metrics]) -> bool:
    """Store the events' values; a step that its series is past is a replay and is dropped. Tell whether any was new.

    The caller holds the job's row. Raises BadPoint.
    """
    if not events:
        return False
    series = _series(session, job, {name for event in events for name in event.values})
    rows, changed = _rows(events, series, job.last_point)
    if rows:
        job.last_point = rows[-1][1]
        _insert(session, rows)
        session.execute(update(Series), changed)
    return bool(rows)


def finite(value: object, name: str) -> float:
    """Return `value` when it is a finite number. Raises BadPoint."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    raise BadPoint(f"{name} must be a finite number: {value!r}")


class _Ends:
    """Where a series stands while points are added to it."""

    def __init__(self, row: Series) -> None:
        self.id, self.points = row.id, row.points
        self.first_seq, self.last_seq, self.last_step = row.first_seq, row.last_seq, row.last_step

    def as_row(self) -> dict[str, int]:
        return vars(self)


def _series(session: Session, job: Job, names: set[str]) -> dict[str, _Ends]:
    """Return the job's series of these names; those that are new are made."""
    rows = {row.name: row for row in session.scalars(select(Series).where(Series.job_id == job.id))}
    new = sorted(names - rows.keys())
    if len(rows) + len(new) > MAX_SERIES:
        raise BadPoint(f"a job may have {MAX_SERIES} metrics, and this is one too many: {new[-1][:MAX_NAME]!r}")
    for name in new:
        if not (0 < len(name) <= MAX_NAME and text.printable(name)):
            raise BadPoint(f"a metric's name must be 1 to {MAX_NAME} printable characters: {name[:MAX_NAME]!r}")
        rows[name] = Series(job_id=job.id, name=name, points=0, first_seq=0, last_seq=0, last_step=-1)
        session.add(rows[name])
    session.flush()
    return {name: _Ends(rows[name]) for name in names}


def _rows(events: Iterable[Metrics], series: dict[str, _Ends], last: int) -> tuple[list[Row], list[dict[str, int]]]:
    """Return the rows to store, numbered from `last` + 1, and the series that have got some."""
    rows: list[Row] = []
    seq = last
    for event in events:
        step, epoch, time = _step(event.step), finite(event.epoch, "epoch"), finite(event.time, "time")
        for name, value in event.values.items():
            ends = series[name]
            if step > ends.last_step:
                seq += 1
                rows.append((ends.id, seq, step, epoch, time, _value(value)))
                ends.first_seq = ends.first_seq or seq
                ends.last_seq, ends.last_step = seq, step
                ends.points += 1
    return rows, [ends.as_row() for ends in series.values() if ends.last_seq > last]


def _step(step: object) -> int:
    if isinstance(step, int) and 0 <= step < 2**63:
        return step
    raise BadPoint(f"step must be an integer from 0: {step!r}")


def _value(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if math.isfinite(value) else None
    raise BadPoint(f"a metric's value must be a number or null: {value!r}")


def _insert(session: Session, rows: list[Row]) -> None:
    """Store many points by each driver's quickest way."""
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
    """Return points of the job with `after` < seq, of each series at most `max_points` (2 to 10,000).

    Where there are more, they are evenly spread and hold the first and the last. A name that has no points is left out.
    """
    last, after = job.last_point, min(after, job.last_point)
    found = session.scalars(
        select(Series).where(Series.job_id == job.id, Series.last_seq > after).order_by(Series.name)
    )
    wanted = [row for row in found if names is None or row.name in names]
    most = max(2, min(max_points, MAX_POINTS))
    columns = [_column(session, row, after, last, most) for row in wanted]
    return {"series": [item for item in columns if item["step"]], "last": last}


def _column(session: Session, series: Series, after: int, last: int, most: int) -> Column:
    rows = _points(session, series.id, after, last, most)
    step, epoch, time, value = (list(part) for part in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return {"name": series.name, "step": step, "epoch": epoch, "time": time, "value": value}


def _points(session: Session, series_id: int, after: int, last: int, most: int) -> Sequence[Any]:
    """Return (step, epoch, time, value) of at most `most` points with `after` < seq <= `last`."""
    there = (Point.series_id == series_id, Point.seq > after, Point.seq <= last)
    shown = (Point.step, Point.epoch, Point.time, Point.value)
    few = session.execute(select(*shown, Point.seq).where(*there).order_by(Point.seq).limit(most + 1)).all()
    if len(few) <= most:
        return [row[:4] for row in few]
    ends = session.execute(select(func.max(Point.seq)).where(*there)).scalar_one()
    wanted = _next_seqs(session, series_id, _spread(few[0].seq, ends, most))
    found = select(*shown).where(Point.series_id == series_id, Point.seq.in_(wanted)).order_by(Point.seq)
    return session.execute(found).all()


def _spread(first: int, last: int, count: int) -> list[int]:
    """Return `count` evenly spaced numbers from `first` to `last`, both among them."""
    return [first + (last - first) * index // (count - 1) for index in range(count)]


def _next_seqs(session: Session, series_id: int, targets: list[int]) -> Any:
    """A query for the seq of the series' first point at or after each target."""
    target, source = _as_table(session.get_bind().dialect.name, targets)
    point = aliased(Point)
    first = select(func.min(point.seq)).where(point.series_id == series_id, point.seq >= target)
    return select(first.correlate(source).scalar_subquery()).select_from(source)


def _as_table(dialect: str, numbers: list[int]) -> tuple[ColumnElement[int], FromClause]:
    """A table of one column that holds the numbers, sent as one parameter."""
    if dialect == "sqlite":
        table = func.json_each(json.dumps(numbers)).table_valued(column("value", BigInteger))
        return table.c.value, table
    array = func.unnest(literal(numbers, ARRAY(BigInteger))).table_valued(column("value", BigInteger)).render_derived()
    return array.c.value, array
