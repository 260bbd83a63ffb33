"""Lines of points: NDJSON and CSV of any number of points, read in pages while they are sent."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence

import orjson
from anyio.to_thread import run_sync

from service import metrics
from service.db.session import Database
from service.metrics import NamedPoint

NDJSON, CSV = "application/x-ndjson", "text/csv"
_COLUMNS = ("name", "step", "epoch", "time", "value")


class PointsDeleted(Exception):
    """The job was retried from the start while its points were sent: the connection is broken, not ended."""


async def write_lines(
    database: Database, job_id: str, names: Sequence[str] | None, after: int, until: int, media_type: str
) -> AsyncIterator[bytes]:
    """Yield the lines of the job's points with `after` < seq <= `until`; between two pages no connection is held."""

    def read(after: int, first_series: int | None) -> tuple[bytes, int, int | None]:
        with database.connecting() as connection:
            found = metrics.find_first_series(connection, job_id)
            if first_series not in (None, found):
                raise PointsDeleted(job_id)
            page = metrics.list_points(connection, job_id, names, after, until)
        return _FORMATS[media_type](page.points), page.last, found

    first_series = None
    if media_type == CSV:
        yield _format_rows([_COLUMNS])
    while after < until:
        text, after, first_series = await run_sync(read, after, first_series)
        if text:
            yield text


def _format_ndjson(points: Sequence[NamedPoint]) -> bytes:
    return b"".join(orjson.dumps(point._asdict(), option=orjson.OPT_APPEND_NEWLINE) for point in points)


def _format_csv(points: Sequence[NamedPoint]) -> bytes:
    return _format_rows([point[: len(_COLUMNS)] for point in points])


def _format_rows(rows: Sequence[Sequence[object]]) -> bytes:
    """Return rows of CSV; None is an empty cell."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


_FORMATS: dict[str, Callable[[Sequence[NamedPoint]], bytes]] = {NDJSON: _format_ndjson, CSV: _format_csv}
