"""Points in time: RFC 3339 in requests, Unix seconds in Python."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_DATE, _TIME = r"(19[7-9]|[2-9][0-9]{2})[0-9]-[0-9]{2}-[0-9]{2}", r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_PATTERN = rf"^{_DATE}T{_TIME}(Z|[+-][0-9]{{2}}:[0-9]{{2}})$"
_FORMAT = re.compile(_PATTERN.removesuffix("$") + r"\Z")
_MIN, _MAX = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def parse_instant(value: Any) -> float | None:
    """Return the Unix seconds of an RFC 3339 time with its offset; None stays None.

    Raises ValueError for other values, and for times before 1970 or in the last day of the year 9999.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not _FORMAT.match(value):
        raise ValueError("Must be a time such as 2027-01-31T12:00:00Z")
    parsed = datetime.fromisoformat(value)
    if not _MIN <= parsed <= _MAX:
        raise ValueError("Must be between the years 1970 and 9999")
    return parsed.timestamp()


Instant = Annotated[
    float,
    BeforeValidator(parse_instant),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "pattern": _PATTERN, "examples": ["2027-01-31T12:00:00Z"]}
    ),
]
