"""`python -m twoviews`: the `twoviews` command."""

from twoviews.cli import app

app()
