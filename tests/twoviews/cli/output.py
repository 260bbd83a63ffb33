"""What the command has printed."""

from click.testing import Result


def lines(result: Result) -> list[list[str]]:
    """Return the words of each line."""
    return [line.split() for line in result.stdout.splitlines() if line.strip()]
