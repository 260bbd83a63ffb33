"""Times of the command line: days from now, dates, and RFC 3339."""

import re
from datetime import UTC, datetime, timedelta

import typer

_DAYS = re.compile(r"(\d{1,5})d?")


def parse_expiry(value: str) -> dict[str, int | datetime]:
    """Return `expires_in_days` for a number of days such as `30` or `30d`, `expires_at` for a date or a time.

    Raises typer.BadParameter.
    """
    days = _DAYS.fullmatch(value)
    return {"expires_in_days": int(days[1])} if days else {"expires_at": _parse_time(value)}


def parse_since(value: str) -> datetime:
    """Return the time of a number of days ago such as `7d`, of a date or of a time. Raises typer.BadParameter."""
    days = _DAYS.fullmatch(value)
    return datetime.now(UTC) - timedelta(days=int(days[1])) if days else _parse_time(value)


def _parse_time(value: str) -> datetime:
    """Return the time; without an offset it is UTC."""
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter(f"{value} is no number of days, date or time: 30d, 2027-01-31.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
